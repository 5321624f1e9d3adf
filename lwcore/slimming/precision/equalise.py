"""Cross-layer equalisation: move scale between neighbouring layers, so that all channels of a tensor use its range.

Behind a ReLU (any positively homogeneous operator) channel i of the first layer can be divided by sᵢ and column i of
the second multiplied by it without changing the network. With sᵢ = √(r₁ᵢ / r₂ᵢ), r the largest magnitudes, both layers
get equal ranges (Nagel, van Baalen, Blankevoort and Welling, "Data-Free Quantization Through Weight Equalization and
Bias Correction", ICCV 2019).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.slimming.precision.nodes import channel_axis, is_depthwise, weight_of

SWEEPS = 20  # over all pairs; a chain of layers passes its scales on
_STRAIGHT = frozenset({"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Dropout", "Identity"})
_LOWEST = 1e-8  # channels that are (almost) zero stay as they are
_MOST = 1e3  # a factor beyond this would trade one bad range for another


@dataclass(frozen=True)
class _Pair:
    first: NodeProto
    second: NodeProto


def equalised(model: Model) -> Model | None:
    """The same function with equalised weights; None where no two layers allow it."""
    graph = Graph.of(model)
    pairs = _pairs(graph)
    if not pairs:
        return None
    weights = {name: array.astype(np.float64) for name, array in graph.constants.items() if array.dtype == np.float32}
    for _ in range(SWEEPS):
        if max(_balance(graph, weights, pair) for pair in pairs) < 1e-3:
            break
    touched = {name for pair in pairs for node in (pair.first, pair.second) for name in node.input[1:3] if name}
    for name in touched & set(weights):
        graph.set_constant(name, weights[name].astype(np.float32))
    return dataclasses.replace(model, data=graph.serialize())


def _pairs(graph: Graph) -> list[_Pair]:
    readers = graph.consumers()
    owners = {name: len(indexes) for name, indexes in readers.items()}
    able = {i for i, node in enumerate(graph.nodes) if _is_able(graph, node, owners)}
    found = []
    for index in sorted(able):
        tensor = graph.nodes[index].output[0]
        while len(readers.get(tensor, ())) == 1 and tensor not in graph.outputs:
            follower = readers[tensor][0]
            node = graph.nodes[follower]
            if (
                follower in able
                and node.input[0] == tensor
                and _columns(graph, node) == _rows(graph, graph.nodes[index])
            ):
                found.append(_Pair(graph.nodes[index], node))
            if node.op_type not in _STRAIGHT and not _flattens(graph, node):
                break
            tensor = node.output[0]
    return found


def _flattens(graph: Graph, node: NodeProto) -> bool:
    """One pixel a channel left: the table that a Gemm reads has the channels in the same order."""
    if node.op_type not in ("Flatten", "Reshape", "Squeeze"):
        return False
    shape = graph.shapes[node.input[0]]
    return all(size == 1 for size in shape[2:]) and graph.shapes[node.output[0]] == shape[:2]


def _is_able(graph: Graph, node: NodeProto, owners: dict[str, int]) -> bool:
    """A layer whose weights are its own, with one row a channel: groups other than one or depthwise mix neither way."""
    name = weight_of(graph, node)
    if name is None or node.op_type not in ("Conv", "Gemm"):
        return False
    own = all(name in graph.constants and owners[name] == 1 for name in node.input[1:] if name)
    if node.op_type == "Gemm" and len(node.input) > 2 and graph.constants[node.input[2]].ndim != 1:
        return False
    whole = node.op_type == "Gemm" or graph.constants[name].shape[1] == graph.shapes[node.input[0]][1]
    return own and (whole or (is_depthwise(graph, node) and _rows(graph, node) == graph.shapes[node.input[0]][1]))


def _rows(graph: Graph, node: NodeProto) -> int:
    return int(graph.constants[node.input[1]].shape[channel_axis(node)])


def _columns(graph: Graph, node: NodeProto) -> int:
    return (
        _rows(graph, node)
        if is_depthwise(graph, node)
        else int(graph.constants[node.input[1]].shape[_column_axis(node)])
    )


def _column_axis(node: NodeProto) -> int:
    return 1 - channel_axis(node)


def _balance(graph: Graph, weights: dict[str, np.ndarray], pair: _Pair) -> float:
    """Equalise one pair; returns the largest change, as |log s|."""
    row = channel_axis(pair.first)
    column = channel_axis(pair.second) if is_depthwise(graph, pair.second) else _column_axis(pair.second)
    first, second = weights[pair.first.input[1]], weights[pair.second.input[1]]
    above, below = _reach(first, row), _reach(second, column)
    usable = (above > _LOWEST) & (below > _LOWEST)
    factor = np.where(usable, np.sqrt(np.where(usable, above, 1) / np.where(usable, below, 1)), 1.0)
    factor = np.clip(factor, 1 / _MOST, _MOST)
    weights[pair.first.input[1]] = first / _along(factor, row, first.ndim)
    weights[pair.second.input[1]] = second * _along(factor, column, second.ndim)
    if len(pair.first.input) > 2 and pair.first.input[2]:
        weights[pair.first.input[2]] = weights[pair.first.input[2]] / factor
    return float(np.abs(np.log(factor)).max())


def _reach(weight: np.ndarray, axis: int) -> np.ndarray:
    return np.asarray(np.abs(weight).max(axis=tuple(a for a in range(weight.ndim) if a != axis)))


def _along(factor: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return factor.reshape([-1 if a == axis else 1 for a in range(rank)])
