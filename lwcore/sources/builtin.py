"""The gallery: models that ship with the product, one ONNX file and one card each in `assets/models`.

What must travel with a model (a tokenizer) is named under `files` in its card, and models may share such a file.

Three conventions keep the files small. A name that ends in `.onnx.xz` is packed. A card with `"stored": "float16"`
says that the weights were stored in half precision and are widened on reading. A card with `"weights":
{"random_seed": n}` says that the file has no weights: every initializer without data is drawn from a seeded He-normal
distribution, the same on every machine.
"""

from __future__ import annotations

import json
import lzma
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from lwcore.errors import ModelError
from lwcore.model import Card, Model
from lwcore.settings import ASSETS
from lwcore.sources.normalise import has_shapes, normalise

FOLDER = ASSETS / "models"


@lru_cache(maxsize=1)
def ids() -> tuple[str, ...]:
    """Names of the built-in models: those trained here, then the ImageNet ones, then bare structures."""
    names = sorted(path.stem for path in FOLDER.glob("*.json") if _file(path.stem).is_file())
    return tuple(sorted(names, key=_place))


def _place(name: str) -> int:
    """Which kind a model is of: small pictures, texts, clips, ImageNet, then bare structures."""
    kinds = ("fashion-", "email-", "motion-", "imagenet-")
    return next((place for place, kind in enumerate(kinds) if name.startswith(kind)), len(kinds))


def gallery() -> dict[str, Card]:
    """Id → card of every built-in model, in the order in which they are shown."""
    return {name: Card.from_json(_card(name)) for name in ids()}


@lru_cache(maxsize=16)
def load_builtin(name: str) -> Model:
    """Load one model of the gallery; raises `ModelError` when there is none of that name."""
    if name not in ids():
        raise ModelError(f"Expected a built-in model ({', '.join(ids())}), found {name!r}.")
    data = _file(name).read_bytes()
    if _file(name).suffix == ".xz":
        data = lzma.decompress(data)
    card = _card(name)
    if card.get("stored") == "float16" or "weights" in card:
        data = _completed(onnx.load_model_from_string(data), card).SerializeToString(deterministic=True)
    proto = onnx.load_model_from_string(data)
    if not has_shapes(proto):
        data, _ = normalise(proto)
    beside = {file: (FOLDER / kept).read_bytes() for file, kept in card.get("files", {}).items()}
    return Model(data=data, card=Card.from_json(card), files=beside)


def with_class_names(data: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the name of a shared list of classes (`"classes": "imagenet"`) by the list."""
    classes = data.get("classes", [])
    if not isinstance(classes, str):
        return dict(data)
    path = ASSETS / "labels" / f"{Path(classes).name}.json"
    if not path.is_file():
        raise ModelError(
            f"card.classes: expected a list of names or a shared list in assets/labels, found {classes!r}."
        )
    return {**data, "classes": json.loads(path.read_text(encoding="utf-8"))}


def _file(name: str) -> Path:
    """The model's file: packed where that saves a tenth of it or more."""
    packed = FOLDER / f"{name}.onnx.xz"
    return packed if packed.is_file() else FOLDER / f"{name}.onnx"


@lru_cache(maxsize=32)
def _card(name: str) -> dict[str, Any]:
    return with_class_names(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


def _completed(proto: onnx.ModelProto, card: Mapping[str, Any]) -> onnx.ModelProto:
    rng = np.random.default_rng(card.get("weights", {}).get("random_seed", 0))
    for tensor in proto.graph.initializer:
        if card.get("stored") == "float16" and tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
        elif "weights" in card and tensor.data_type == TensorProto.FLOAT and _is_empty(tensor):
            tensor.CopyFrom(numpy_helper.from_array(_he_normal(rng, tuple(tensor.dims)), tensor.name))
    return proto


def _is_empty(tensor: TensorProto) -> bool:
    return math.prod(tensor.dims) > 0 and not tensor.raw_data and not tensor.float_data


def _he_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    fan_in = math.prod(shape[1:]) or 1
    return (rng.standard_normal(shape) * math.sqrt(2 / fan_in)).astype(np.float32)
