"""Bounds on what a graph makes out of nothing, worked out before anything is run.

A file of 130 bytes can ask for gigabytes: ConstantOfShape, Expand, Range, Tile and their like make tensors whose size
is a number in the file. This walks the graph once with the small integer values that are known, and refuses a file
that asks for more than `SETTINGS.tensor_mb`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from lwcore.errors import ModelError
from lwcore.settings import SETTINGS

_SMALL = 4096  # elements of a constant that is worth following
_LOOPS = frozenset({"Loop", "Scan", "SequenceMap"})
_TRIPS = 10_000

Values = dict[str, np.ndarray]


def check_growth(proto: onnx.ModelProto) -> None:
    """Raise `ModelError` when the file's own numbers ask for more memory than a model may take."""
    _check_weights(proto.graph)
    _check_graph(proto.graph, {})
    _check_inferred(proto)


def _check_weights(graph: onnx.GraphProto) -> None:
    total = 0
    for tensor in graph.initializer:
        if any(d < 0 or d > 2**31 for d in tensor.dims):
            raise ModelError(f"Weight {tensor.name[:60]!r}: expected sizes of 0 to 2³¹, found {list(tensor.dims)[:6]}.")
        total += math.prod(tensor.dims) * 4
    _bound(total, "its weights")


def _check_graph(graph: onnx.GraphProto, outer: Mapping[str, np.ndarray]) -> None:
    known: Values = dict(outer)
    for tensor in graph.initializer:
        _remember(known, tensor.name, tensor)
    total = 0.0
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _check_weights(body)
                _check_graph(body, known)
        if node.op_type in _LOOPS:
            _check_trips(node, known)
        elements = _elements(node, known)
        total += elements * 4
        _bound(total, f"operator {node.op_type} {node.name[:60]!r}")
        _follow(node, known)


def _bound(size: float, what: str) -> None:
    if size > SETTINGS.tensor_mb * 1_000_000:
        raise ModelError(
            f"Expected a model that needs at most {SETTINGS.tensor_mb} MB for one tensor; {what} asks for "
            f"{size / 1e6:,.0f} MB. Export the model with its real weights and a usual input size."
        )


def _check_trips(node: NodeProto, known: Values) -> None:
    trips = known.get(node.input[0]) if node.op_type == "Loop" and node.input else None
    if trips is not None and trips.size and int(trips.reshape(-1)[0]) > _TRIPS:
        raise ModelError(
            f"Expected loops of at most {_TRIPS:,} rounds, found {int(trips.reshape(-1)[0]):,} in "
            f"{node.name[:60]!r}. Export the model without the loop."
        )


def _remember(known: Values, name: str, tensor: TensorProto) -> None:
    whole = tensor.data_type in (TensorProto.INT32, TensorProto.INT64, TensorProto.FLOAT, TensorProto.DOUBLE)
    if whole and math.prod(tensor.dims) <= _SMALL:
        try:
            known[name] = numpy_helper.to_array(tensor)
        except Exception as error:  # sizes that do not fit the data raise whatever numpy likes
            raise ModelError(f"Weight {name[:60]!r}: its data does not fit its shape ({str(error)[:100]}).") from None


def _shape_product(node: NodeProto, known: Values, position: int) -> float:
    value = known.get(node.input[position]) if len(node.input) > position else None
    return 0.0 if value is None else float(np.prod(np.abs(value.astype(np.float64))))


def _range(node: NodeProto, known: Values) -> float:
    values = [known.get(n) for n in node.input[:3]]
    if len(values) < 3 or any(v is None or v.size != 1 for v in values):
        return 0.0
    start, stop, step = (float(v.reshape(-1)[0]) for v in values if v is not None)
    return max(0.0, (stop - start) / step) if step else math.inf


def _tile(node: NodeProto, known: Values) -> float:
    data = known.get(node.input[0]) if node.input else None
    return _shape_product(node, known, 1) * (1 if data is None else data.size)


def _pad(node: NodeProto, known: Values) -> float:
    value = known.get(node.input[1]) if len(node.input) > 1 else None
    return 0.0 if value is None else float(np.abs(value.astype(np.float64)).max(initial=0.0))


