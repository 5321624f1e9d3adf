"""One rule an operator: how labels pass through it. An operator without a rule freezes what reaches it.

Never wrong, at worst less to prune: a rule that meets a case it does not know freezes the labels and says why.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto

from lwcore.analysis.labels import Labelling, Labels
from lwcore.registry import Registry

Rule = Callable[[Labelling, int, NodeProto], None]
RULES: Registry[Rule] = Registry("operator rule")


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register one rule for several operators."""

    def decorate(function: Rule) -> Rule:
        for name in operators:
            RULES.add(name, function)
        return function

    return decorate


def freeze_inputs(lab: Labelling, node: NodeProto, text: str, meant: bool = True) -> None:
    """Freeze whatever reaches a node."""
    for name in node.input:
        lab.freeze_tensor(name, node, text, meant)


# -- element by element --------------------------------------------------------------------------------------------


@rule(
    "Relu",
    "LeakyRelu",
    "Elu",
    "Selu",
    "Celu",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Tanh",
    "Softplus",
    "Softsign",
    "Erf",
    "Gelu",
    "Mish",
    "Swish",
    "ThresholdedRelu",
    "Exp",
    "Log",
    "Sqrt",
    "Reciprocal",
    "Neg",
    "Abs",
    "Floor",
    "Ceil",
    "Round",
    "Sign",
    "Sin",
    "Cos",
    "Identity",
    "Dropout",
    "Cast",
    "Clip",
    "Not",
    "IsNaN",
)
def _same(lab: Labelling, index: int, node: NodeProto) -> None:
    labels = lab.get(node.input[0])
    for name in node.output:
        if labels and name:
            lab.put(name, labels.axis, labels.ids)


@rule(
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Pow",
    "Max",
    "Min",
    "Sum",
    "Mean",
    "Where",
    "PRelu",
    "Mod",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "And",
    "Or",
    "Xor",
)
def _broadcast(lab: Labelling, index: int, node: NodeProto) -> None:
    out = lab.shape(node.output[0])
    reached = {n: lab.get(n) for n in node.input if n}
    axes = {aligned(lab, n, labels, len(out)) for n, labels in reached.items() if labels}
    if not axes:
        return
    if len(axes) > 1:
        freeze_inputs(lab, node, "its inputs vary along different axes")
        return
    axis = axes.pop()
    lead = next(labels.ids for labels in reached.values() if labels and len(labels.ids) == out[axis])
    for name in reached:
        join(lab, node, name, axis, len(out), lead)
    lab.put(node.output[0], axis, lead)


def aligned(lab: Labelling, name: str, labels: Labels, rank: int) -> int:
    """Axis of the result on which an operand's labels lie, by the rules of broadcasting."""
    return labels.axis + rank - len(lab.shape(name))


def join(lab: Labelling, node: NodeProto, name: str, axis: int, rank: int, lead: np.ndarray) -> None:
    """Bring one operand of an element-wise operator together with the labels of the result along `axis`."""
    own = axis - (rank - len(lab.shape(name)))
    if own < 0 or lab.shape(name)[own] == 1:
        return  # broadcast along this axis: nothing of it goes when a channel goes
    labels = lab.get(name)
    if labels:
        if labels.ids is not lead:
            lab.unite(labels.ids, lead)
    elif lab.is_constant(name):
        lab.cut(name, own, lead)
    else:
        lab.freeze(lead, node, "combined with values that cannot be removed (such as the network's input)")


# -- weights ---------------------------------------------------------------------------------------------------------


@rule("Conv", "ConvInteger")
def _conv(lab: Labelling, index: int, node: NodeProto) -> None:
    data, weight = node.input[0], node.input[1]
    if not lab.is_constant(weight):
        freeze_inputs(lab, node, "its weights are computed, not stored")
        return
    labels = on_axis(lab, node, data, 1)
    groups = int(lab.option(node, "group", 1))  # type: ignore[call-overload]
    shape = lab.shape(weight)
    if groups == 1:
        if labels is not None:
            lab.consume(index, weight, 1, data, labels)
        ids: np.ndarray | None = lab.produce(index, weight, 0)
    elif shape[1] == 1 or (labels is not None and groups >= shape[1]):
        ids = _whole_groups(lab, index, node, labels, groups)
    else:
        ids = _within_groups(lab, index, node, labels, groups)
    if ids is not None:
        for position in (2,) if node.op_type == "Conv" else (3,):
            cut_vector(lab, node, position, ids)
    lab.put(node.output[0], 1, ids)


