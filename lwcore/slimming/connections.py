"""Unstructured pruning: the smallest weights become zero, the shapes stay (Han et al., NeurIPS 2015)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from lwcore.analysis.stored import Stored, stored
from lwcore.errors import SlimError
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.recipe import Connections

NOTE = (
    "Zeros alone make neither the file smaller nor the run faster: the same numbers are stored and multiplied. "
    "Only the gzipped download shrinks."
)

# Positions of the weight among the inputs of the operators that have connections; norms and biases have none.
_WEIGHTS: Mapping[str, int] = {
    "Conv": 1,
    "ConvTranspose": 1,
    "Gemm": 1,
    "MatMul": 1,
    "ConvInteger": 1,
    "MatMulInteger": 1,
    "QLinearConv": 3,
    "QLinearMatMul": 3,
}


def sparsify(model: Model, step: Connections) -> tuple[Model, tuple[str, ...]]:
    """Set the smallest weights of convolutions and matrix products to zero.

    `round(amount * weights)` of them are zero afterwards (more only where more were zero before), over the whole
    model or in each layer alike. Equal magnitudes go in the order of the file, so the same step gives the same bytes.
    Quantized weights are ranked by the values they stand for, and set to their zero point.

    Args:
        model: any precision: fp32, fp16 or int8.
        step: how much, and whether over the model or layer by layer.

    Returns:
        The model with the same card, and plain words on what zeros do and do not bring.

    Raises:
        SlimError: the model has no such weights.
    """
    graph = Graph.of(model)
    weights = prunable(graph)
    if not weights:
        raise SlimError("Connections: expected a model with convolution or matrix weights, found none to set to zero.")
    if step.amount == 0:
        return model, ()
    sets = [weights] if step.scope == "global" else [[weight] for weight in weights]
    for members in sets:
        _zero_smallest(graph, members, step.amount)
    return dataclasses.replace(model, data=graph.serialize()), (NOTE,)


def prunable(graph: Graph) -> list[Stored]:
    """The weights that have connections, in the order of the file, each once."""
    dequantizers = {node.output[0]: node for node in graph.nodes if node.op_type == "DequantizeLinear"}
    found: dict[str, Stored] = {}
    for node in graph.nodes:
        position = _WEIGHTS.get(node.op_type, len(node.input))
        if position >= len(node.input):
            continue
        if node.input[position] in dequantizers:
            node, position = dequantizers[node.input[position]], 0
        name = node.input[position]
        if name in graph.constants and graph.constants[name].ndim > 1 and name not in found:
            found[name] = stored(graph, node, position)
    return list(found.values())


def _zero_smallest(graph: Graph, members: Sequence[Stored], amount: float) -> None:
    magnitudes = np.concatenate([weight.magnitudes().ravel() for weight in members])
    count = round(amount * magnitudes.size)
    chosen = np.zeros(magnitudes.size, bool)
    chosen[np.argsort(magnitudes, kind="stable")[:count]] = True  # stable: ties go in the order of the file
    start = 0
    for weight in members:
        array = weight.array
        mask = chosen[start : start + array.size].reshape(array.shape)
        start += array.size
        graph.set_constant(weight.name, np.where(mask, weight.zero.astype(array.dtype), array))
