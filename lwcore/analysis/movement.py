"""Rules of the operators that move data without computing: labels are moved by the operator's own semantics."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from lwcore.analysis.labels import FROZEN, Labelling
from lwcore.analysis.rules import aligned, freeze_inputs, is_computed, join, rule


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _view(lab: Labelling, index: int, node: NodeProto) -> None:
    labels = lab.get(node.input[0])
    if labels is None:
        return
    before, after = lab.shape(node.input[0]), lab.shape(node.output[0])
    placed = labels.ids.reshape([-1 if a == labels.axis else 1 for a in range(len(before))])
    axis, ids = lab.spread(np.broadcast_to(placed, before).reshape(after))
    lab.put(node.output[0], axis, ids)


@rule("Transpose")
def _transpose(lab: Labelling, index: int, node: NodeProto) -> None:
    labels = lab.get(node.input[0])
    if labels is None:
        return
    rank = len(lab.shape(node.input[0]))
    order = list(lab.option(node, "perm") or range(rank)[::-1])  # type: ignore[call-overload]
    lab.put(node.output[0], order.index(labels.axis), labels.ids)


@rule("Concat")
def _concat(lab: Labelling, index: int, node: NodeProto) -> None:
    rank = len(lab.shape(node.output[0]))
    axis = int(lab.option(node, "axis", 1)) % rank  # type: ignore[call-overload]
    found = [lab.get(name) for name in node.input]
    axes = {labels.axis for labels in found if labels}
    if not axes:
        return
    if axes == {axis}:
        parts = [
            labels.ids if labels else np.full(lab.shape(name)[axis], FROZEN)
            for name, labels in zip(node.input, found, strict=True)
        ]
        lab.put(node.output[0], axis, np.concatenate(parts))
    elif len(axes) == 1 and axis not in axes:
        along = axes.pop()
        lead = next(labels.ids for labels in found if labels)
        for name in node.input:
            join(lab, node, name, along, rank, lead)
        lab.put(node.output[0], along, lead)
    else:
        freeze_inputs(lab, node, "its inputs vary along different axes")


@rule("Split")
def _split(lab: Labelling, index: int, node: NodeProto) -> None:
    labels = lab.get(node.input[0])
    if labels is None:
        return
    axis = int(lab.option(node, "axis", 0)) % len(lab.shape(node.input[0]))  # type: ignore[call-overload]
    if labels.axis != axis:
        for name in node.output:
            lab.put(name, labels.axis, labels.ids)
        return
    start = 0
    for name in node.output:
        stop = start + lab.shape(name)[axis]
        lab.pieces.append(labels.ids[start:stop])
        lab.put(name, axis, labels.ids[start:stop])
        start = stop


@rule("Slice")
def _slice(lab: Labelling, index: int, node: NodeProto) -> None:
    labels = lab.get(node.input[0])
    if labels is None:
        return
    window = slice_window(lab, node, labels.axis)
    if window is None:
        lab.freeze(labels.ids, node, "its bounds are computed or it skips channels", meant=False)
        return
    ids = labels.ids[window]
    if len(ids) < len(labels.ids):
        lab.pieces.append(ids)
    lab.put(node.output[0], labels.axis, ids)


def slice_window(lab: Labelling, node: NodeProto, axis: int) -> slice | None:
    """The part of `axis` that a Slice takes: the whole when it slices other axes, None when it cannot be rewritten."""
    rank = len(lab.shape(node.input[0]))
    if lab.graph.opset < 10:
        starts, ends = lab.option(node, "starts"), lab.option(node, "ends")
        axes = lab.option(node, "axes", range(len(starts)))  # type: ignore[arg-type]
        steps: object = [1] * len(starts)  # type: ignore[arg-type]
    else:
        starts, ends = lab.value(node, 1), lab.value(node, 2)
        if starts is None or ends is None or is_computed(lab, node, 3) or is_computed(lab, node, 4):
            return None
        listed = lab.value(node, 3)
        axes = np.arange(starts.size) if listed is None else listed
        given = lab.value(node, 4)
        steps = np.ones(starts.size, np.int64) if given is None else given
    for a, start, stop, step in zip(axes, starts, ends, steps, strict=False):  # type: ignore[call-overload]
        if int(a) % rank == axis:
            return (
                slice(*slice(int(start), int(stop)).indices(lab.shape(node.input[0])[axis])) if int(step) == 1 else None
            )
    return slice(None)


@rule("Gather")
def _gather(lab: Labelling, index: int, node: NodeProto) -> None:
    data, places = node.input[0], lab.value(node, 1)
    axis = int(lab.option(node, "axis", 0)) % len(lab.shape(data))  # type: ignore[call-overload]
    out_rank = len(lab.shape(node.output[0]))
    if lab.is_constant(data):
        if axis == 0 and len(lab.shape(data)) == 2 and places is None:  # an embedding table: its width can shrink
            lab.put(node.output[0], out_rank - 1, lab.produce(index, data, 1))
        return
    labels = lab.get(data)
    if labels is None:
        return
    if labels.axis != axis:
        extra = len(lab.shape(node.input[1])) - 1
        lab.put(node.output[0], labels.axis + (extra if labels.axis > axis else 0), labels.ids)
    elif places is not None and places.ndim == 1:
        lab.pieces.append(labels.ids[places])
        lab.put(node.output[0], axis, labels.ids[places])
    else:
        lab.freeze(labels.ids, node, "picks single channels")


@rule("Pad")
def _pad(lab: Labelling, index: int, node: NodeProto) -> None:
    labels = lab.get(node.input[0])
    if labels is None:
        return
    rank = len(lab.shape(node.input[0]))
    attribute = lab.option(node, "pads")
    pads = np.asarray(attribute) if attribute is not None else lab.value(node, 1)
    if pads is None or pads.size != 2 * rank or is_computed(lab, node, 3):
        lab.freeze(labels.ids, node, "its padding is computed", meant=False)
        return
    before, after = int(pads[labels.axis]), int(pads[labels.axis + rank])
    if (before or after) and (min(before, after) < 0 or lab.option(node, "mode", b"constant") != b"constant"):
        lab.freeze(labels.ids, node, "padded along the channels by copies")
        return
    lab.put(node.output[0], labels.axis, np.pad(labels.ids, (before, after), constant_values=FROZEN))


@rule("Expand", "Tile")
def _expand(lab: Labelling, index: int, node: NodeProto) -> None:
    labels = lab.get(node.input[0])
    if labels is None:
        return
    axis = aligned(lab, node.input[0], labels, len(lab.shape(node.output[0])))
    if lab.value(node, 1) is None or lab.shape(node.output[0])[axis] != len(labels.ids):
        lab.freeze(labels.ids, node, "repeated along the channels", meant=False)
        return
    lab.put(node.output[0], axis, labels.ids)
