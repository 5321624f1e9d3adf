"""Fold batch norms into the convolutions before them: the same function with fewer numbers, and what int8 needs.

(onnxruntime's quantizers work on convolutions; a batch norm left behind one would run in float32.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from onnx import NodeProto, helper

from lwcore.graph import Graph, Shape, with_input

_EPSILON = 1e-5  # BatchNormalization's default


def foldable(graph: Graph) -> list[tuple[int, int]]:
    """Indexes of the (convolution, batch norm) pairs in which nothing but the norm reads the convolution."""
    readers, made_by = graph.consumers(), graph.producers()
    pairs = []
    for index, node in enumerate(graph.nodes):
        source = made_by.get(node.input[0], -1) if node.op_type == "BatchNormalization" else -1
        if source >= 0 and readers[node.input[0]] == [index] and _fits(graph, graph.nodes[source], node):
            pairs.append((source, index))
    return pairs


def parameters_folded(graph: Graph, shapes: Mapping[str, Shape]) -> int:
    """How many parameters folding takes away under these shapes: scales and shifts, less the biases that it adds."""
    return sum(
        math.prod(shapes[graph.nodes[norm].input[1]]) * (2 if _has_bias(graph.nodes[conv]) else 1)
        for conv, norm in foldable(graph)
    )


def fold_batch_norms(graph: Graph) -> Graph:
    """A graph whose convolutions do what the batch norms behind them did."""
    pairs = foldable(graph)
    graph = graph.copy()
    for source, index in pairs:
        graph.nodes[source] = _folded(graph, graph.nodes[source], graph.nodes[index])
    gone = {index for _, index in pairs}
    graph.nodes = [node for index, node in enumerate(graph.nodes) if index not in gone]
    graph.drop_unused()
    return graph


def _fits(graph: Graph, conv: NodeProto, norm: NodeProto) -> bool:
    constant = [*conv.input[1:], *norm.input[1:]]
    return (
        conv.op_type == "Conv"
        and conv.output[0] not in graph.outputs
        and len([o for o in norm.output if o]) == 1
        and all(name in graph.constants for name in constant if name)
    )


def _has_bias(conv: NodeProto) -> bool:
    return len(conv.input) > 2 and bool(conv.input[2])


def _folded(graph: Graph, conv: NodeProto, norm: NodeProto) -> NodeProto:
    scale, shift, mean, variance = (graph.constants[name].astype(np.float64) for name in norm.input[1:5])
    epsilon = next((helper.get_attribute_value(a) for a in norm.attribute if a.name == "epsilon"), _EPSILON)
    factor = scale / np.sqrt(variance + epsilon)
    weight = graph.constants[conv.input[1]]
    bias = graph.constants[conv.input[2]].astype(np.float64) if _has_bias(conv) else 0.0
    twin = _reading(graph, conv, 1, weight * factor.reshape(-1, *[1] * (weight.ndim - 1)))
    twin = _reading(graph, twin, 2, (bias - mean) * factor + shift)
    twin.output[0] = norm.output[0]
    return twin


def _reading(graph: Graph, conv: NodeProto, position: int, values: np.ndarray) -> NodeProto:
    """The convolution with a constant of its own at `position`: another operator may share the old one."""
    name = graph.fresh(f"{conv.name}.{('weight', 'bias')[position - 1]}.folded")
    graph.set_constant(name, values.astype(np.float32))
    return with_input(conv, position, name)
