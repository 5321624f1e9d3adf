"""Embedding tables as int8: only the rows that are looked up are widened, so a small table costs no time."""

from __future__ import annotations

import dataclasses

import numpy as np
from onnx import NodeProto, TensorProto, helper

from lwcore.graph import Graph, attributes, with_input
from lwcore.model import Model

FEWEST = 1024  # values of a table that is worth it
_LOWEST = 1e-12


def with_small_tables(model: Model) -> Model:
    """The model with its embedding tables in int8, one scale a column; as it is where there are none."""
    graph = Graph.of(model)
    tables = [node for node in graph.nodes if _is_lookup(graph, node)]
    if not tables:
        return model
    nodes: list[NodeProto] = []
    for node in graph.nodes:
        nodes += _stored(graph, node) if node in tables else [node]
    graph.nodes = nodes
    graph.drop_unused()
    return dataclasses.replace(model, data=graph.serialize())


def _is_lookup(graph: Graph, node: NodeProto) -> bool:
    if node.op_type != "Gather" or node.input[0] not in graph.constants or node.input[1] in graph.constants:
        return False
    table = graph.constants[node.input[0]]
    plain = table.dtype == np.float32 and table.ndim == 2 and not attributes(node).get("axis", 0)
    return plain and table.size >= FEWEST and graph.opset >= 13  # from 13 on a scale may follow an axis


def _stored(graph: Graph, node: NodeProto) -> list[NodeProto]:
    """Gather the integers, then widen what came out."""
    name, result = node.input[0], node.output[0]
    integers, factor = f"{name}.int8", f"{name}.scale"
    if integers not in graph.constants:
        table = graph.constants[name].astype(np.float64)
        scale = np.maximum(np.abs(table).max(axis=0), _LOWEST) / 127
        graph.set_constant(integers, np.round(table / scale).astype(np.int8))
        graph.set_constant(factor, scale.astype(np.float32))
    looked = graph.fresh(f"{result}.int8")
    graph.shapes[looked], graph.types[looked] = graph.shape(result), TensorProto.INT8
    graph.free[looked] = graph.free.get(result, {})
    gather = with_input(node, 0, integers)
    gather.output[0] = looked
    axis = len(graph.shape(result)) - 1
    widen = helper.make_node("DequantizeLinear", [looked, factor], [result], name=f"{node.name}.widen", axis=axis)
    return [gather, widen]
