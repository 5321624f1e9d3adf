"""Straighten a graph out: loops with a known count, branches with a known condition, lists with known places.

Exporters write these for plain Python code (a split into pieces is a Loop that fills a sequence); written out, they
are ordinary operators that rules know. Whatever depends on the data is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, helper, numpy_helper

from lwcore.graph import Graph, attributes
from lwcore.settings import SETTINGS

LONGEST = 64  # passes of a loop that are written out


class _Room:
    """How many operators may still be written: loops in loops multiply."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, wanted: int) -> bool:
        """Take so many, if there are."""
        if wanted > self.left:
            return False
        self.left -= wanted
        return True


def unroll(graph: Graph) -> bool:
    """Write out in place what can be; True when anything was. Lists that nobody reads are left to be dropped."""
    waiting, done = list(reversed(graph.nodes)), list[NodeProto]()
    same: dict[str, str] = {}  # what is read from a list → the tensor that was put into it
    lists: dict[str, list[str]] = {}  # sequence → its tensors
    changed, room = False, _Room(SETTINGS.nodes - len(waiting))
    while waiting:
        node = _renamed(waiting.pop(), same)
        written = _loop(graph, node, room) if node.op_type == "Loop" else _branch(graph, node)
        if written is None:
            _follow_list(graph, node, lists, same)
            done.append(node)
        else:
            waiting.extend(reversed(written))
            changed = True
    graph.nodes = done
    return changed or bool(same)


def _copy_of(source: str, name: str) -> NodeProto:
    return helper.make_node("Identity", [source], [name], name=f"{name}.copy")


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """The node reading other names, in its bodies too."""
    twin = NodeProto()
    twin.CopyFrom(node)
    for position, name in enumerate(twin.input):
        twin.input[position] = names.get(name, name)
    for attribute in twin.attribute:
        for body in [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs:
            for position, child in enumerate(body.node):
                body.node[position].CopyFrom(_renamed(child, names))
    return twin


def _bodies(node: NodeProto) -> list[onnx.GraphProto]:
    return [a.g for a in node.attribute if a.type == AttributeProto.GRAPH]


def _size(body: onnx.GraphProto) -> int:
    """Operators of a body and of those within it."""
    return sum(1 + sum(map(_size, _bodies(child))) for child in body.node)


def _stored(node: NodeProto) -> onnx.TensorProto | None:
    """The tensor that a Constant holds."""
    value = attributes(node).get("value") if node.op_type == "Constant" else None
    return value if isinstance(value, onnx.TensorProto) else None


def _constants(graph: Graph, body: onnx.GraphProto, stem: str) -> dict[str, str]:
    """Put a body's constants into the graph, once for all passes: name in the body → name in the graph."""
    held = [(tensor.name, tensor) for tensor in body.initializer]
    held += [(child.output[0], tensor) for child in body.node if (tensor := _stored(child)) is not None]
    names = {}
    for name, tensor in held:
        names[name] = graph.fresh(f"{stem}.{name}")
        graph.set_constant(names[name], numpy_helper.to_array(tensor))
    return names


def _written_out(body: onnx.GraphProto, stem: str, names: dict[str, str]) -> tuple[list[NodeProto], dict[str, str]]:
    """A body's nodes with names of their own. `names` maps what it is given and its constants."""
    nodes = []
    for child in body.node:
        if _stored(child) is not None:
            continue
        twin = _renamed(child, names)
        for position, name in enumerate(twin.output):
            if name:
                names[name] = twin.output[position] = f"{stem}.{name}"
        twin.name = f"{stem}.{twin.name or twin.output[0]}"
        nodes.append(twin)
    return nodes, names


def _branch(graph: Graph, node: NodeProto) -> list[NodeProto] | None:
    """The branch that an If with a known condition takes."""
    if node.op_type != "If" or node.input[0] not in graph.constants:
        return None
    chosen = "then_branch" if graph.constants[node.input[0]].all() else "else_branch"
    body = next(a.g for a in node.attribute if a.name == chosen)
    stem = f"{node.name}.{chosen}"
    nodes, names = _written_out(body, stem, _constants(graph, body, stem))
    ends = zip(node.output, body.output, strict=True)
    return [*nodes, *(_copy_of(names.get(inner.name, inner.name), outer) for outer, inner in ends)]


def _loop(graph: Graph, node: NodeProto, room: _Room) -> list[NodeProto] | None:
    """All passes of a loop whose count is known and whose condition stays true; None where that would be too many."""
    body = _bodies(node)[0]
    count = graph.constants.get(node.input[0])
    carried = list(node.input[2:])
    if count is None or int(count.item()) > LONGEST or len(body.output) != len(carried) + 1 or not _stays(graph, node):
        return None
    if not room.take(max(int(count.item()), 0) * _size(body)):
        return None
    nodes, constants = list[NodeProto](), _constants(graph, body, node.name)
    for turn in range(int(count.item())):
        stem = f"{node.name}.{turn}"
        number = graph.fresh(f"{stem}.number")
        rank = len(body.input[0].type.tensor_type.shape.dim)
        graph.set_constant(number, np.full((1,) * rank, turn, np.int64))
        given = dict(zip((i.name for i in body.input), [number, node.input[1], *carried], strict=True))
        part, names = _written_out(body, stem, constants | given)
        nodes += part
        carried = [names.get(out.name, out.name) for out in body.output[1:]]
    return [*nodes, *(_copy_of(source, name) for source, name in zip(carried, node.output, strict=True) if name)]


def _stays(graph: Graph, node: NodeProto) -> bool:
    """True when a loop's condition is true at the start and passed on by every turn."""
    body = _bodies(node)[0]
    start = node.input[1]
    if start and not (start in graph.constants and graph.constants[start].all()):
        return False
    copies = {child.output[0]: child.input[0] for child in body.node if child.op_type == "Identity"}
    name = body.output[0].name
    while name in copies:
        name = copies.pop(name)  # each once: in a damaged file they may run in a circle
    truths = {t.name for t in body.initializer if numpy_helper.to_array(t).all()}
    for child in body.node:
        if (tensor := _stored(child)) is not None and numpy_helper.to_array(tensor).all():
            truths.update(child.output)
    return (
        name in truths or name == body.input[1].name or (name in graph.constants and bool(graph.constants[name].all()))
    )


def _follow_list(graph: Graph, node: NodeProto, lists: dict[str, list[str]], same: dict[str, str]) -> None:
    """Keep account of the tensors in a sequence."""
    operator, result = node.op_type, node.output[0] if node.output else ""
    if operator == "Identity" and node.input[0] in lists:
        lists[result] = lists[node.input[0]]
    elif operator == "SequenceEmpty":
        lists[result] = []
    elif operator == "SequenceConstruct":
        lists[result] = list(node.input)
    elif operator in ("SequenceInsert", "SequenceErase", "SequenceAt") and node.input[0] in lists:
        held, place = list(lists[node.input[0]]), _place(graph, node)
        if place is None:
            return
        if operator == "SequenceAt":
            same[result] = held[place]
        elif operator == "SequenceInsert":
            held.insert(len(held) if len(node.input) < 3 else place, node.input[1])
            lists[result] = held
        else:
            del held[place]
            lists[result] = held


def _place(graph: Graph, node: NodeProto) -> int | None:
    """Where a sequence is read or changed: −1, the end, when the node does not say; None when that is computed."""
    position = 2 if node.op_type == "SequenceInsert" else 1
    if position >= len(node.input) or not node.input[position]:
        return -1
    value = graph.constants.get(node.input[position])
    return None if value is None else int(value.item())
