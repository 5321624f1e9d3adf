"""Rules of operators that treat channels one by one or all at once: norms, pools, softmax, reductions, quantizers."""

from __future__ import annotations

from onnx import NodeProto

from lwcore.analysis.labels import Ids, Labelling
from lwcore.analysis.rules import axes_of, cut_vector, freeze_inputs, freeze_others, join, rule, single_axis


@rule("BatchNormalization", "InstanceNormalization")
def _per_channel_norm(lab: Labelling, index: int, node: NodeProto) -> None:
    for axis, ids in lab.along(node.input[0]).items():
        if axis == 1:
            for position in range(1, len(node.input)):
                cut_vector(lab, node, position, ids)
        elif node.op_type == "InstanceNormalization":
            lab.normalised.add(index)
        lab.put(node.output[0], axis, ids)


@rule("LayerNormalization", "RMSNormalization")
def _layer_norm(lab: Labelling, index: int, node: NodeProto) -> None:
    data, first = node.input[0], single_axis(lab, node, -1)
    rank = len(lab.shape(data))
    for axis, ids in lab.along(data).items():
        if axis >= first:
            lab.normalised.add(index)
            for name in filter(None, node.input[1:]):
                join(lab, node, name, axis, rank, ids)
        lab.put(node.output[0], axis, ids)


@rule("GroupNormalization")
def _group_norm(lab: Labelling, index: int, node: NodeProto) -> None:
    """Whole groups go, or the same channel of every group: whatever leaves more to choose from."""
    data, ids = node.input[0], lab.on(node.input[0], 1)
    for axis, others in lab.along(data).items():
        if axis != 1:
            lab.normalised.add(index)
            lab.put(node.output[0], axis, others)
    if ids is None:
        return
    groups = int(lab.option(node, "num_groups"))  # type: ignore[call-overload]
    blocks = ids.reshape(groups, -1)
    whole = groups >= blocks.shape[1]
    lab.unite(blocks, blocks[:, :1] if whole else blocks[:1])
    if whole:
        lab.grouped[index] = blocks.shape[1]
    else:
        lab.normalised.add(index)
    for position, name in enumerate(node.input[1:], 1):
        size = lab.shape(name)[0]
        if size == len(ids):
            cut_vector(lab, node, position, ids)
        elif whole and size == groups:
            lab.cut(name, 0, blocks[:, 0])
    lab.put(node.output[0], 1, ids)


@rule("LRN", "LpNormalization", "MeanVarianceNormalization")
def _statistics_over_channels(lab: Labelling, index: int, node: NodeProto) -> None:
    """What goes is left out of the statistics; around a removed channel, LRN's neighbours move closer."""
    if node.op_type == "LRN":
        over = {1}
    elif node.op_type == "LpNormalization":
        over = {single_axis(lab, node, -1)}
    else:
        over = set(lab.option(node, "axes", (0, 2, 3)))  # type: ignore[call-overload]
    for axis, ids in lab.along(node.input[0]).items():
        if axis in over:
            lab.normalised.add(index)
        lab.put(node.output[0], axis, ids)


@rule("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def _pool(lab: Labelling, index: int, node: NodeProto) -> None:
    freeze_others(lab, node, node.input[0], 0, 1)
    for axis in (0, 1):
        for name in node.output:
            lab.put(name, axis, lab.on(node.input[0], axis))


@rule("Resize", "Upsample")
def _resize(lab: Labelling, index: int, node: NodeProto) -> None:
    before, after = lab.shape(node.input[0]), lab.shape(node.output[0])
    for axis, ids in lab.along(node.input[0]).items():
        if before[axis] == after[axis]:
            lab.put(node.output[0], axis, ids)
        else:
            lab.freeze(ids, node, "resized along the channels")


@rule("GridSample")
def _grid_sample(lab: Labelling, index: int, node: NodeProto) -> None:
    freeze_others(lab, node, node.input[0], 1)
    lab.freeze_tensor(node.input[1], node, "its channels say where to look")
    lab.put(node.output[0], 1, lab.on(node.input[0], 1))


@rule("Softmax", "LogSoftmax", "Hardmax")
def _softmax(lab: Labelling, index: int, node: NodeProto) -> None:
    new = lab.graph.opset >= 13
    first = single_axis(lab, node, -1 if new else 1)
    for axis, ids in lab.along(node.input[0]).items():
        if axis == first or (not new and axis > first):
            lab.normalised.add(index)
        lab.put(node.output[0], axis, ids)


@rule(
    *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceProd", "ReduceSumSquare"),
    *("ReduceLogSum", "ReduceLogSumExp"),
)
def _reduce(lab: Labelling, index: int, node: NodeProto) -> None:
    """A summary of removable channels is from then on one of those that are left."""
    data, axes = node.input[0], axes_of(lab, node)
    if axes is None:
        freeze_inputs(lab, node, "it reduces computed axes", meant=False)
        return
    if not axes and not lab.option(node, "noop_with_empty_axes", 0):
        axes = set(range(len(lab.shape(data))))
    if axes.intersection(lab.along(data)):
        lab.normalised.add(index)
    _put_reduced(lab, node, axes)


@rule("ArgMax", "ArgMin")
def _arg(lab: Labelling, index: int, node: NodeProto) -> None:
    axis = single_axis(lab, node, 0)
    _freeze_places(lab, node, lab.on(node.input[0], axis))
    _put_reduced(lab, node, {axis})


@rule("TopK")
def _top(lab: Labelling, index: int, node: NodeProto) -> None:
    axis = single_axis(lab, node, -1)
    _freeze_places(lab, node, lab.on(node.input[0], axis))
    for other, ids in lab.along(node.input[0]).items():
        for name in node.output if other != axis else ():
            lab.put(name, other, ids)


def _freeze_places(lab: Labelling, node: NodeProto, ids: Ids | None) -> None:
    if ids is not None:
        lab.freeze(ids, node, "its answer is a channel's number")


def _put_reduced(lab: Labelling, node: NodeProto, axes: set[int]) -> None:
    kept = bool(lab.option(node, "keepdims", 1))
    for axis, ids in lab.along(node.input[0]).items():
        if axis not in axes:
            lab.put(node.output[0], axis if kept else axis - sum(a < axis for a in axes), ids)


@rule("DequantizeLinear", "QuantizeLinear")
def _quantize(lab: Labelling, index: int, node: NodeProto) -> None:
    data, scale = node.input[0], node.input[1]
    zero = node.input[2] if len(node.input) > 2 else ""
    if lab.option(node, "block_size", 0):  # what reads such a weight sees it as computed, and stays
        freeze_inputs(lab, node, "stored in blocks that share a scale")
        return
    per_axis = lab.shape(scale) not in ((), (1,))
    axis = single_axis(lab, node, 1) if per_axis else -1
    if data in lab.graph.constants:
        lab.quantized[node.output[0]] = (data, scale if per_axis else "", zero if per_axis else "", axis)
        return
    for own, ids in lab.along(data).items():
        if own == axis:
            for name in filter(None, (scale, zero)):
                lab.cut(name, 0, ids)
        lab.put(node.output[0], own, ids)


@rule("DynamicQuantizeLinear")
def _dynamic_quantize(lab: Labelling, index: int, node: NodeProto) -> None:
    for axis, ids in lab.along(node.input[0]).items():
        lab.put(node.output[0], axis, ids)


@rule("Shape", "Size", "ConstantOfShape")
def _no_channels(lab: Labelling, index: int, node: NodeProto) -> None:
    """Reads sizes, not channels."""
