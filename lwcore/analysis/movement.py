"""Rules of the operators that move data without computing: labels are moved by the operator's own semantics."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from lwcore.analysis.labels import FROZEN, Ids, Labelling
from lwcore.analysis.reshaping import blocks_of
from lwcore.analysis.rules import axes_of, freeze_inputs, freeze_others, is_computed, join, leading, rule, single_axis


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _view(lab: Labelling, index: int, node: NodeProto) -> None:
    data, result = node.input[0], node.output[0]
    if node.op_type == "Reshape" and is_computed(lab, node, 1):
        lab.freeze_tensor(data, node, "reshaped to a computed shape", meant=False)
        return
    before, after = lab.shape(data), lab.shape(result)
    placed: dict[int, int] = {}  # axis of the result → different labels on it
    for axis, ids in lab.along(data).items():
        target, moved = _reshaped(lab, node, ids, axis, before, after)
        if moved is None:
            continue
        different = len(np.unique(ids))
        if target in placed:  # only one kind can go from an axis: the other stays
            stays = ids if different <= placed[target] else lab.along(result)[target]
            lab.freeze(stays, node, "two kinds of channels are merged into one axis", meant=False)
        if different > placed.get(target, 0):
            placed[target] = different
            lab.put(result, target, moved)
    if data in lab.copies:
        lab.copies[result] = index


def _reshaped(
    lab: Labelling, node: NodeProto, ids: Ids, axis: int, before: tuple[int, ...], after: tuple[int, ...]
) -> tuple[int, Ids | None]:
    """Where one axis' labels lie after a reshape: (axis, labels).

    Where they would vary along several axes, the one that leaves the most different labels is kept and each label is
    united with those beside it along the others: the same index in every attention head, in every half of a shuffle.
    """
    blocks = blocks_of(before, after)
    mine = blocks.inputs[axis]
    if mine is None:
        lab.freeze(ids, node, "reshaped across the borders of its channels", meant=False)
        return 0, None
    array = ids.reshape([blocks.sizes[i] if i in mine else 1 for i in range(len(blocks.sizes))])
    varying = []
    for target, parts in enumerate(blocks.outputs):
        if parts is None or not set(parts) & set(mine):
            continue
        lead = array[tuple(slice(None) if i in parts else slice(0, 1) for i in range(array.ndim))]
        if (different := len(np.unique(lead))) > 1:
            varying.append((different, -target, lead, parts))
    if not varying:
        return 0, None
    _, target, lead, parts = max(varying, key=lambda found: found[1:2] if lab.whole else found[:2])
    if len(varying) > 1:
        lab.unite(array, lead)
    spread = np.broadcast_to(lead, [blocks.sizes[i] if i in parts else 1 for i in range(array.ndim)])
    return -target, spread.reshape(-1)


@rule("Transpose")
def _transpose(lab: Labelling, index: int, node: NodeProto) -> None:
    rank = len(lab.shape(node.input[0]))
    order = list(lab.option(node, "perm") or range(rank)[::-1])  # type: ignore[call-overload]
    for axis, ids in lab.along(node.input[0]).items():
        lab.put(node.output[0], order.index(axis), ids)
    if node.input[0] in lab.copies:
        lab.copies[node.output[0]] = index


@rule("DepthToSpace", "SpaceToDepth")
def _depth(lab: Labelling, index: int, node: NodeProto) -> None:
    data, side = node.input[0], int(lab.option(node, "blocksize"))  # type: ignore[call-overload]
    freeze_others(lab, node, data, 0, 1)
    lab.put(node.output[0], 0, lab.on(data, 0))
    ids = lab.on(data, 1)
    if ids is None:
        return
    if node.op_type == "SpaceToDepth":
        lab.put(node.output[0], 1, np.tile(ids, side * side))
        return
    crd = lab.option(node, "mode", b"DCR") == b"CRD"
    blocks = ids.reshape(-1, side * side).T if crd else ids.reshape(side * side, -1)
    lab.unite(blocks, blocks[:1])
    lab.put(node.output[0], 1, blocks[0])


@rule("Concat")
def _concat(lab: Labelling, index: int, node: NodeProto) -> None:
    result, names = node.output[0], list(node.input)
    rank = len(lab.shape(result))
    joined = int(lab.option(node, "axis", 1)) % rank  # type: ignore[call-overload]
    for axis in sorted({a for name in names for a in lab.along(name)}):
        if axis == joined:
            lab.put(result, axis, np.concatenate([_part(lab, node, name, axis) for name in names]))
        else:
            lead = leading(lab, names, axis, rank)
            for name in names:
                join(lab, node, name, axis, rank, lead)
            lab.put(result, axis, lead)


def _part(lab: Labelling, node: NodeProto, name: str, axis: int) -> Ids:
    ids = lab.on(name, axis)
    if ids is not None:
        return ids
    size = lab.shape(name)[axis]
    if name not in lab.unknown:
        return np.full(size, FROZEN)
    stuck = lab.fresh(size)
    lab.freeze(stuck, node, "combined with values that cannot be removed (behind an operator without a rule)", False)
    return stuck


@rule("Split")
def _split(lab: Labelling, index: int, node: NodeProto) -> None:
    split = single_axis(lab, node, 0)
    for axis, ids in lab.along(node.input[0]).items():
        start = 0
        for name in node.output:
            stop = start + lab.shape(name)[split]
            if axis == split:
                lab.pieces.append(ids[start:stop])
            lab.put(name, axis, ids[start:stop] if axis == split else ids)
            start = stop


@rule("Slice")
def _slice(lab: Labelling, index: int, node: NodeProto) -> None:
    for axis, ids in lab.along(node.input[0]).items():
        window = slice_window(lab, node, axis)
        if window is None:
            lab.freeze(ids, node, "its bounds are computed or it runs backwards", meant=False)
            continue
        part, step = ids[window], window.step or 1
        if step > 1:  # every second channel (rotary embeddings): whole runs of `step` go, so that the rhythm stays
            if len(ids) % step or len(part) != len(ids) // step:
                lab.freeze(ids, node, "it takes some of every few channels")
                continue
            runs = ids.reshape(-1, step)
            lab.unite(runs, runs[:, :1])
        if len(part) < len(ids):
            lab.pieces.append(part)
        lab.put(node.output[0], axis, part)


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
            bounds = slice(int(start), int(stop), int(step)).indices(lab.shape(node.input[0])[axis])
            return slice(*bounds) if int(step) > 0 else None
    return slice(None)


@rule("Gather")
def _gather(lab: Labelling, index: int, node: NodeProto) -> None:
    data, places = node.input[0], lab.value(node, 1)
    picked = single_axis(lab, node, 0)
    lab.freeze_tensor(node.input[1], node, "its values are positions")
    if lab.is_constant(data):
        if picked == 0 and len(lab.shape(data)) == 2 and places is None:  # an embedding table: its width can shrink
            lab.put(node.output[0], len(lab.shape(node.output[0])) - 1, lab.produce(index, data, 1))
        return
    extra = len(lab.shape(node.input[1])) - 1
    for axis, ids in lab.along(data).items():
        if axis != picked:
            lab.put(node.output[0], axis + (extra if axis > picked else 0), ids)
        elif places is not None and (along := [a for a, size in enumerate(places.shape) if size == places.size]):
            lab.pieces.append(ids[places.ravel()])
            lab.put(node.output[0], axis + along[0], ids[places.ravel()])
        else:
            lab.freeze(ids, node, "picks single channels")


@rule("Pad")
def _pad(lab: Labelling, index: int, node: NodeProto) -> None:
    rank = len(lab.shape(node.input[0]))
    attribute = lab.option(node, "pads")
    pads = np.asarray(attribute) if attribute is not None else lab.value(node, 1)
    if pads is None or axes_of(lab, node, 3) or pads.size != 2 * rank or is_computed(lab, node, 3):
        freeze_inputs(lab, node, "its padding is computed", meant=False)
        return
    for axis, ids in lab.along(node.input[0]).items():
        before, after = int(pads[axis]), int(pads[axis + rank])
        if (before or after) and (min(before, after) < 0 or lab.option(node, "mode", b"constant") != b"constant"):
            lab.freeze(ids, node, "padded along the channels by copies")
        else:
            lab.put(node.output[0], axis, np.pad(ids, (before, after), constant_values=FROZEN))


@rule("Expand", "Tile")
def _expand(lab: Labelling, index: int, node: NodeProto) -> None:
    data, result = node.input[0], node.output[0]
    before, after = lab.shape(data), lab.shape(result)
    for own, ids in lab.along(data).items():
        axis = own + len(after) - len(before)
        follows_batch = lab.value(node, 1) is None and axis in lab.graph.free.get(result, ())
        if before[own] != after[axis] or follows_batch:
            lab.freeze(ids, node, "repeated along the channels", meant=False)
        else:  # normalising made an Expand ask for 1, "as it is", along every axis that it does not widen
            lab.put(result, axis, ids)
    lab.copies[result] = index
    _learned_token(lab, node)


def _learned_token(lab: Labelling, node: NodeProto) -> None:
    """A stored vector that is repeated for every sample (a class token) has channels of its own, for many readers."""
    data, result = node.input[0], node.output[0]
    before, after = lab.shape(data), lab.shape(result)
    long = [axis for axis, size in enumerate(before) if size > 1]
    if data not in lab.graph.constants or lab.graph.constants[data].dtype.kind != "f" or len(long) != 1:
        return
    axis = long[0] + len(after) - len(before)
    if after[axis] == before[long[0]]:
        ids = lab.fresh(after[axis])
        lab.cut(data, long[0], ids)
        lab.put(result, axis, ids)
