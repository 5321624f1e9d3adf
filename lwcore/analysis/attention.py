"""The rule of the fused Attention operator (operator set 23 on): head width, or the width of the values, can go."""

from __future__ import annotations

from onnx import NodeProto

from lwcore.analysis.labels import Ids, Labelling
from lwcore.analysis.rules import freeze_inputs, is_given, join, rule


@rule("Attention")
def _attention(lab: Labelling, index: int, node: NodeProto) -> None:
    """Queries and keys share their width in all heads, values share theirs with the result; heads stay."""
    if len(node.output) > 1 or any(is_given(node, position) for position in (4, 5)):
        freeze_inputs(lab, node, "an attention that keeps keys and values of earlier steps", meant=False)
        return
    queries, keys, values = (_within_heads(lab, node, position) for position in range(3))
    lead = queries if queries is not None else keys
    if lead is not None:
        lab.contracted.add(index)
        for position in (0, 1):
            _join_width(lab, node, position, lead)
    if values is not None:
        rank = len(lab.shape(node.output[0]))
        heads = _heads(lab, node, 0) if rank == 3 else 1
        lab.put(node.output[0], rank - 1, _repeated(values, heads))
    if is_given(node, 3):
        lab.freeze_tensor(node.input[3], node, "a mask is as long as the sequence")


def _heads(lab: Labelling, node: NodeProto, position: int) -> int:
    name = "q_num_heads" if position == 0 else "kv_num_heads"
    heads: int = int(lab.option(node, name, 1))  # type: ignore[call-overload]
    return heads


def _repeated(width: Ids, heads: int) -> Ids:
    return width if heads == 1 else width[None].repeat(heads, axis=0).reshape(-1)


def _within_heads(lab: Labelling, node: NodeProto, position: int) -> Ids | None:
    """Labels of one head's width: the same in every head; whatever lies on another axis stays."""
    name = node.input[position]
    last = len(lab.shape(name)) - 1
    for axis, ids in lab.along(name).items():
        if axis != last:
            lab.freeze(ids, node, "whole heads or positions of a fused attention", meant=False)
    found = lab.on(name, last)
    if found is None or last == 3:
        return found
    blocks = found.reshape(_heads(lab, node, position), -1)
    lab.unite(blocks, blocks[:1])
    width: Ids = blocks[0]
    return width


def _join_width(lab: Labelling, node: NodeProto, position: int, lead: Ids) -> None:
    name = node.input[position]
    rank = len(lab.shape(name))
    heads = _heads(lab, node, position) if rank == 3 else 1
    join(lab, node, name, rank - 1, rank, _repeated(lead, heads))
