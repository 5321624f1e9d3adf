"""`Recipe`: what to do to a model, as plain data that survives JSON. Doing it is in `lwcore.slimming`.

A step is a frozen dataclass; the type of each field is annotated with its reader, so that is all a new step needs.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, get_args, get_type_hints

from lwcore.errors import RecipeError
from lwcore.registry import Registry

VERSION = 1
MOST = 0.95  # the largest share that a slider may remove; beyond it nothing that was learnt is left

Compensation = Literal["none", "one-shot", "sequential"]
Reader = Callable[[Any, str], Any]  # a value out of JSON and its dotted path → the value, or `RecipeError`


# -- readers -------------------------------------------------------------------------------------------------------


def _mapping(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RecipeError(f"{path}: expected named fields, found {type(value).__name__}.")
    return value


def _number(low: float, high: float, *, above: bool = False) -> Reader:
    """A number from `low` (or above it) to `high`."""

    def read(value: Any, path: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise RecipeError(f"{path}: expected a number, found {value!r}.")
        if not low <= value <= high or (above and value == low):
            wanted = f"a number above {low:g} and up to {high:g}" if above else f"{low:g}–{high:g}"
            raise RecipeError(f"{path}: expected {wanted}, found {value:g}.")
        return float(value)

    return read


def _whole(low: int, high: int) -> Reader:
    def read(value: Any, path: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise RecipeError(f"{path}: expected a whole number {low}–{high}, found {value!r}.")
        return value

    return read


def _choice(*choices: str) -> Reader:
    def read(value: Any, path: str) -> Any:
        if value not in choices:
            raise RecipeError(f"{path}: expected one of {', '.join(choices)}; found {value!r}.")
        return value

    return read


def _optional(reader: Reader) -> Reader:
    return lambda value, path: None if value is None else reader(value, path)


def _named(reader: Reader) -> Reader:
    """Values by name."""
    return lambda value, path: {str(k): reader(v, f"{path}.{k}") for k, v in _mapping(value or {}, path).items()}


def _names(value: Any, path: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise RecipeError(f"{path}: expected a list of names, found {value!r}.")
    return tuple(value)


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise RecipeError(f"{path}: expected text, found {value!r}.")
    return value


def _yes_or_no(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise RecipeError(f"{path}: expected true or false, found {value!r}.")
    return value


def _criterion(value: Any, path: str) -> Any:
    from lwcore.slimming.pruning.criteria import CRITERIA  # registered there; importing it above would close a circle

    return _choice(*CRITERIA)(value, path)


def _fields(kind: Any) -> Reader:
    """The fields of a dataclass, each by its own reader; absent ones take their defaults."""

    def read(value: Any, path: str) -> Any:
        body, readers = _mapping(value, path), _readers(kind)
        _no_strangers(body, set(readers), path)
        return kind(**{name: readers[name](given, f"{path}.{name}") for name, given in body.items()})

    return read


@cache  # looking annotations up costs more than all reading
def _readers(kind: Any) -> Mapping[str, Reader]:
    hints = get_type_hints(kind, include_extras=True)
    return {f.name: hints[f.name].__metadata__[0] for f in dataclasses.fields(kind)}


def _no_strangers(body: Mapping[str, Any], known: set[str], path: str) -> None:
    for name in body:
        if name not in known:
            raise RecipeError(f"{path}.{name}: expected one of {', '.join(sorted(known))}; found this unknown field.")


_SHARE = _number(0, MOST)


# -- steps ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What may be left of the model: a share (0–1] of its multiply–accumulates, parameters, weight bytes or time.

    `latency` is time measured on this machine, so it alone may share out differently on another one.
    """

    of: Annotated[Literal["macs", "params", "bytes", "latency"], _choice("macs", "params", "bytes", "latency")] = "macs"
    keep: Annotated[float, _number(0, 1, above=True)] = 0.5


