"""Linear layers as matrices: a convolution or a matrix product is one matrix that is applied to vectors of its inputs.

A convolution's vector is the patch under its kernel (channels × kernel positions), a matrix product's is its last axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto

from lwcore.graph import Graph, Shape, attributes
from lwcore.slimming.weights import Weights

SPARSE = 3  # with fewer of its positions than one in so many picked, a picture is not turned over for it
ROWS = 12_000  # vectors a statistic is made of: far more than most layers have inputs


@dataclass(frozen=True)
class Linear:
    """One convolution or matrix product with a constant weight that no other operator reads.

    Attributes:
        index: of its node.
        data, weight, result: names of what it reads and gives.
        axis: of input and result along which the channels lie.
        outputs, inputs: channels; inputs are those of one group.
        groups: 1 but for grouped convolutions.
        kernel: sizes of the kernel, () for matrix products.
        strides, dilations, pads: as long as `kernel`; pads are (before, after) pairs.
        flipped: the weight holds inputs × outputs.
        factor: what a Gemm multiplies its product with (alpha).
        positions: vectors in one row of the result's first axis, which holds the samples.
        total: vectors in all rows of one run: more where the file fixes a batch, or has its steps on the first axis.
    """

    index: int
    node: NodeProto
    data: str
    weight: str
    result: str
    axis: int
    outputs: int
    inputs: int
    positions: int
    total: int
    groups: int = 1
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[tuple[int, int], ...] = ()
    flipped: bool = False
    factor: float = 1.0

    @property
    def width(self) -> int:
        """Length of an input vector: channels of a group × kernel positions."""
        return self.inputs * math.prod(self.kernel)

    def matrix(self, weight: np.ndarray) -> np.ndarray:
        """The stored weight as matrices, shape (groups, outputs of a group, width)."""
        flat = weight.T if self.flipped else weight
        return self.factor * flat.reshape(self.groups, self.outputs // self.groups, self.width)

    def stored(self, matrix: np.ndarray) -> np.ndarray:
        """The inverse of `matrix`."""
        flat = matrix.reshape(self.outputs, self.width) / self.factor
        return flat.T if self.flipped else flat.reshape(self.outputs, self.inputs, *self.kernel)

    def step(self, samples: int, wanted: int = ROWS) -> int:
        """Take every so-manieth position of `samples` samples to get about as many vectors as wanted.

        Odd, so that it does not march along one column of a picture.
        """
        times = samples * self.positions // wanted
        return 1 if times < 2 else times // 2 * 2 - 1 if times % 2 == 0 else times

    def vectors(self, values: np.ndarray, step: int, start: int = 0) -> np.ndarray:
        """Its input as vectors, shape (groups, width, n) float32, at every `step`-th position of its result."""
        if not self.kernel:
            return self.targets(values, step, start)
        return self._patches(values.astype(np.float32, copy=False), step, start)

    def targets(self, values: np.ndarray, step: int, start: int = 0) -> np.ndarray:
        """Its result as vectors, shape (groups, outputs of a group, n) float32, at the same positions."""
        rows = along(values, self.axis, step, start)
        return rows.reshape(self.groups, -1, rows.shape[1])

    def _patches(self, values: np.ndarray, step: int, start: int) -> np.ndarray:
        if math.prod(self.kernel) == 1 and not any(map(any, self.pads)) and set(self.strides) == {1}:
            return along(values, 1, step, start).reshape(self.groups, self.width, -1)
        count, channels, *space = values.shape
        where, outside = self._places(tuple(space), step, start)
        flat = values.reshape(count, channels, -1).astype(np.float32, copy=False)
        if len(where) > flat.shape[2] // SPARSE:  # samples last: every position that is picked is one run of memory
            taken = np.take(np.ascontiguousarray(flat.transpose(1, 2, 0)), where, axis=1, mode="clip")
        else:
            taken = np.ascontiguousarray(np.take(flat, where, axis=2, mode="clip").transpose(1, 2, 0))
        taken[:, outside] = 0  # what a kernel reads beyond the edge
        return taken.reshape(self.groups, self.width, -1)

    def _places(self, space: Shape, step: int, start: int) -> tuple[np.ndarray, np.ndarray]:
        """What every `step`-th position of the result reads under each kernel position, and which lie outside."""
        picked = np.unravel_index(np.arange(start, self.positions, step), self._sizes(space))
        offsets = np.unravel_index(np.arange(math.prod(self.kernel))[:, None], self.kernel)
        where = [
            p * s + o * d - before
            for p, o, s, d, (before, _) in zip(picked, offsets, self.strides, self.dilations, self.pads, strict=True)
        ]
        outside = np.any([(w < 0) | (w >= size) for w, size in zip(where, space, strict=True)], axis=0)
        return np.ravel_multi_index(where, space, mode="clip").reshape(-1), np.flatnonzero(outside)

    def _sizes(self, space: Sequence[int]) -> list[int]:
        """Of the result in space."""
        return [
            (size + before + after - (k - 1) * d - 1) // s + 1
            for size, k, d, s, (before, after) in zip(
                space, self.kernel, self.dilations, self.strides, self.pads, strict=True
            )
        ]


def along(values: np.ndarray, axis: int, step: int, start: int = 0) -> np.ndarray:
    """Vectors along an axis, shape (size of the axis, n) float32, at every `step`-th position of the others.

    The first axis holds the samples; those of one position lie beside each other.
    """
    if axis == 1 and values.ndim > 2:  # pick before moving the axis: few positions of large pictures
        taken = values.reshape(*values.shape[:2], -1)[:, :, start::step].transpose(1, 2, 0)
    else:
        last = np.moveaxis(values, axis, -1)
        taken = last.reshape(len(last), -1, last.shape[-1])[:, start::step].transpose(2, 1, 0)
    return np.ascontiguousarray(taken, np.float32).reshape(len(taken), -1)


def linear_layers(graph: Graph) -> list[Linear]:
    """All of a graph's, in its order."""
    weights, readers, made = Weights(graph), graph.consumers(), graph.producers()
    found = []
    for index, node in enumerate(graph.nodes):
        read = _READERS.get(node.op_type)
        layer = read(graph, index, node, weights) if read else None
        if layer is not None and readers[weights.base(layer.weight)] in ([index], [made.get(layer.weight, -1)]):
            found.append(layer)
    return found


