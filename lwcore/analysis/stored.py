"""What a stored weight stands for: floats as they are, a quantizer's integers through their zero point and scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from lwcore.graph import Graph, attributes

# Operator → position of a quantized weight → (positions of its scale, of its zero point); None: not beside the weight.
_PARTNERS: Mapping[str, Mapping[int, tuple[int | None, int]]] = {
    "DequantizeLinear": {0: (1, 2)},
    "ConvInteger": {1: (None, 3)},
    "MatMulInteger": {1: (None, 3)},
    "QLinearConv": {3: (4, 5)},
    "QLinearMatMul": {3: (4, 5)},
}


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A constant with the zero point and scale of its integers (0 and 1 for floats), ready to broadcast against it."""

    name: str
    array: np.ndarray
    zero: np.ndarray
    scale: np.ndarray

    def nonzeros(self) -> int:
        """How many of the values are not zero."""
        return int(np.count_nonzero(self.array != self.zero))

    def magnitudes(self) -> np.ndarray:
        """Absolute values of what is stored, float32, the constant's shape."""
        values = self.array.astype(np.float32) - self.zero.astype(np.float32)
        return np.asarray(np.abs(values * self.scale.astype(np.float32)))


def stored(graph: Graph, node: NodeProto, position: int) -> Stored:
    """The constant that `node` reads at `position`."""
    name = node.input[position]
    array = graph.constants[name]
    if node.op_type == "MatMulNBits" and position == 1:
        return _blocked(graph, node, name)
    if node.op_type == "DequantizeLinear" and position == 0 and attributes(node).get("block_size"):
        return _dequantized(graph, node, name)
    scale, zero = _PARTNERS.get(node.op_type, {}).get(position, (None, None))
    return Stored(
        name=name, array=array, zero=_partner(graph, node, zero, array, 0), scale=_partner(graph, node, scale, array, 1)
    )


def _blocked(graph: Graph, node: NodeProto, name: str) -> Stored:
    """Two four-bit numbers share a byte, the lower half first; 8 stands for zero (onnxruntime's MatMulNBits)."""
    packed, sizes = graph.constants[name], attributes(node)
    columns, block = int(sizes["K"]), int(sizes["block_size"])  # type: ignore[call-overload]
    halves: np.ndarray = np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)[:, :columns]
    scale = graph.constants[node.input[2]].reshape(len(packed), -1)
    repeated = np.repeat(scale, block, axis=1)[:, :columns]
    return Stored(name=name, array=halves, zero=np.full((), 8, np.uint8), scale=repeated)


def _dequantized(graph: Graph, node: NodeProto, name: str) -> Stored:
    """One scale for each block along an axis."""
    array, found = graph.constants[name], attributes(node)
    axis, block = int(found.get("axis", 1)) % array.ndim, int(found["block_size"])  # type: ignore[call-overload]
    scale = np.repeat(graph.constants[node.input[1]], block, axis=axis)
    zero = np.zeros((), array.dtype)
    if len(node.input) > 2 and node.input[2]:
        zero = np.repeat(graph.constants[node.input[2]], block, axis=axis)
        zero = np.take(zero, range(array.shape[axis]), axis=axis)
    return Stored(name=name, array=array, zero=zero, scale=np.take(scale, range(array.shape[axis]), axis=axis))


def _partner(graph: Graph, node: NodeProto, position: int | None, array: np.ndarray, default: int) -> np.ndarray:
    if position is None or position >= len(node.input) or node.input[position] not in graph.constants:
        return np.full((), default, array.dtype)
    value = graph.constants[node.input[position]]
    if value.size == 1:
        return value.reshape(())
    axis = _channel_axis(node, array.ndim)
    return value.reshape([value.size if i == axis else 1 for i in range(array.ndim)])


def _channel_axis(node: NodeProto, rank: int) -> int:
    """The axis along which the weight has one scale a channel."""
    if node.op_type == "DequantizeLinear":
        return int(next((a.i for a in node.attribute if a.name == "axis"), 1)) % rank
    return 0 if node.op_type in ("QLinearConv", "ConvInteger") else rank - 1
