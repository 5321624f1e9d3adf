"""Cutting: remove what a keep-mask says from every constant, and rewrite every number in the graph that counted it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from onnx import NodeProto

from lwcore.analysis.coupling import Coupling
from lwcore.graph import Graph, Shape, attributes, with_attributes, with_input

Keep = np.ndarray  # bool, one entry a class; the frozen class 0 is always kept
Fix = Callable[[Graph, NodeProto, Coupling, Keep], NodeProto]


def shapes_after(graph: Graph, coupling: Coupling, keep: Keep) -> dict[str, Shape]:
    """Shape of every tensor and constant once the cut is made; nothing is cut."""
    shapes = dict(graph.shapes)
    for name, axis, classes in coupling.places():
        size = int(np.count_nonzero(keep[classes]))
        if size != shapes[name][axis]:
            shapes[name] = (*shapes[name][:axis], size, *shapes[name][axis + 1 :])
    return shapes


def cut(graph: Graph, coupling: Coupling, keep: Keep) -> Graph:
    """A copy of the graph without the removed channels; node order and names stay, so indexes still match."""
    slim = graph.copy()
    for (name, axis), classes in coupling.cuts.items():
        mask = keep[classes]
        if not mask.all():
            slim.constants[name] = np.compress(mask, slim.constants[name], axis=axis)
    slim.shapes = shapes_after(graph, coupling, keep)
    for index, node in enumerate(slim.nodes):
        fix = _FIXES.get(node.op_type)
        if fix is not None and _is_touched(node, coupling, keep):
            slim.nodes[index] = fix(slim, node, coupling, keep)
        width = coupling.grouped.get(index)
        if width is not None:
            groups = slim.shapes[node.input[0]][1] // width
            slim.nodes[index] = with_attributes(slim.nodes[index], group=groups)
    return slim


def keep_any(coupling: Coupling, counts: Mapping[str, int]) -> Keep:
    """A keep-mask with the right numbers but arbitrary channels: units of one group cost the same."""
    keep = np.ones(coupling.units, dtype=bool)
    for group in coupling.groups:
        keep[group.units[: counts[group.name]]] = False
    return keep


def _is_touched(node: NodeProto, coupling: Coupling, keep: Keep) -> bool:
    names = [*node.input[:1], *node.output]
    return any(name in coupling.tensors and not keep[coupling.tensors[name][1]].all() for name in names)


def _replace(slim: Graph, node: NodeProto, position: int, values: np.ndarray) -> NodeProto:
    """Give a node a constant of its own at an input: exporters share shape constants between nodes."""
    old = slim.constants[node.input[position]]
    values = np.asarray(values, dtype=old.dtype).reshape(np.shape(values))
    if np.array_equal(old, values):
        return node
    name = slim.fresh(f"{node.name}.{('data', 'shape', 'b', 'c')[min(position, 3)]}")
    slim.set_constant(name, values)
    return with_input(node, position, name)


def _reshape(slim: Graph, node: NodeProto, coupling: Coupling, keep: Keep) -> NodeProto:
    if node.output[0] not in coupling.tensors:
        return node
    axis, classes = coupling.tensors[node.output[0]]
    size = int(np.count_nonzero(keep[classes]))
    if len(node.input) > 1:
        target = slim.constants.get(node.input[1])
        if target is None or target[axis] in (-1, 0):
            return node
        target = target.copy()
        target[axis] = size
        return _replace(slim, node, 1, target)
    listed = list(attributes(node)["shape"])  # type: ignore[call-overload]
    listed[axis] = size if listed[axis] not in (-1, 0) else listed[axis]
    return with_attributes(node, shape=listed)


def _split(slim: Graph, node: NodeProto, coupling: Coupling, keep: Keep) -> NodeProto:
    axis, _ = coupling.tensors[node.input[0]]
    split_axis = int(attributes(node).get("axis", 0)) % len(slim.shapes[node.input[0]])  # type: ignore[call-overload]
    if axis != split_axis:
        return node
    sizes = np.array([slim.shapes[name][axis] for name in node.output], dtype=np.int64)
    if slim.opset < 13:
        return with_attributes(node, split=sizes.tolist())
    if len(node.input) > 1 and node.input[1]:
        return _replace(slim, node, 1, sizes)
    name = slim.fresh(f"{node.name}.sizes")
    slim.set_constant(name, sizes)
    twin = with_input(node, 1, name)
    for position, attribute in enumerate(twin.attribute):
        if attribute.name == "num_outputs":
            del twin.attribute[position]
            break
    return twin


def _slice(slim: Graph, node: NodeProto, coupling: Coupling, keep: Keep) -> NodeProto:
    axis, classes = coupling.tensors[node.input[0]]
    rank = len(slim.shapes[node.input[0]])
    old_style = slim.opset < 10
    options = attributes(node)
    starts = np.array(options["starts"] if old_style else slim.constants[node.input[1]]).copy()
    ends = np.array(options["ends"] if old_style else slim.constants[node.input[2]]).copy()
    if old_style:
        axes = np.array(options.get("axes", np.arange(starts.size)))
    else:
        axes = slim.constants[node.input[3]] if len(node.input) > 3 and node.input[3] else np.arange(starts.size)
    for position, listed in enumerate(axes):
        if int(listed) % rank == axis:
            first, last, _ = slice(int(starts[position]), int(ends[position])).indices(len(classes))
            starts[position] = np.count_nonzero(keep[classes[:first]])
            ends[position] = np.count_nonzero(keep[classes[:last]])
    if old_style:
        return with_attributes(node, starts=starts.tolist(), ends=ends.tolist())
    return _replace(slim, _replace(slim, node, 1, starts), 2, ends)


def _gather(slim: Graph, node: NodeProto, coupling: Coupling, keep: Keep) -> NodeProto:
    if node.input[0] not in coupling.tensors or node.input[1] not in slim.constants:
        return node
    axis, classes = coupling.tensors[node.input[0]]
    if axis != int(attributes(node).get("axis", 0)) % len(slim.shapes[node.input[0]]):  # type: ignore[call-overload]
        return node
    alive = keep[classes]
    places = slim.constants[node.input[1]] % len(classes)
    return _replace(slim, node, 1, (np.cumsum(alive) - 1)[places[alive[places]]])


def _sizes_at(position: int) -> Fix:
    """Operators that are told their output's size by a constant: rewrite the number along the labelled axis."""

    def fix(slim: Graph, node: NodeProto, coupling: Coupling, keep: Keep) -> NodeProto:
        if position >= len(node.input) or node.input[position] not in slim.constants:
            return node
        axis, classes = coupling.tensors[node.output[0]]
        sizes = slim.constants[node.input[position]].copy()
        offset = axis - (len(slim.shapes[node.output[0]]) - sizes.size)
        if offset >= 0 and sizes.size and sizes[offset] == len(classes):
            sizes[offset] = np.count_nonzero(keep[classes])
        return _replace(slim, node, position, sizes)

    return fix


_FIXES: Mapping[str, Fix] = {
    "Reshape": _reshape,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Expand": _sizes_at(1),
    "Resize": _sizes_at(3),
}