def _conv(graph: Graph, index: int, node: NodeProto, weights: Weights) -> Linear | None:
    data, weight, result = node.input[0], node.input[1], node.output[0]
    if weight not in weights:
        return None
    outputs, inputs, *kernel = graph.shape(weight)
    options: Mapping[str, Any] = attributes(node)
    rank = len(kernel)
    strides, dilations = (tuple(options.get(name, [1] * rank)) for name in ("strides", "dilations"))
    return Linear(
        index=index,
        node=node,
        data=data,
        weight=weight,
        result=result,
        axis=1,
        outputs=outputs,
        inputs=inputs,
        positions=_positions(graph.shape(result), outputs),
        total=math.prod(graph.shape(result)) // outputs,
        groups=int(options.get("group", 1)),
        kernel=tuple(kernel),
        strides=strides,
        dilations=dilations,
        pads=_pads(options, graph.shape(data)[2:], tuple(kernel), strides, dilations),
    )


def _positions(shape: Shape, outputs: int) -> int:
    return math.prod(shape[1:] if len(shape) > 1 else shape) // outputs


def _pads(
    options: Mapping[str, object], space: Shape, kernel: Shape, strides: Shape, dilations: Shape
) -> tuple[tuple[int, int], ...]:
    rank, automatic = len(kernel), options.get("auto_pad", b"NOTSET")
    if automatic not in (b"SAME_UPPER", b"SAME_LOWER"):
        listed = list(options.get("pads", [0] * 2 * rank))  # type: ignore[call-overload]
        return tuple((listed[a], listed[a + rank]) for a in range(rank))
    pairs = []
    for size, k, s, d in zip(space, kernel, strides, dilations, strict=True):
        total = max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
        small, large = total // 2, total - total // 2
        pairs.append((small, large) if automatic == b"SAME_UPPER" else (large, small))
    return tuple(pairs)