def _whole_groups(
    lab: Labelling, index: int, node: NodeProto, ids: np.ndarray | None, groups: int
) -> np.ndarray | None:
    """Depthwise and many-group convolutions: a group goes with all its inputs and outputs."""
    if ids is None:
        return None
    outputs, width = lab.shape(node.input[1])[:2]
    blocks = ids.reshape(groups, width)
    if width > 1:
        lab.unite(blocks, blocks[:, :1])
    lab.grouped[index] = width
    result = np.repeat(blocks[:, 0], outputs // groups)
    lab.cut(node.input[1], 0, result)
    return result


def _within_groups(lab: Labelling, index: int, node: NodeProto, ids: np.ndarray | None, groups: int) -> np.ndarray:
    """Few-group convolutions: the same channel goes in every group, so that the groups stay alike."""
    weight = node.input[1]
    outputs, width = lab.shape(weight)[:2]
    if ids is not None:
        blocks = ids.reshape(groups, width)
        lab.unite(blocks, blocks[:1])
        lab.consume(index, weight, 1, node.input[0], blocks[0], groups)
    result = np.tile(lab.fresh(outputs // groups), groups)
    lab.cut(weight, 0, result)
    lab.producers.append((index, weight, 0))
    return result


@rule("ConvTranspose")
def _conv_transpose(lab: Labelling, index: int, node: NodeProto) -> None:
    data, weight = node.input[0], node.input[1]
    labels = on_axis(lab, node, data, 1)
    groups = int(lab.option(node, "group", 1))  # type: ignore[call-overload]
    if not lab.is_constant(weight) or groups > 1:
        freeze_inputs(lab, node, "a grouped transposed convolution", meant=False)
        return
    if labels is not None:
        lab.consume(index, weight, 0, data, labels)
    ids = lab.produce(index, weight, 1)
    cut_vector(lab, node, 2, ids)
    lab.put(node.output[0], 1, ids)


@rule("Gemm")
def _gemm(lab: Labelling, index: int, node: NodeProto) -> None:
    data, weight = node.input[0], node.input[1]
    if not lab.is_constant(weight) or lab.option(node, "transA", 0) or is_computed(lab, node, 2):
        freeze_inputs(lab, node, "a matrix product of two computed values", meant=False)
        return
    inner = 1 if lab.option(node, "transB", 0) else 0
    labels = on_axis(lab, node, data, 1)
    if labels is not None:
        lab.consume(index, weight, inner, data, labels)
    ids = lab.produce(index, weight, 1 - inner)
    cut_vector(lab, node, 2, ids)
    lab.put(node.output[0], 1, ids)


@rule("MatMul", "MatMulInteger")
def _matmul(lab: Labelling, index: int, node: NodeProto) -> None:
    left, right = node.input[0], node.input[1]
    out_rank = len(lab.shape(node.output[0]))
    if lab.is_constant(right) and len(lab.shape(right)) == 2 and not lab.is_constant(left):
        labels = on_axis(lab, node, left, len(lab.shape(left)) - 1)
        if labels is not None:
            lab.consume(index, right, 0, left, labels)
        ids = lab.produce(index, right, 1)
        if node.op_type == "MatMulInteger":
            cut_vector(lab, node, 3, ids)
        lab.put(node.output[0], out_rank - 1, ids)
    elif lab.is_constant(left) and len(lab.shape(left)) == 2 and len(lab.shape(right)) >= 2:
        labels = on_axis(lab, node, right, len(lab.shape(right)) - 2)
        if labels is not None:
            lab.consume(index, left, 1, right, labels)
        lab.put(node.output[0], out_rank - 2, lab.produce(index, left, 0))
    elif lab.is_constant(left) or lab.is_constant(right) or min(len(lab.shape(left)), len(lab.shape(right))) < 2:
        freeze_inputs(lab, node, "a matrix product with a stack of weights", meant=False)
    else:
        _activation_product(lab, node, left, right, out_rank)


def _activation_product(lab: Labelling, node: NodeProto, left: str, right: str, rank: int) -> None:
    """Attention's products of two activations: the contracted axis is united, the others pass."""
    a, b = lab.get(left), lab.get(right)
    a_axis = a.axis + rank - len(lab.shape(left)) if a else -1
    b_axis = b.axis + rank - len(lab.shape(right)) if b else -1
    if a and b and a_axis == rank - 1 and b_axis == rank - 2:
        lab.unite(a.ids, b.ids)
        return
    if (a and a_axis == rank - 1) or (b and b_axis == rank - 2):
        freeze_inputs(lab, node, "summed over together with values that cannot be removed")
        return
    if a and b and a_axis != b_axis:
        freeze_inputs(lab, node, "its inputs vary along different axes")
        return
    axis = a_axis if a else b_axis
    lead = a or b
    if lead is None:
        return
    if axis < rank - 2:  # a batch axis, as attention heads: both sides must have it
        for name in (left, right):
            join(lab, node, name, axis, rank, lead.ids)
    lab.put(node.output[0], axis, lead.ids)


def is_computed(lab: Labelling, node: NodeProto, position: int) -> bool:
    """True when an input is there and is not a constant."""
    return position < len(node.input) and bool(node.input[position]) and not lab.is_constant(node.input[position])


def cut_vector(lab: Labelling, node: NodeProto, position: int, ids: np.ndarray) -> None:
    """A bias (or any per-channel constant) loses what its channels lose; scalars stay."""
    if position < len(node.input) and node.input[position]:
        shape = lab.shape(node.input[position])
        if shape and shape[-1] == len(ids):
            lab.cut(node.input[position], len(shape) - 1, ids)


def on_axis(lab: Labelling, node: NodeProto, name: str, axis: int) -> np.ndarray | None:
    """Ids of a tensor along the axis an operator contracts; labels along another axis are frozen."""
    labels = lab.get(name)
    if labels is None:
        return None
    if labels.axis == axis:
        return labels.ids
    lab.freeze(labels.ids, node, "its channels lie on an axis that this layer does not sum over")
    return None
