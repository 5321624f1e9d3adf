"""`Recipe`: what to do to a model, as plain data that survives JSON. Doing it is in `lwcore.slimming`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from lwcore.errors import RecipeError
from lwcore.registry import Registry

VERSION = 1
MOST = 0.95  # the largest share that a slider may remove; beyond it nothing that was learnt is left

Compensation = Literal["none", "one-shot", "sequential"]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What may be left of the model: a share (0–1] of its multiply–accumulates or parameters."""

    of: Literal["macs", "params"] = "macs"
    keep: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Channels:
    """Remove whole channels (neurons) and re-fit what reads them.

    Attributes:
        amount: share of the channels of every group to remove, 0–0.95.
        groups: amounts for single groups, by group name; they win over `amount` and `budget`.
        budget: instead of one amount for all, share the removal out by measured sensitivity.
        criterion: a name in `lwcore.slimming.criteria.CRITERIA`.
        compensate: closed-form re-fit of the consumers ("sequential" measures best, "one-shot" is fastest).
        align: keep whole blocks of so many channels, because processors compute in blocks; 1 removes single channels.
    """

    kind: ClassVar[str] = "channels"
    amount: float = 0.0
    groups: Mapping[str, float] = field(default_factory=dict)
    budget: Budget | None = None
    criterion: str = "gram"
    compensate: Compensation = "sequential"
    align: int = 8


@dataclass(frozen=True, kw_only=True)
class Connections:
    """Set the smallest weights to zero: over the whole model (`global`) or in each layer alike (`layer`)."""

    kind: ClassVar[str] = "connections"
    amount: float = 0.5
    scope: Literal["global", "layer"] = "global"


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Store (and run) with fewer bits: `fp16`, `int8-dynamic` or `int8-static`.

    Attributes:
        ranges: how activation ranges are read off the calibration samples (int8-static only).
        samples: calibration samples used, 1–2000 (int8-static only).
        variant: activation and weight types (int8-static only); `auto` measures on this processor and takes the best.
    """

    kind: ClassVar[str] = "precision"
    format: Literal["fp16", "int8-dynamic", "int8-static"] = "fp16"
    ranges: Literal["minmax", "entropy", "percentile"] = "minmax"
    samples: int = 200
    variant: Literal["auto", "u8s8", "u8s8-reduced", "u8u8", "s8s8"] = "auto"


Step = Channels | Connections | Precision
STEPS: Registry[type[Step]] = Registry("recipe step")
for _step in (Channels, Connections, Precision):
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
            seed=_whole(body.get("seed", 0), "seed", 0, 2**31 - 1),
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
    _no_strangers(body, {f.name for f in dataclasses.fields(STEPS[kind])}, path)
    return _READERS[kind](body, path)


def _read_channels(body: dict[str, Any], path: str) -> Channels:
    from lwcore.slimming.criteria import CRITERIA  # registered there; importing it above would close a circle

    default = Channels()
    groups = _mapping(body.get("groups") or {}, f"{path}.groups")
    budget = body.get("budget")
    return Channels(
        amount=_share(body.get("amount", default.amount), f"{path}.amount"),
        groups={str(k): _share(v, f"{path}.groups.{k}") for k, v in groups.items()},
        budget=None if budget is None else _read_budget(_mapping(budget, f"{path}.budget"), f"{path}.budget"),
        criterion=_choice(body.get("criterion", default.criterion), f"{path}.criterion", tuple(CRITERIA)),
        compensate=_choice(
            body.get("compensate", default.compensate), f"{path}.compensate", ("none", "one-shot", "sequential")
        ),
        align=_whole(body.get("align", default.align), f"{path}.align", 1, 64),
    )


def _read_budget(body: Mapping[str, Any], path: str) -> Budget:
    _no_strangers(body, {"of", "keep"}, path)
    keep = _number(body.get("keep", 0.5), f"{path}.keep")
    if not 0 < keep <= 1:
        raise RecipeError(f"{path}.keep: expected a share above 0 and up to 1, found {keep:g}.")
    return Budget(of=_choice(body.get("of", "macs"), f"{path}.of", ("macs", "params")), keep=keep)


def _read_connections(body: dict[str, Any], path: str) -> Connections:
    default = Connections()
    return Connections(
        amount=_share(body.get("amount", default.amount), f"{path}.amount"),
        scope=_choice(body.get("scope", default.scope), f"{path}.scope", ("global", "layer")),
    )


def _read_precision(body: dict[str, Any], path: str) -> Precision:
    default = Precision()
    return Precision(
        format=_choice(body.get("format", default.format), f"{path}.format", ("fp16", "int8-dynamic", "int8-static")),
        ranges=_choice(body.get("ranges", default.ranges), f"{path}.ranges", ("minmax", "entropy", "percentile")),
        samples=_whole(body.get("samples", default.samples), f"{path}.samples", 1, 2000),
        variant=_choice(
            body.get("variant", default.variant), f"{path}.variant", ("auto", "u8s8", "u8s8-reduced", "u8u8", "s8s8")
        ),
    )


_READERS: Mapping[str, Callable[[dict[str, Any], str], Step]] = {
    "channels": _read_channels,
    "connections": _read_connections,
    "precision": _read_precision,
}


def _mapping(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RecipeError(f"{path}: expected named fields, found {type(value).__name__}.")
    return value


def _no_strangers(body: Mapping[str, Any], known: set[str], path: str) -> None:
    for name in body:
        if name not in known:
            raise RecipeError(f"{path}.{name}: expected one of {', '.join(sorted(known))}; found this unknown field.")


def _number(value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RecipeError(f"{path}: expected a number, found {value!r}.")
    return float(value)


def _share(value: Any, path: str) -> float:
    number = _number(value, path)
    if not 0 <= number <= MOST:
        raise RecipeError(f"{path}: expected 0–{MOST:g}, found {number:g}.")
    return number


def _whole(value: Any, path: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RecipeError(f"{path}: expected a whole number {low}–{high}, found {value!r}.")
    return value


def _choice(value: Any, path: str, choices: tuple[str, ...]) -> Any:
    if value not in choices:
        raise RecipeError(f"{path}: expected one of {', '.join(choices)}; found {value!r}.")
    return value