def _gemm(graph: Graph, index: int, node: NodeProto, weights: Weights) -> Linear | None:
    options = attributes(node)
    data, weight, result = node.input[0], node.input[1], node.output[0]
    factor = float(options.get("alpha", 1.0))  # type: ignore[arg-type]
    if weight not in weights or options.get("transA") or not factor:
        return None
    flipped = not options.get("transB")
    return _product(graph, index, node, (data, weight, result), axis=1, flipped=flipped, factor=factor)


def _matmul(graph: Graph, index: int, node: NodeProto, weights: Weights) -> Linear | None:
    (left, right), result = node.input[:2], node.output[0]
    for data, weight, axis in ((left, right, -1), (right, left, -2)):
        if weight in weights and len(graph.shape(weight)) == 2 and data not in weights and len(graph.shape(data)) > 1:
            return _product(graph, index, node, (data, weight, result), axis=axis, flipped=axis == -1)
    return None


def _product(
    graph: Graph,
    index: int,
    node: NodeProto,
    names: tuple[str, str, str],
    axis: int,
    flipped: bool,
    factor: float = 1.0,
) -> Linear:
    data, weight, result = names
    first, second = graph.shape(weight)
    outputs, inputs = (second, first) if flipped else (first, second)
    return Linear(
        index=index,
        node=node,
        data=data,
        weight=weight,
        result=result,
        axis=axis,
        outputs=outputs,
        inputs=inputs,
        positions=_positions(graph.shape(result), outputs),
        total=math.prod(graph.shape(result)) // outputs,
        flipped=flipped,
        factor=factor,
    )


_READERS = {"Conv": _conv, "Gemm": _gemm, "MatMul": _matmul}


@dataclass(frozen=True)
class Home:
    """A constant in which a shift of a layer's output can be written without adding a parameter.

    Attributes:
        name: of the constant.
        factor: added to the constant for a shift of 1.
    """

    name: str
    factor: float


def bias_home(weights: Weights, readers: Mapping[str, list[int]], layer: Linear) -> Home | None:
    """The layer's own bias, or the running mean of the batch norm or the constant of the Add that alone follows it."""
    graph, node = weights.graph, layer.node
    if node.op_type != "MatMul" and len(node.input) > 2 and node.input[2]:
        beta = float(attributes(node).get("beta", 1.0)) if node.op_type == "Gemm" else 1.0  # type: ignore[arg-type]
        return (
            Home(node.input[2], 1 / beta)
            if beta and _is_own(weights, readers, node.input[2], (layer.outputs,))
            else None
        )
    followers = readers.get(layer.result, [])
    if len(followers) != 1 or layer.result in graph.outputs:
        return None
    follower = graph.nodes[followers[0]]
    if follower.op_type == "BatchNormalization" and _is_own(weights, readers, follower.input[3], (layer.outputs,)):
        return Home(follower.input[3], -1.0)
    if follower.op_type == "Add":
        tail = channel_shape(layer)
        return next((Home(name, 1.0) for name in follower.input if _is_own(weights, readers, name, tail)), None)
    return None


def channel_shape(layer: Linear) -> Shape:
    """Shape of one number an output channel that broadcasts to the layer's result."""
    trailing = len(layer.kernel) if layer.kernel else max(0, -layer.axis - 1)
    return (layer.outputs, *[1] * trailing)


def _is_own(weights: Weights, readers: Mapping[str, list[int]], name: str, tail: Shape) -> bool:
    """True for a constant that one operator alone reads and that has one number an output."""
    if name not in weights or any(len(readers[n]) != 1 for n in {name, weights.base(name)}):
        return False
    shape = weights.graph.constants[weights.base(name)].shape
    return math.prod(shape) == tail[0] and shape[-len(tail) :] == tail
