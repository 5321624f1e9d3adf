"""Rules of operators that treat channels one by one or all at once: norms, pools, softmax, reductions, quantizers."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from lwcore.analysis.labels import Labelling
from lwcore.analysis.rules import freeze_inputs, is_computed, on_axis, rule


@rule("BatchNormalization", "InstanceNormalization")
def _per_channel_norm(lab: Labelling, index: int, node: NodeProto) -> None:
    ids = on_axis(lab, node, node.input[0], 1)
    if ids is not None:
        for name in node.input[1:]:
            lab.cut(name, 0, ids)
    lab.put(node.output[0], 1, ids)


@rule("LayerNormalization")
def _layer_norm(lab: Labelling, index: int, node: NodeProto) -> None:
    labels = lab.get(node.input[0])
    if labels is None:
        return
    rank = len(lab.shape(node.input[0]))
    first = int(lab.option(node, "axis", -1)) % rank  # type: ignore[call-overload]
    if labels.axis >= first:
        lab.normalised.add(index)
        for name in node.input[1:]:
            if name and lab.is_constant(name):
                lab.cut(name, labels.axis - first, labels.ids)
    lab.put(node.output[0], labels.axis, labels.ids)


@rule("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def _pool(lab: Labelling, index: int, node: NodeProto) -> None:
    lab.put(node.output[0], 1, on_axis(lab, node, node.input[0], 1))


@rule("Resize", "Upsample")
def _resize(lab: Labelling, index: int, node: NodeProto) -> None:
    before, after = lab.shape(node.input[0]), lab.shape(node.output[0])
    labels = lab.get(node.input[0])
    if labels and before[labels.axis] == after[labels.axis]:
        lab.put(node.output[0], labels.axis, labels.ids)
    else:
        freeze_inputs(lab, node, "resized along the channels")


@rule("LRN")
def _lrn(lab: Labelling, index: int, node: NodeProto) -> None:
    freeze_inputs(lab, node, "local response normalisation mixes neighbouring channels")


@rule("Softmax", "LogSoftmax", "Hardmax")
def _softmax(lab: Labelling, index: int, node: NodeProto) -> None:
    labels = lab.get(node.input[0])
    if labels is None:
        return
    rank = len(lab.shape(node.input[0]))
    new = lab.graph.opset >= 13
    axis = int(lab.option(node, "axis", -1 if new else 1)) % rank  # type: ignore[call-overload]
    if labels.axis == axis or (not new and labels.axis > axis):
        lab.freeze(labels.ids, node, "a softmax compares these channels with each other")
    else:
        lab.put(node.output[0], labels.axis, labels.ids)


@rule(
    "ReduceMean",
    "ReduceSum",
    "ReduceMax",
    "ReduceMin",
    "ReduceL1",
    "ReduceL2",
    "ReduceProd",
    "ReduceSumSquare",
    "ReduceLogSumExp",
)
def _reduce(lab: Labelling, index: int, node: NodeProto) -> None:
    labels = lab.get(node.input[0])
    if labels is None:
        return
    rank = len(lab.shape(node.input[0]))
    given = lab.option(node, "axes")
    values = lab.value(node, 1)
    listed = values if given is None else np.asarray(given)
    axes = {int(a) % rank for a in ([] if listed is None else listed)} or (
        set() if lab.option(node, "noop_with_empty_axes", 0) else set(range(rank))
    )
    if labels.axis in axes or is_computed(lab, node, 1):
        lab.freeze(labels.ids, node, "it summarises these channels in one number")
        return
    kept = bool(lab.option(node, "keepdims", 1))
    lab.put(node.output[0], labels.axis if kept else labels.axis - sum(a < labels.axis for a in axes), labels.ids)


@rule("DequantizeLinear", "QuantizeLinear")
def _quantize(lab: Labelling, index: int, node: NodeProto) -> None:
    data, scale = node.input[0], node.input[1]
    zero = node.input[2] if len(node.input) > 2 else ""
    per_axis = lab.shape(scale) not in ((), (1,))
    rank = len(lab.shape(data))
    axis = int(lab.option(node, "axis", 1)) % max(rank, 1) if per_axis else -1  # type: ignore[call-overload]
    if data in lab.graph.constants:
        lab.quantized[node.output[0]] = (data, scale if per_axis else "", zero if per_axis else "", axis)
        return
    labels = lab.get(data)
    if labels is None:
        return
    if labels.axis == axis:
        for name in filter(None, (scale, zero)):
            lab.cut(name, 0, labels.ids)
    lab.put(node.output[0], labels.axis, labels.ids)


@rule("DynamicQuantizeLinear")
def _dynamic_quantize(lab: Labelling, index: int, node: NodeProto) -> None:
    labels = lab.get(node.input[0])
    if labels:
        lab.put(node.output[0], labels.axis, labels.ids)


@rule("Shape", "Size", "ConstantOfShape")
def _no_channels(lab: Labelling, index: int, node: NodeProto) -> None:
    """Reads sizes, not channels."""
