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
    for name, axis, size in coupling.sizes(keep):
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
            counted = "num_groups" if node.op_type == "GroupNormalization" else "group"
            groups = slim.shapes[node.input[0]][1] // width
            slim.nodes[index] = with_attributes(slim.nodes[index], **{counted: groups})
    return slim


def keep_any(coupling: Coupling, counts: Mapping[str, int]) -> Keep:
    """A keep-mask with the right numbers but arbitrary channels: units of one group cost the same."""
    keep = np.ones(coupling.units, dtype=bool)
    for group in coupling.groups:
        keep[group.units[: counts[group.name]]] = False
    return keep


def _is_touched(node: NodeProto, coupling: Coupling, keep: Keep) -> bool:
    names = [*node.input[:1], *node.output]
    return any(not keep[classes].all() for name in names for classes in coupling.tensors.get(name, {}).values())


def _replace(slim: Graph, node: NodeProto, position: int, values: np.ndarray) -> NodeProto:
    """Give a node a constant of its own at an input: exporters share shape constants between nodes."""
    old = slim.constants[node.input[position]]
    values = np.asarray(values, dtype=old.dtype)
    if np.array_equal(old, values):
        return node
    name = slim.fresh(f"{node.name}.{('data', 'shape', 'b', 'c')[min(position, 3)]}")
    slim.set_constant(name, values)
    return with_input(node, position, name)


def _axis(node: NodeProto, default: int, rank: int) -> int:
    axis: int = int(attributes(node).get("axis", default))  # type: ignore[call-overload]
    return axis % rank


def _reshape(slim: Graph, node: NodeProto, coupling: Coupling, keep: Keep) -> NodeProto:
    sizes = {
        axis: int(np.count_nonzero(keep[classes])) for axis, classes in coupling.tensors.get(node.output[0], {}).items()
    }
    if len(node.input) > 1 and node.input[1] not in slim.constants:
        return node
    in_attribute = len(node.input) == 1
    target = np.array(attributes(node)["shape"] if in_attribute else slim.constants[node.input[1]])
    for axis, size in sizes.items():
        copies = target[axis] == 0 and slim.shapes[node.input[0]][axis : axis + 1] == (size,)
        if target[axis] != -1 and not copies:
            target[axis] = size
    return with_attributes(node, shape=target.tolist()) if in_attribute else _replace(slim, node, 1, target)


def _split(slim: Graph, node: NodeProto, coupling: Coupling, keep: Keep) -> NodeProto:
    axis = _axis(node, 0, len(slim.shapes[node.input[0]]))
    if axis not in coupling.tensors.get(node.input[0], {}):
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
    held = coupling.tensors.get(node.input[0], {})
    rank = len(slim.shapes[node.input[0]])
    old_style = slim.opset < 10
    options = attributes(node)
    starts = np.array(options["starts"] if old_style else slim.constants[node.input[1]]).copy()
    ends = np.array(options["ends"] if old_style else slim.constants[node.input[2]]).copy()
    steps = slim.constants[node.input[4]] if len(node.input) > 4 and node.input[4] else np.ones(starts.size, np.int64)
    if old_style:
        axes = np.array(options.get("axes", np.arange(starts.size)))
    else:
        axes = slim.constants[node.input[3]] if len(node.input) > 3 and node.input[3] else np.arange(starts.size)
    for position, listed in enumerate(axes):
        classes = held.get(int(listed) % rank)
        if classes is not None and steps[position] > 1:  # whole runs of channels went: the rhythm stays
            ends[position] = np.count_nonzero(keep[classes])
        elif classes is not None:
            first, last, _ = slice(int(starts[position]), int(ends[position])).indices(len(classes))
            starts[position] = np.count_nonzero(keep[classes[:first]])
            ends[position] = np.count_nonzero(keep[classes[:last]])
    if old_style:
        return with_attributes(node, starts=starts.tolist(), ends=ends.tolist())
    return _replace(slim, _replace(slim, node, 1, starts), 2, ends)


def _gather(slim: Graph, node: NodeProto, coupling: Coupling, keep: Keep) -> NodeProto:
    data, places = node.input[0], node.input[1]
    classes = coupling.tensors.get(data, {}).get(_axis(node, 0, len(slim.shapes[data])))
    if classes is None or places not in slim.constants:
        return node
    alive = keep[classes]
    positions = slim.constants[places].ravel() % len(classes)
    left = (np.cumsum(alive) - 1)[positions[alive[positions]]]
    shape = [-1 if size > 1 else 1 for size in slim.constants[places].shape]
    return _replace(slim, node, 1, left.reshape(shape))


def _sizes_at(position: int) -> Fix:
    """Operators that are told their output's size by a constant: rewrite the numbers along the labelled axes."""

    def fix(slim: Graph, node: NodeProto, coupling: Coupling, keep: Keep) -> NodeProto:
        if position >= len(node.input) or node.input[position] not in slim.constants:
            return node
        sizes = slim.constants[node.input[position]].copy()
        for axis, classes in coupling.tensors.get(node.output[0], {}).items():
            offset = axis - (len(slim.shapes[node.output[0]]) - sizes.size)
            if offset >= 0 and sizes.size and sizes[offset] == len(classes):
                sizes[offset] = np.count_nonzero(keep[classes])
        return _replace(slim, node, position, sizes)

    return fix


def _hidden_size(slim: Graph, node: NodeProto, coupling: Coupling, keep: Keep) -> NodeProto:
    return with_attributes(node, hidden_size=slim.shapes[node.input[2]][2])


def _scaled(slim: Graph, node: NodeProto, coupling: Coupling, keep: Keep) -> NodeProto:
    """A fused attention divides by the square root of the width it sees: it keeps dividing by that of the original."""
    last = len(slim.shapes[node.input[0]]) - 1
    classes = coupling.tensors.get(node.input[0], {}).get(last)
    options = attributes(node)
    if classes is None or options.get("scale", 0.0):
        return node
    heads = int(options.get("q_num_heads", 1)) if last == 2 else 1  # type: ignore[call-overload]
    return with_attributes(node, scale=float((len(classes) / heads) ** -0.5))


_FIXES: Mapping[str, Fix] = {
    "Attention": _scaled,
    "Reshape": _reshape,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Expand": _sizes_at(1),
    "Resize": _sizes_at(3),
    "LSTM": _hidden_size,
    "GRU": _hidden_size,
    "RNN": _hidden_size,
}