def _one_hot(node: NodeProto, known: Values) -> float:
    return _shape_product(node, known, 1)


def _random(node: NodeProto, known: Values) -> float:
    shape = next((list(a.ints) for a in node.attribute if a.name == "shape"), [])
    return float(np.prod(np.abs(np.asarray(shape, np.float64)))) if shape else 0.0


_GROWS: Mapping[str, Callable[[NodeProto, Values], float]] = {
    "ConstantOfShape": lambda n, k: _shape_product(n, k, 0),
    "Expand": lambda n, k: _shape_product(n, k, 1),
    "Tile": _tile,
    "Range": _range,
    "Pad": _pad,
    "OneHot": _one_hot,
    "RandomNormal": _random,
    "RandomUniform": _random,
    "Resize": lambda n, k: _shape_product(n, k, 3),
    "Upsample": lambda n, k: _shape_product(n, k, 1),
    "EyeLike": lambda n, k: 0.0,
}


def _elements(node: NodeProto, known: Values) -> float:
    rule = _GROWS.get(node.op_type)
    return rule(node, known) if rule else 0.0


_ARITHMETIC: Mapping[str, Callable[..., np.ndarray]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Abs": np.abs,
}


def _follow(node: NodeProto, known: Values) -> None:
    """Work out small integer results, so that a size hidden behind arithmetic is seen too."""
    if not node.output:
        return
    if node.op_type == "Constant":
        for attribute in node.attribute:
            if attribute.name == "value":
                _remember(known, node.output[0], attribute.t)
            elif attribute.name in ("value_int", "value_ints", "value_float", "value_floats"):
                known[node.output[0]] = np.asarray(helper.get_attribute_value(attribute))[..., None].reshape(-1)
        return
    values = [known.get(name) for name in node.input if name]
    if not values or any(v is None or v.size > _SMALL for v in values):
        return
    result = _computed(node, [v for v in values if v is not None], known)
    if result is not None and result.size <= _SMALL:
        known[node.output[0]] = result


def _computed(node: NodeProto, values: list[np.ndarray], known: Values) -> np.ndarray | None:
    try:
        if node.op_type in _ARITHMETIC:
            with np.errstate(all="ignore"):
                return np.asarray(_ARITHMETIC[node.op_type](*(v.astype(np.float64) for v in values)))
        if node.op_type == "Concat":
            return np.concatenate([v.reshape(-1) for v in values])
        if node.op_type in ("Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape", "Flatten"):
            return values[0].reshape(-1)
        if node.op_type == "Pow":
            with np.errstate(all="ignore"):
                return np.asarray(np.power(values[0].astype(np.float64), values[1].astype(np.float64)))
        if node.op_type == "ConstantOfShape" and _elements(node, known) <= _SMALL:
            fills = [numpy_helper.to_array(a.t).reshape(-1)[0] for a in node.attribute if a.name == "value"]
            return np.full(int(_elements(node, known)), fills[0] if fills else np.float32(0))
    except (ValueError, TypeError, IndexError):
        return None  # what cannot be worked out here is bounded by the worker's memory limit
    return None


def _check_inferred(proto: onnx.ModelProto) -> None:
    """Bound every tensor whose shape follows from the graph, at batch 1."""
    twin = onnx.ModelProto()
    twin.CopyFrom(proto)
    try:
        inferred = onnx.shape_inference.infer_shapes(twin, data_prop=True)
    except Exception as error:  # a foreign parser; what it says is of use to the person
        raise ModelError(f"Expected a graph whose shapes fit together; they do not: {str(error)[:200]}") from None
    for info in (*inferred.graph.value_info, *inferred.graph.output):
        dims = [d.dim_value for d in info.type.tensor_type.shape.dim if d.HasField("dim_value")]
        if any(d < 0 for d in dims):
            raise ModelError(f"Tensor {info.name[:60]!r}: expected sizes above zero, found {dims[:6]}.")
        _bound(math.prod(dims) * 4, f"tensor {info.name[:60]!r}")