@dataclass(frozen=True, kw_only=True)
class Channels:
    """Remove whole channels (neurons) and re-fit what reads them.

    Attributes:
        amount: share of the channels of every group to remove, 0–0.95.
        groups: amounts for single groups, by group name; they win over `amount` and `budget`.
        budget: instead of one amount for all, share the removal out by measured sensitivity.
        criterion: a name in `lwcore.slimming.pruning.criteria.CRITERIA`.
        compensate: closed-form re-fit of the consumers ("sequential" measures best, "one-shot" is fastest).
        align: keep whole blocks of so many channels, because processors compute in blocks; 1 removes single channels.
    """

    kind: ClassVar[str] = "channels"
    amount: Annotated[float, _SHARE] = 0.0
    groups: Annotated[Mapping[str, float], _named(_SHARE)] = field(default_factory=dict)
    budget: Annotated[Budget | None, _optional(_fields(Budget))] = None
    criterion: Annotated[str, _criterion] = "gram"
    compensate: Annotated[Compensation, _choice("none", "one-shot", "sequential")] = "sequential"
    align: Annotated[int, _whole(1, 64)] = 8


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Drop whole residual blocks that change their input least, and re-fit what reads them.

    Attributes:
        amount: share of the blocks that can be dropped, 0–0.95.
        names: blocks to drop whatever they change, by the name of the operator that adds them to the shortcut.
    """

    kind: ClassVar[str] = "blocks"
    amount: Annotated[float, _SHARE] = 0.0
    names: Annotated[tuple[str, ...], _names] = ()


@dataclass(frozen=True, kw_only=True)
class Heads:
    """Drop whole attention heads, those that add least to their layer's result, and re-fit what reads the others.

    Attributes:
        amount: share of all heads of the model, 0–0.95; every attention layer keeps one.
    """

    kind: ClassVar[str] = "heads"
    amount: Annotated[float, _SHARE] = 0.0


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Take tokens that do not occur in the calibration texts out of a text model's tables and its tokenizer.

    Attributes:
        least: how often a token must occur to stay; single letters and special tokens stay in any case.
    """

    kind: ClassVar[str] = "vocabulary"
    least: Annotated[int, _whole(1, 1000)] = 1


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """Split convolutions and linear layers into two thinner ones, where that saves multiply–accumulates.

    Attributes:
        energy: share of the variance of each layer's outputs that its two factors must keep, on calibration samples.
        budget: instead of one energy for all, the ranks that keep most within this budget.
    """

    kind: ClassVar[str] = "low-rank"
    energy: Annotated[float, _number(0, 1, above=True)] = 0.98
    budget: Annotated[Budget | None, _optional(_fields(Budget))] = None


@dataclass(frozen=True, kw_only=True)
class Connections:
    """Set the smallest weights to zero: over the whole model (`global`) or in each layer alike (`layer`)."""

    kind: ClassVar[str] = "connections"
    amount: Annotated[float, _SHARE] = 0.5
    scope: Annotated[Literal["global", "layer"], _choice("global", "layer")] = "global"


@dataclass(frozen=True, kw_only=True)
class Distill:
    """Train the model as it is by now to answer as a teacher does.

    Attributes:
        minutes: how long it may train.
        steps: train so many batches instead of minutes, so that the same recipe gives the same weights.
        teacher: a built-in id, the fingerprint of a stored model or (in the library) a path; the original when empty.
        samples: a built-in set, the fingerprint of a stored one or (in the library) a path; the card's own when empty.
        temperature: by which both answers are divided before they are compared.
        labels: share of the loss that comes from labels, 0–1, where the samples have any; 1 is fine-tuning without a
            teacher.
        inner: weight of the losses on hidden states and attention maps, beside that on the answers (transformers only).
        rate: the highest learning rate.
        int8: round weights and activations in training as a later static int8 step will, so that it loses less.
    """

    kind: ClassVar[str] = "distill"
    minutes: Annotated[float, _number(0, 600, above=True)] = 2.0
    steps: Annotated[int | None, _optional(_whole(1, 10_000_000))] = None
    teacher: Annotated[str, _text] = ""
    samples: Annotated[str, _text] = ""
    temperature: Annotated[float, _number(1, 20)] = 3.0
    labels: Annotated[float, _number(0, 1)] = 0.1
    inner: Annotated[float, _number(0, 100)] = 0.0
    rate: Annotated[float, _number(0, 1, above=True)] = 0.004
    int8: Annotated[bool, _yes_or_no] = False


