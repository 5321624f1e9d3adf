"""One rule an operator: how labels pass through it. An operator without a rule freezes what reaches it.

Never wrong, at worst less to prune: a rule that meets a case it does not know freezes the labels and says why. Here:
the register, what rules share, and the operators that work element by element.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto

from lwcore.analysis.labels import Ids, Labelling
from lwcore.analysis.reshaping import blocks_of
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


def operator_of(node: NodeProto) -> str:
    """Name under which an operator's rule is registered: those of other domains carry their domain."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


# -- what rules share ------------------------------------------------------------------------------------------------


def freeze_inputs(lab: Labelling, node: NodeProto, text: str, meant: bool = True) -> None:
    """Freeze whatever reaches a node."""
    for name in node.input:
        lab.freeze_tensor(name, node, text, meant)


def freeze_others(lab: Labelling, node: NodeProto, name: str, *axes: int) -> None:
    """Freeze the labels of a tensor along every axis but those that the operator can lose."""
    for axis, ids in lab.along(name).items():
        if axis not in axes:
            lab.freeze(ids, node, "its channels lie on an axis that this layer does not sum over")


def is_given(node: NodeProto, position: int) -> bool:
    """True when a node has an input at this position."""
    return position < len(node.input) and bool(node.input[position])


def is_computed(lab: Labelling, node: NodeProto, position: int) -> bool:
    """True when an input is there and is not a constant."""
    return is_given(node, position) and not lab.is_constant(node.input[position])


def cut_vector(lab: Labelling, node: NodeProto, position: int, ids: Ids) -> None:
    """A bias (or any per-channel constant) loses what its channels lose; scalars stay."""
    if position < len(node.input) and node.input[position]:
        name = node.input[position]
        shape = lab.shape(name)
        if not shape or shape[-1] != len(ids):
            return
        if lab.is_constant(name):
            lab.cut(name, len(shape) - 1, ids)
        else:
            join(lab, node, name, 0, 1, ids)


def axes_of(lab: Labelling, node: NodeProto, position: int = 1) -> set[int] | None:
    """Axes that a node lists as attribute or as an input, counted from the front; empty when it lists none.

    Returns:
        None when they are computed.
    """
    if is_computed(lab, node, position):
        return None
    given, values = lab.option(node, "axes"), lab.value(node, position)
    listed = values if given is None else np.asarray(given)
    rank = len(lab.shape(node.input[0]))
    return {int(a) % rank for a in np.atleast_1d(listed)} if listed is not None else set()


def single_axis(lab: Labelling, node: NodeProto, default: int) -> int:
    """The `axis` attribute, counted from the front of the first input."""
    axis: int = int(lab.option(node, "axis", default))  # type: ignore[call-overload]
    return axis % max(len(lab.shape(node.input[0])), 1)


# -- element by element ----------------------------------------------------------------------------------------------


@rule(
    *("Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "Mish", "Swish", "HardSwish", "ThresholdedRelu", "Shrink"),
    *("Sigmoid", "HardSigmoid", "Tanh", "Softplus", "Softsign", "Erf", "Clip", "Dropout", "Identity"),
    *("Exp", "Log", "Sqrt", "Reciprocal", "Neg", "Abs", "Floor", "Ceil", "Round", "Sign", "Sin", "Cos", "Tan"),
    *("Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Cast", "CastLike", "Not", "IsNaN", "IsInf"),
)
def _same(lab: Labelling, index: int, node: NodeProto) -> None:
    for axis, ids in lab.along(node.input[0]).items():
        for name in node.output:
            lab.put(name, axis, ids)
    if node.input[0] in lab.copies:
        lab.copies[node.output[0]] = index


@rule(
    *("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Max", "Min", "Sum", "Mean", "Where", "PRelu", "Equal", "Greater"),
    *("GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor"),
)
def _broadcast(lab: Labelling, index: int, node: NodeProto) -> None:
    rank = len(lab.shape(node.output[0]))
    names = [n for n in dict.fromkeys(node.input) if n]
    for axis in sorted({a + rank - len(lab.shape(n)) for n in names for a in lab.along(n)}):
        lead = leading(lab, names, axis, rank)
        for name in names:
            join(lab, node, name, axis, rank, lead)
        lab.put(node.output[0], axis, lead)


def leading(lab: Labelling, names: list[str], axis: int, rank: int) -> Ids:
    """The labels of the first operand that has any on an axis of the result, by the rules of broadcasting."""
    found = (lab.on(name, axis - rank + len(lab.shape(name))) for name in names)
    return next(ids for ids in found if ids is not None)


def join(lab: Labelling, node: NodeProto, name: str, axis: int, rank: int, lead: Ids) -> None:
    """Bring one operand of an element-wise operator together with the labels of the result along `axis`."""
    own = axis - (rank - len(lab.shape(name)))
    if own < 0 or lab.shape(name)[own] == 1:
        return  # broadcast along this axis: nothing of it goes when a channel goes
    ids = lab.on(name, own)
    if ids is not None:
        if ids is not lead:
            lab.unite(ids, lead)
    elif lab.is_constant(name):
        lab.cut(name, own, lead)
    elif _can_follow(lab, name, own):
        _follow(lab, name, own, lead)
    else:
        _stay(lab, node, name, lead)


def _can_follow(lab: Labelling, name: str, axis: int) -> bool:
    """True where a tensor along this axis only repeats a single value or a constant, for one reader.

    A class token that is the same for every sample, or a norm that is spread over the channels it was taken of.
    """
    while name in lab.copies and len(lab.readers.get(name, ())) == 1:
        node = lab.graph.nodes[lab.copies[name]]
        source, own = node.input[0], _source_axis(lab, node, axis)
        if own is None:
            return False
        if own < 0 or lab.shape(source)[own] == 1:
            return node.op_type == "Expand" and lab.value(node, 1) is not None
        if lab.is_constant(source):
            return True
        name, axis = source, own
    return False


def _follow(lab: Labelling, name: str, axis: int, lead: Ids) -> None:
    """Give such a tensor the labels of what it is combined with, back to where the repeating begins."""
    while True:
        node = lab.graph.nodes[lab.copies[name]]
        source, own = node.input[0], _source_axis(lab, node, axis)
        lab.put(name, axis, lead)
        if own is None or own < 0 or lab.shape(source)[own] == 1:
            return
        if lab.is_constant(source):
            lab.cut(source, own, lead)
            return
        name, axis = source, own


def _source_axis(lab: Labelling, node: NodeProto, axis: int) -> int | None:
    """The axis of a node's input that became an axis of its result; below 0 where the input lacks it."""
    before, after = lab.shape(node.input[0]), lab.shape(node.output[0])
    if node.op_type == "Transpose":
        order = list(lab.option(node, "perm") or range(len(before))[::-1])  # type: ignore[call-overload]
        return int(order[axis])
    if node.op_type not in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
        return axis - len(after) + len(before)
    blocks = blocks_of(before, after)
    return next((own for own, parts in enumerate(blocks.inputs) if parts and parts == blocks.outputs[axis]), None)


def _stay(lab: Labelling, node: NodeProto, name: str, lead: Ids) -> None:
    ignorant = name in lab.unknown
    cause = "behind an operator without a rule" if ignorant else "such as the network's input"
    lab.freeze(lead, node, f"combined with values that cannot be removed ({cause})", meant=not ignorant)
