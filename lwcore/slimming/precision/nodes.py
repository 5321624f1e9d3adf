"""Which operators compute in int8, and which tensors between them are stored so: read off the graph, nothing changed.

The rules follow what onnxruntime fuses on a processor: an operator outside them would be computed in float32 between
two conversions, which costs time and accuracy and saves nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto

from lwcore.graph import Graph, attributes

CONTRACTIONS: Mapping[str, int] = {"Conv": 1, "Gemm": 1, "MatMul": 1}  # position of the weight
_OTHERS = frozenset({"Add", "Mul", "Sigmoid", "LeakyRelu", "GlobalAveragePool", "AveragePool", "Concat"})
_MOVES = frozenset({"MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Split", "Slice", "Gather"})
_FLOAT_OUT = frozenset({"Gemm", "MatMul"})  # have an int8 form that answers float32: a last layer loses nothing


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What is int8.

    Attributes:
        nodes: indexes of the int8 operators, those that only move numbers included.
        computing: those of them that compute.
        tensors: activations with a QuantizeLinear/DequantizeLinear pair → the tensor whose range they have.
    """

    nodes: frozenset[int]
    computing: frozenset[int]
    tensors: Mapping[str, str]


def candidates(graph: Graph) -> list[int]:
    """Indexes of the operators that can compute in int8 (those that only move numbers follow their neighbours)."""
    return [
        index
        for index, node in enumerate(graph.nodes)
        if (node.op_type in CONTRACTIONS and _contracts(graph, node))
        or (node.op_type in _OTHERS and _is_float(graph, node))
    ]


def layout(graph: Graph, ranges: Collection[str], keep: Collection[str] = ()) -> Layout:
    """Decide what is int8.

    Args:
        graph: with clamps absorbed (`absorb_clamps`).
        ranges: names of the activations whose range is known.
        keep: names of operators that stay in float32.
    """
    kept = set(keep)
    chosen = {
        i for i in candidates(graph) if graph.nodes[i].name not in kept and _ranged(graph, graph.nodes[i], ranges)
    }
    wanted: set[str] = set()  # tensors that an int8 operator reads, directly or through moves
    moves: set[int] = set()
    for index in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[index]
        useful = any(name in wanted for name in node.output)
        if index in chosen:
            if node.op_type in _OTHERS and not useful:
                chosen.discard(index)
                continue
            wanted.update(_activations(graph, node))
        elif node.op_type in _MOVES and useful and node.name not in kept and _ranged(graph, node, ranges):
            moves.add(index)
            wanted.add(node.input[0])
    return Layout(
        nodes=frozenset(chosen | moves),
        computing=frozenset(chosen),
        tensors=_tensors(graph, chosen, moves, wanted),
    )


def _tensors(graph: Graph, chosen: set[int], moves: set[int], wanted: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for index in sorted(chosen | moves):
        node = graph.nodes[index]
        inputs = [node.input[0]] if index in moves else _activations(graph, node)
        for name in inputs:
            found.setdefault(name, name)
        for name in node.output:
            if index in moves:  # a move changes no number, so it needs no range of its own
                found[name] = found[node.input[0]]
            elif name in wanted or node.op_type not in _FLOAT_OUT:
                found[name] = name
    return found


def weight_of(graph: Graph, node: NodeProto) -> str | None:
    """Name of the constant weight of a contraction."""
    position = CONTRACTIONS.get(node.op_type)
    if position is None or node.input[position] not in graph.constants:
        return None
    return str(node.input[position])


def channel_axis(node: NodeProto) -> int:
    """Axis of the weight along which its output channels lie."""
    if node.op_type == "MatMul":
        return 1
    return 0 if node.op_type == "Conv" or attributes(node).get("transB") else 1


def is_depthwise(graph: Graph, node: NodeProto) -> bool:
    """A convolution in which every output channel reads one of several input channels."""
    several = int(attributes(node).get("group", 1)) > 1  # type: ignore[call-overload]
    return node.op_type == "Conv" and several and graph.constants[node.input[1]].shape[1] == 1


def absorb_clamps(graph: Graph, ranges: Mapping[str, tuple[float, float]], keep: Collection[str] = ()) -> Graph:
    """Drop each ReLU (or clip from zero) behind an int8 operator: integers that start at zero clamp too."""
    able = {i for i in candidates(graph) if graph.nodes[i].name not in set(keep)}
    readers, made_by = graph.consumers(), graph.producers()
    graph = graph.copy()
    gone = set()
    for index, node in enumerate(graph.nodes):
        source = (
            made_by.get(node.input[0], -1) if node.op_type in ("Relu", "Clip") and node.name not in set(keep) else -1
        )
        alone = source in able and len(readers[node.input[0]]) == 1 and node.input[0] not in graph.outputs
        if alone and node.output[0] in ranges and _from_zero(graph, node):
            twin = NodeProto()
            twin.CopyFrom(graph.nodes[source])
            twin.output[0] = node.output[0]
            graph.nodes[source] = twin
            gone.add(index)
    graph.nodes = [node for index, node in enumerate(graph.nodes) if index not in gone]
    return graph


def _from_zero(graph: Graph, node: NodeProto) -> bool:
    if node.op_type == "Relu":
        return True
    bound = graph.constants.get(node.input[1]) if len(node.input) > 1 else None
    return bound is not None and float(bound) == 0.0 and (len(node.input) < 3 or node.input[2] in graph.constants)


def _contracts(graph: Graph, node: NodeProto) -> bool:
    weight = weight_of(graph, node)
    if not _is_float(graph, node) or (weight is None and node.op_type != "MatMul"):
        return False
    if node.op_type == "Gemm":
        found = attributes(node)
        plain = found.get("alpha", 1.0) == 1.0 and found.get("beta", 1.0) == 1.0 and not found.get("transA")
        return plain and (len(node.input) < 3 or node.input[2] in graph.constants)
    return node.op_type == "Conv" or weight is None or graph.constants[weight].ndim == 2


def _is_float(graph: Graph, node: NodeProto) -> bool:
    names = [name for name in (*node.input, *node.output) if name]
    return all(graph.types.get(name) == TensorProto.FLOAT for name in names) and bool(_activations(graph, node))


def _activations(graph: Graph, node: NodeProto) -> list[str]:
    return [name for name in node.input if name and name not in graph.constants]


def _ranged(graph: Graph, node: NodeProto, ranges: Collection[str]) -> bool:
    names = [node.input[0]] if node.op_type in _MOVES else [*_activations(graph, node), *node.output]
    return all(name in ranges for name in names if name)


def constants_of(graph: Graph, node: NodeProto) -> dict[int, np.ndarray]:
    """Constants that an element-wise operator or a Concat reads, by position."""
    if node.op_type in CONTRACTIONS:
        return {}
    return {i: graph.constants[name] for i, name in enumerate(node.input) if name in graph.constants}
