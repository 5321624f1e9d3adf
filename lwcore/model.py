"""`Model`: one immutable ONNX file, and the card that says how to feed it and how to read its answer."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import onnx

from lwcore.errors import ModelError

Layout = Literal["NCHW", "NHWC"]
ClipLayout = Literal["NCTHW", "NTHWC"]
Color = Literal["rgb", "gray"]
LONGEST = 8192  # tokens or frames


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """How a picture becomes the model's input.

    The shorter side is resized to `resize` pixels (or the picture straight to `size` when `resize` is None), the centre
    is cropped to `size`, values are scaled to 0..1, then `(value - mean) / std` per colour channel.
    """

    size: tuple[int, int] = (224, 224)
    layout: Layout = "NCHW"
    color: Color = "rgb"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    resize: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    @property
    def channels(self) -> int:
        """3 for colour, 1 for grey."""
        return 3 if self.color == "rgb" else 1


@dataclass(frozen=True, kw_only=True)
class ClipSpec(InputSpec):
    """How a clip becomes the model's input: `frames` of it, evenly spread, each as `InputSpec` says of a picture."""

    size: tuple[int, int] = (112, 112)
    layout: ClipLayout = "NCTHW"  # type: ignore[assignment]
    frames: int = 16


@dataclass(frozen=True, kw_only=True)
class TextSpec:
    """How a text becomes the model's input: token ids, cut off or filled up to `length`."""

    length: int = 128


@dataclass(frozen=True, kw_only=True)
class FreeSpec:
    """Inputs of any kind, as the file declares them; samples are arrays of just these shapes."""


Spec = InputSpec | TextSpec | FreeSpec
SPECS: Mapping[str, type[Spec]] = {
    "image-classification": InputSpec,
    "text-classification": TextSpec,
    "text-embedding": TextSpec,
    "video-classification": ClipSpec,
    "generic": FreeSpec,
}


@dataclass(frozen=True, kw_only=True)
class Card:
    """What is known about a model beside its graph; every field has a default because uploads know little."""

    name: str = "model"
    family: str = ""
    task: str = "image-classification"
    description: str = ""
    input: Spec = field(default_factory=InputSpec)
    classes: tuple[str, ...] = ()
    data: str = ""
    licence: str = ""
    source: str = ""
    accuracy: Mapping[str, Any] | None = None
    random_weights: bool = False
    sample_sets: tuple[str, ...] = ()
    calibration: str | None = None
    training: str | None = None

    @property
    def pictures(self) -> InputSpec:
        """How pictures (or a clip's frames) become the input; raises `ModelError` for a model that takes none."""
        if not isinstance(self.input, InputSpec):
            raise ModelError(f"Expected a model that reads pictures, found one for {self.task}.")
        return self.input

    def to_json(self) -> dict[str, Any]:
        """Plain data for a file; `from_json` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any], base: Card | None = None) -> Card:
        """Read a card; fields that are left out keep the value of `base`; unknown fields are ignored.

        Raises:
            ModelError: a field has a value that cannot be used; the message names the field.
        """
        base = base or cls()
        known = {f.name for f in dataclasses.fields(cls)} - {"input"}
        values = {key: value for key, value in data.items() if key in known}
        for key in ("classes", "sample_sets"):
            if not isinstance(values.get(key, ()), (list, tuple)):
                raise ModelError(f"card.{key}: expected a list of names, found {values[key]!r}.")
            if key in values:
                values[key] = tuple(str(item) for item in values[key])
        task = values.get("task", base.task)
        if task not in SPECS:
            raise ModelError(f"card.task: expected {', '.join(SPECS)}; found {task!r}.")
        given = base.input if task == base.task else SPECS[task]()
        return dataclasses.replace(base, **values, input=_input_from_json(data.get("input") or {}, given))


def _input_from_json(data: Mapping[str, Any], base: Spec) -> Spec:
    values = {f.name: data[f.name] for f in dataclasses.fields(base) if f.name in data}
    try:
        for key in ("frames", "length"):
            if key in values:
                values[key] = int(values[key])
        if "size" in values:
            height, width = values["size"]
            values["size"] = (int(height), int(width))
        for key in ("mean", "std"):
            if key in values:
                values[key] = tuple(float(v) for v in values[key])
        spec = dataclasses.replace(base, **values)
    except (TypeError, ValueError) as error:
        raise ModelError(f"card.input: expected size [height, width] and numbers for mean and std; {error}.") from None
    if not 1 <= getattr(spec, "length", 1) <= LONGEST or not 1 <= getattr(spec, "frames", 1) <= LONGEST:
        raise ModelError(f"card.input: expected a length and a number of frames from 1 to {LONGEST}.")
    return _checked(spec) if isinstance(spec, InputSpec) else spec


def _checked(spec: InputSpec) -> InputSpec:
    for name, choices in (
        ("layout", get_args(ClipLayout if isinstance(spec, ClipSpec) else Layout)),
        ("color", ("rgb", "gray")),
        ("interpolation", ("bilinear", "bicubic")),
    ):
        if getattr(spec, name) not in choices:
            raise ModelError(f"card.input.{name}: expected {' or '.join(choices)}, found {getattr(spec, name)!r}.")
    for name in ("mean", "std"):
        values = getattr(spec, name)
        if len(values) == 1:
            values = values * spec.channels
        if len(values) != spec.channels:
            raise ModelError(f"card.input.{name}: expected {spec.channels} numbers, found {len(values)}.")
        spec = dataclasses.replace(spec, **{name: values})
    if min(spec.size) < 1 or not min(spec.std) > 0 or not all(map(math.isfinite, (*spec.mean, *spec.std))):
        raise ModelError("card.input: expected a size and std above zero, and finite numbers.")
    return spec


@dataclass(frozen=True, kw_only=True)
class Model:
    """An ONNX graph as bytes (exactly what a person downloads) with its card; never changed, only replaced.

    `lwcore.load` makes one.

    Attributes:
        notes: in plain words, what was done to the file while reading it.
        files: what must travel with the ONNX file to use it, by file name: a tokenizer.
    """

    data: bytes
    card: Card = field(default_factory=Card)
    notes: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the bytes, hexadecimal; the key of every cache."""
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def reading(self) -> str:
        """How it reads samples, as a text: its input and the digests of the files that travel with it."""
        files = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(self.files.items())}
        return f"{self.card.input!r} {files}"

    @cached_property
    def proto(self) -> onnx.ModelProto:
        """The parsed file. Shared between callers: read it, never write it (`lwcore.graph.Graph` makes copies)."""
        return onnx.load_model_from_string(self.data)

    @property
    def size_bytes(self) -> int:
        """Length of the file."""
        return len(self.data)

    def card_json(self) -> str:
        """The card as text, as it is written beside a downloaded file."""
        return json.dumps(self.card.to_json(), indent=2, ensure_ascii=False)
