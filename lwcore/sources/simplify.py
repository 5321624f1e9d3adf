"""Replace what only says sizes by constants, so that a later cut has few numbers to rewrite, or none."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from lwcore.graph import Graph, attributes, with_input
from lwcore.sources.observe import Observed, differing


def plain_expands(graph: Graph, observed: Mapping[str, Observed]) -> None:
    """Let every Expand ask for 1, which means "as it is", along the axes that it does not widen.

    Class tokens are expanded to [batch, 1, width]; without the width in its target, a cut has nothing to rewrite.
    """
    nodes: list[NodeProto] = []
    for node in graph.nodes:
        if node.op_type == "Expand" and node.input[1] not in graph.inputs:
            widened = _widened(graph, node, observed)
            if widened is not None:
                target = graph.fresh(f"{node.name}.target")
                nodes += _target(graph, node, target, widened)
                node = with_input(node, 1, target)
        nodes.append(node)
    graph.nodes = nodes


def _widened(graph: Graph, node: NodeProto, observed: Mapping[str, Observed]) -> list[int | None] | None:
    """The least target that does the same: sizes, None where one follows the batch; None when there is none or it is
    already written."""
    data, target, result = node.input[0], node.input[1], node.output[0]
    runs = len(observed[result].shapes)
    shapes = ((graph.shape(data),) * runs) if data in graph.constants else observed[data].shapes
    asked: tuple[np.ndarray, ...]
    if target in graph.constants:
        asked = (graph.constants[target],) * runs
    elif (values := observed[target].values) is not None:
        asked = values
    else:
        return None
    rank = len(observed[result].shapes[0])
    before = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    sizes: list[int | None] = []
    for axis in range(rank - len(asked[0]), rank):
        place = axis - rank
        wanted = {int(values[place]) for values in asked}
        if all(made[axis] == had[axis] for made, had in zip(observed[result].shapes, before, strict=True)):
            sizes.append(1)
        else:
            sizes.append(wanted.pop() if len(wanted) == 1 else None)
    plain = all(size is None or size == one for size, one in zip(sizes, asked[0], strict=True))
    return None if plain else sizes


def _target(graph: Graph, node: NodeProto, name: str, sizes: list[int | None]) -> list[NodeProto]:
    """The operators that compute the target of that name: none where all of it is known."""
    if None not in sizes:
        graph.set_constant(name, np.array(sizes, np.int64))
        return []
    graph.shapes[name], graph.types[name] = (len(sizes),), TensorProto.INT64
    made, parts = [], []
    for axis, size in enumerate(sizes):
        parts.append(part := graph.fresh(f"{name}.{axis}"))
        if size is None:
            graph.shapes[part], graph.types[part] = (1,), TensorProto.INT64
            graph.set_constant(place := graph.fresh(f"{part}.index"), np.array([axis], np.int64))
            made.append(helper.make_node("Gather", [node.input[1], place], [part], name=part, axis=0))
        else:
            graph.set_constant(part, np.array([size], np.int64))
    return [*made, helper.make_node("Concat", parts, [name], name=name, axis=0)]


def freeze_shape_arithmetic(graph: Graph, observed: Mapping[str, Observed]) -> bool:
    """Replace computed shape tensors by constants: the batch becomes −1 (or stays out of it), the rest is fixed."""
    changed = False
    for index, node in enumerate(graph.nodes):
        for position, name in enumerate(node.input):
            if name in graph.constants or name not in observed or (values := observed[name].values) is None:
                continue
            fixed = _fixed_shape(node, position, values, observed)
            if fixed is not None:
                constant = graph.fresh(f"{node.name}.shape")
                graph.set_constant(constant, fixed)
                graph.nodes[index] = with_input(graph.nodes[index], position, constant)
                changed = True
    return changed


def _fixed_shape(
    node: NodeProto, position: int, values: tuple[np.ndarray, ...], observed: Mapping[str, Observed]
) -> np.ndarray | None:
    if all(np.array_equal(values[0], other) for other in values[1:]):
        return values[0]
    if node.op_type != "Reshape" or position != 1 or node.output[0] not in observed:
        return None
    shapes = observed[node.output[0]].shapes  # sizes that the operator works out (−1, 0) are known here
    moving = {axis for other in shapes[1:] for axis in differing(shapes[0], other)}
    target = [-1 if axis in moving else size for axis, size in enumerate(shapes[0])]
    if len(moving) > 1 and node.input[0] in observed:  # batch and sequence: 0 takes over what stood there before
        given = observed[node.input[0]].shapes
        for axis in moving:
            if all(axis < len(was) and was[axis] == made[axis] for was, made in zip(given, shapes, strict=True)):
                target[axis] = 0
    plain = moving and target.count(-1) <= 1 and not attributes(node).get("allowzero", 0)
    return np.array(target, np.int64) if plain else None


def drop_zero_states(graph: Graph) -> None:
    """Exporters feed recurrent layers zeros of a computed shape as first states: what they start from anyway."""
    producers = graph.producers()
    for index, node in enumerate(graph.nodes):
        if node.op_type not in ("LSTM", "GRU", "RNN"):
            continue
        for position in (5, 6):
            name = node.input[position] if position < len(node.input) else ""
            if name and _is_zero(graph, producers, name):
                graph.nodes[index] = node = with_input(node, position, "")


def _is_zero(graph: Graph, producers: Mapping[str, int], name: str) -> bool:
    """True for constants of zeros, and zeros brought to a computed shape or moved about."""
    while name not in graph.constants:
        if name not in producers:
            return False
        maker = graph.nodes[producers[name]]
        if maker.op_type == "ConstantOfShape":
            value = next((numpy_helper.to_array(a.t) for a in maker.attribute if a.name == "value"), np.zeros(1))
            return not value.any()
        if maker.op_type not in ("Expand", "Tile", "Reshape", "Slice", "Transpose", "Cast", "Identity", "Squeeze"):
            return False
        name = maker.input[0]
    return not graph.constants[name].any()
