"""The inputs of a stranger's file: checked, and given a size wherever the file leaves one open."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx
from onnx import GraphProto, TensorProto

from lwcore.errors import ModelError
from lwcore.graph import SEQUENCE
from lwcore.settings import SETTINGS

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
FED = (*FLOATS, TensorProto.DOUBLE, TensorProto.BOOL, TensorProto.INT64, TensorProto.INT32, TensorProto.INT8,
       TensorProto.UINT8)  # fmt: skip
PICTURE, CLIP = 4, 5  # dimensions, the batch included
COLOURS = (1, 3)
_EDGES = {PICTURE: 224, CLIP: 112}
_FRAMES = 16
_OPEN = 16  # what any other open dimension becomes: the steps of a sequence, mostly
_INPUTS = 64
_MOST_AT_ONCE = 1024
_IDS, _BESIDE_IDS = ("input_ids", "ids", "tokens"), ("mask", "type", "segment")  # what exporters call them


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """How many tokens a text has for a network that reads token ids, and whether other lengths are possible too."""

    length: int
    free: bool = True


def inputs_of(graph: GraphProto) -> list[onnx.ValueInfoProto]:
    """What a caller feeds: old files list their constants among the inputs too."""
    constants = {t.name for t in graph.initializer}
    return [i for i in graph.input if i.name not in constants]


def channels_last(shape: list[int | None]) -> bool:
    """Whether a picture's or clip's colours lie on the last axis."""
    return shape[-1] in COLOURS and shape[1] not in COLOURS


def reads_tokens(graph: GraphProto) -> bool:
    """Whether a network reads texts as the tokenizers of encoders give them: ids, perhaps a mask and segments."""
    inputs = inputs_of(graph)
    names = [info.name.lower() for info in inputs]
    beside = [name for name in names if any(word in name for word in _BESIDE_IDS)]
    ids = [name for name in names if name not in beside]
    whole = all(
        info.type.tensor_type.elem_type in (TensorProto.INT64, TensorProto.INT32)
        and len(info.type.tensor_type.shape.dim) == 2
        for info in inputs
    )
    return whole and len(ids) == 1 and ids[0].endswith(_IDS) and len(beside) <= 2  # a mask, segments


def check_inputs(proto: onnx.ModelProto) -> None:
    """Raise `ModelError` for inputs that no array can be fed to, or for none."""
    inputs = inputs_of(proto.graph)
    if not 1 <= len(inputs) <= _INPUTS:
        raise ModelError(f"Expected a model with 1–{_INPUTS} inputs, found {len(inputs)}. Export the model again.")
    if not proto.graph.output:
        raise ModelError("Expected a model with an output, found none. Export the model again.")
    for info in inputs:
        tensor = info.type.tensor_type
        if not info.type.HasField("tensor_type") or tensor.elem_type not in FED:
            known = TensorProto.DataType.values()
            kind = TensorProto.DataType.Name(tensor.elem_type).lower() if tensor.elem_type in known else "?"
            raise ModelError(
                f"Input {info.name[:40]!r}: expected an array of numbers, found {kind}. Export the part of the model "
                "that reads numbers."
            )
        if not tensor.HasField("shape"):
            raise ModelError("Expected an input of known shape, found none in the file. Export with an example input.")


def settle_sizes(proto: onnx.ModelProto, size: tuple[int, int] | None, tokens: Tokens | None = None) -> list[str]:
    """Write sizes into inputs that leave them open, and say which.

    A first dimension stays open where it is the batch. Pictures take `size`, else 224 × 224, clips 16 frames of
    112 × 112; texts `tokens`; anything else takes 16 along each open dimension, and 1 along one that is named after
    the batch.
    """
    inputs = inputs_of(proto.graph)
    if tokens and reads_tokens(proto.graph):
        _settle_tokens(inputs, tokens)
        return []
    rank = len(inputs[0].type.tensor_type.shape.dim)
    seen = len(inputs) == 1 and rank in (PICTURE, CLIP) and inputs[0].type.tensor_type.elem_type in FLOATS
    notes = _settle_pictures(inputs[0], size) if seen else _settle_others(inputs)
    for info in inputs:
        _check_sizes(info)
    return notes


def _settle_pictures(info: onnx.ValueInfoProto, size: tuple[int, int] | None) -> list[str]:
    dims = info.type.tensor_type.shape.dim
    known = _known(info)
    clip = len(dims) == CLIP
    last = channels_last(known)
    channels, places = (len(dims) - 1, [*range(1, len(dims) - 1)]) if last else (1, [*range(2, len(dims))])
    notes = []
    if known[channels] is None:
        dims[channels].dim_value = 3
        notes.append("The file leaves the number of colours open; three (red, green, blue) were assumed.")
    edge = _EDGES[len(dims)]
    wanted = [*([_FRAMES] if clip else []), *(size or (edge, edge))]
    if any(known[p] is None for p in places):
        for place, length in zip(places, wanted, strict=True):
            if known[place] is None:
                dims[place].dim_value = length
        found = " × ".join(str(dims[p].dim_value) for p in places)
        what = "clip" if clip else "picture"
        notes.append(f"The file leaves the {what}'s size open; it is fixed to {found}.")
    return notes


def _settle_tokens(inputs: list[onnx.ValueInfoProto], tokens: Tokens) -> None:
    for info in inputs:
        batch, length = info.type.tensor_type.shape.dim
        known = _known(info)
        if known[0] is None:
            batch.dim_param = "batch"
        if known[1] is None and tokens.free:
            length.dim_param = f"{SEQUENCE}={tokens.length}"
        elif known[1] is None:
            length.dim_value = tokens.length


def _settle_others(inputs: list[onnx.ValueInfoProto]) -> list[str]:
    named = [
        (info, axis)
        for info in inputs
        for axis, size in enumerate(_known(info))
        if size is None and not _is_length(info, axis)
    ]
    batch_behind = any(axis and _is_batch(info, axis) for info, axis in named)
    notes = []
    for info, axis in named:
        dim = info.type.tensor_type.shape.dim[axis]
        if axis == 0 and not (batch_behind and not _is_batch(info, 0)):
            continue
        length = 1 if _is_batch(info, axis) else _OPEN
        notes.append(f"Input {info.name[:40]!r} leaves dimension {axis + 1} open; it is fixed to {length}.")
        dim.dim_value = length
    return notes


def _is_batch(info: onnx.ValueInfoProto, axis: int) -> bool:
    name = str(info.type.tensor_type.shape.dim[axis].dim_param).lower()
    return "batch" in name or name in ("n", "b", "bs")


def _is_length(info: onnx.ValueInfoProto, axis: int) -> bool:
    """Whether it is left open as we leave it, in a text model that is read again."""
    stem, _, length = str(info.type.tensor_type.shape.dim[axis].dim_param).partition("=")
    return stem == SEQUENCE and length.isdecimal()


def _known(info: onnx.ValueInfoProto) -> list[int | None]:
    dims = info.type.tensor_type.shape.dim
    return [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims]


def _check_sizes(info: onnx.ValueInfoProto) -> None:
    known = _known(info)
    sizes = [size or 1 for size in known]
    if len(sizes) in (PICTURE, CLIP) and max(sizes[1:]) > SETTINGS.image_edge:
        found = " × ".join(map(str, sizes[1:]))
        raise ModelError(f"Expected pictures of at most {SETTINGS.image_edge} pixels an edge, found {found}.")
    if len(sizes) in (PICTURE, CLIP) and sizes[0] > _MOST_AT_ONCE:
        raise ModelError(f"Expected at most {_MOST_AT_ONCE} pictures at once, found {sizes[0]}. Export with batch 1.")
    if math.prod(sizes) * 4 > SETTINGS.tensor_mb * 1_000_000:
        raise ModelError(
            f"Expected inputs of at most {SETTINGS.tensor_mb} MB, found {math.prod(sizes) * 4 // 1_000_000} MB in "
            f"{info.name[:40]!r}. Export with a usual input size."
        )