Format = Literal["fp16", "int8-dynamic", "int8-static", "int8-weights", "int4-weights", "int4-matmul", "palette"]
Ranges = Literal["auto", "minmax", "entropy", "percentile", "mse"]
Variant = Literal["auto", "u8s8", "u8s8-reduced", "u8u8", "s8s8"]


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Store (and mostly run) with fewer bits.

    Attributes:
        format: `fp16`; `int8-dynamic` and `int8-static` compute in integers; `int8-weights` and `int4-weights` store
            integers and compute in floats; `int4-matmul` does so with onnxruntime's own operator; `palette` stores
            each layer's weights as few values (k-means).
        ranges: how activation ranges are read off the calibration samples (int8-static only).
        samples: calibration samples used, 1–2000 (int8-static only).
        variant: activation and weight types (int8-static only); `auto` measures on this processor and takes the best.
        keep: names of operators that stay in float32 (int8-static only).
        drop: the largest loss, in points of accuracy (agreement where samples have no labels): the fewest operators
            stay in float32 that keep it on the calibration samples (int8-static only).
        bits: of an index into the palette, 1–8 (palette only).
    """

    kind: ClassVar[str] = "precision"
    format: Annotated[Format, _choice(*get_args(Format))] = "fp16"
    ranges: Annotated[Ranges, _choice(*get_args(Ranges))] = "minmax"
    samples: Annotated[int, _whole(1, 2000)] = 200
    variant: Annotated[Variant, _choice(*get_args(Variant))] = "auto"
    keep: Annotated[tuple[str, ...], _names] = ()
    drop: Annotated[float | None, _optional(_number(0, 100))] = None
    bits: Annotated[int, _whole(1, 8)] = 4


Step = Channels | Blocks | Heads | Vocabulary | LowRank | Connections | Distill | Precision
STEPS: Registry[type[Step]] = Registry("recipe step")
for _step in (Channels, Blocks, Heads, Vocabulary, LowRank, Connections, Distill, Precision):
    STEPS.add(_step.kind, _step)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Steps in the order in which they are applied, and the seed of everything random in them."""

    steps: tuple[Step, ...] = ()
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain data with every field written out, so that a later change of a default changes no old recipe."""
        steps = [{"kind": step.kind, **dataclasses.asdict(step)} for step in self.steps]
        return {"version": VERSION, "seed": self.seed, "steps": steps}

    def dumps(self) -> str:
        """Canonical JSON text: the same recipe is always the same text."""
        return json.dumps(self.to_json(), sort_keys=True, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, data: Any) -> Recipe:
        """Read a recipe; raises `RecipeError` with the dotted path of the first fault."""
        body = _mapping(data, "recipe")
        if body.get("version", VERSION) != VERSION:
            raise RecipeError(f"version: expected {VERSION}, found {body['version']!r} (written by another release).")
        _no_strangers(body, {"version", "seed", "steps"}, "recipe")
        steps = body.get("steps", [])
        if not isinstance(steps, list):
            raise RecipeError(f"steps: expected a list, found {type(steps).__name__}.")
        return cls(
            seed=_whole(0, 2**31 - 1)(body.get("seed", 0), "seed"),
            steps=tuple(_read_step(item, f"steps[{i}]") for i, item in enumerate(steps)),
        )

    @classmethod
    def loads(cls, text: str | bytes) -> Recipe:
        """Read a recipe from JSON text; raises `RecipeError`."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RecipeError(f"recipe: expected JSON text, found something else ({error}).") from None
        return cls.from_json(data)


def _read_step(data: Any, path: str) -> Step:
    body = dict(_mapping(data, path))
    kind = body.pop("kind", None)
    if not isinstance(kind, str) or kind not in STEPS:
        raise RecipeError(f"{path}.kind: expected one of {', '.join(STEPS)}; found {kind!r}.")
    step: Step = _fields(STEPS[kind])(body, path)
    return step
