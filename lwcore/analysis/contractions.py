"""Rules of the operators with weights: what they sum over is consumed, what they make is labelled afresh."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from lwcore.analysis.labels import Ids, Labelling
from lwcore.analysis.rules import cut_vector, freeze_inputs, freeze_others, is_computed, join, leading, rule


@rule("Conv", "ConvInteger")
def _conv(lab: Labelling, index: int, node: NodeProto) -> None:
    data, weight = node.input[0], node.input[1]
    if not lab.is_constant(weight):
        freeze_inputs(lab, node, "its weights are computed, not stored")
        return
    passed = _pointwise_axes(lab, node)
    freeze_others(lab, node, data, 1, *passed)
    for axis in passed:
        lab.put(node.output[0], axis, lab.on(data, axis))
    ids = lab.on(data, 1)
    groups = int(lab.option(node, "group", 1))  # type: ignore[call-overload]
    outputs, width = lab.shape(weight)[:2]
    made: Ids | None
    if groups == 1:
        if ids is not None:
            lab.consume(index, weight, 1, data, ids)
        made = lab.produce(index, weight, 0)
    elif ids is not None and (groups >= width or outputs == groups):
        made = _whole_groups(lab, index, ids, groups, outputs)
        lab.cut(weight, 0, made)
    elif outputs > groups:
        made = _within_groups(lab, index, node, ids, groups)
    else:
        made = None
    if made is not None:
        cut_vector(lab, node, 2 if node.op_type == "Conv" else 3, made)
    lab.put(node.output[0], 1, made)


def _pointwise_axes(lab: Labelling, node: NodeProto) -> list[int]:
    """Spatial axes on which a convolution looks at one position at a time, so that positions can go."""
    kernel = lab.shape(node.input[1])[2:]
    before, after = lab.shape(node.input[0])[2:], lab.shape(node.output[0])[2:]
    return [a + 2 for a, k in enumerate(kernel) if k == 1 and before[a] == after[a]]


def _whole_groups(lab: Labelling, index: int, ids: Ids, groups: int, outputs: int) -> Ids:
    """Depthwise and many-group convolutions: a group goes with all its inputs and outputs."""
    blocks = ids.reshape(groups, -1)
    if blocks.shape[1] > 1:
        lab.unite(blocks, blocks[:, :1])
    lab.grouped[index] = blocks.shape[1]
    return np.repeat(blocks[:, 0], outputs // groups)


def _within_groups(lab: Labelling, index: int, node: NodeProto, ids: Ids | None, groups: int) -> Ids:
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
    if not lab.is_constant(weight):
        freeze_inputs(lab, node, "its weights are computed, not stored")
        return
    freeze_others(lab, node, data, 1)
    ids = lab.on(data, 1)
    groups = int(lab.option(node, "group", 1))  # type: ignore[call-overload]
    inputs, width = lab.shape(weight)[:2]
    made: Ids | None
    if groups > 1 and ids is not None and groups >= inputs // groups:
        made = _whole_groups(lab, index, ids, groups, width * groups)
        lab.cut(weight, 0, np.repeat(ids.reshape(groups, -1)[:, 0], inputs // groups))
    else:
        if ids is not None:
            blocks = ids.reshape(groups, -1)
            lab.unite(blocks, blocks[:1])
            lab.consume(index, weight, 0, data, np.tile(blocks[0], groups), groups)
        made = np.tile(lab.produce(index, weight, 1), groups)
    cut_vector(lab, node, 2, made)
    lab.put(node.output[0], 1, made)


@rule("Gemm")
def _gemm(lab: Labelling, index: int, node: NodeProto) -> None:
    data, weight = node.input[0], node.input[1]
    if not lab.is_constant(weight) or lab.option(node, "transA", 0) or is_computed(lab, node, 2):
        freeze_inputs(lab, node, "a matrix product of two computed values", meant=False)
        return
    inner = 1 if lab.option(node, "transB", 0) else 0
    ids, rows = lab.on(data, 1), lab.on(data, 0)
    if ids is not None:
        lab.consume(index, weight, inner, data, ids)
    made = lab.produce(index, weight, 1 - inner)
    cut_vector(lab, node, 2, made)
    if rows is not None and len(node.input) > 2 and node.input[2]:
        join(lab, node, node.input[2], 0, 2, rows)
    lab.put(node.output[0], 0, rows)
    lab.put(node.output[0], 1, made)


@rule("MatMul", "MatMulInteger")
def _matmul(lab: Labelling, index: int, node: NodeProto) -> None:
    left, right = node.input[0], node.input[1]
    ranks = len(lab.shape(left)), len(lab.shape(right))
    rank = max(*ranks, 2)  # a vector operand counts as a matrix whose other axis the result lacks
    rows, columns = rank - 2, rank - 1
    _contract(lab, index, node, (left, ranks[0] - 1), (right, max(ranks[1] - 2, 0)))
    for name, own, axis in ((left, ranks[0] - 2, rows), (right, ranks[1] - 1, columns)):
        if min(ranks) < 2 or own < 0:
            continue
        if lab.is_constant(name):
            made = lab.produce(index, name, own)
            if axis == columns and node.op_type == "MatMulInteger":
                cut_vector(lab, node, 3, made)
            lab.put(node.output[0], axis, made)
        else:
            lab.put(node.output[0], axis, lab.on(name, own))
    if min(ranks) < 2:
        _vector_product(lab, node, left if ranks[0] >= ranks[1] else right, ranks)
    else:
        _stack(lab, node, [left, right], rank)


def _stack(lab: Labelling, node: NodeProto, names: list[str], rank: int) -> None:
    """The batch axes of a matrix product, such as attention heads: both sides must have them."""
    labelled = {a + rank - len(lab.shape(n)) for n in names for a in lab.along(n) if a < len(lab.shape(n)) - 2}
    for axis in sorted(labelled):
        lead = leading(lab, names, axis, rank)
        for name in names:
            join(lab, node, name, axis, rank, lead)
        lab.put(node.output[0], axis, lead)


def _vector_product(lab: Labelling, node: NodeProto, matrix: str, ranks: tuple[int, int]) -> None:
    """A matrix times a vector: the axes that are not summed over move up."""
    summed = ranks[0] - 1 if ranks[0] >= ranks[1] else ranks[1] - 2
    for axis, ids in lab.along(matrix).items():
        if axis != summed:
            lab.put(node.output[0], axis - (axis > summed), ids)


def _contract(lab: Labelling, index: int, node: NodeProto, *sides: tuple[str, int]) -> None:
    """The axis that operands are summed over together: consumed by a weight matrix, united between activations."""
    labelled = [(name, axis, ids) for name, axis in sides if (ids := lab.on(name, axis)) is not None]
    if not labelled:
        return
    lead_name, lead_axis, lead = labelled[0]
    for name, axis in sides:
        if name == lead_name and axis == lead_axis:
            continue
        if node.op_type != "Einsum" and lab.is_constant(name) and len(lab.shape(name)) == 2:
            lab.consume(index, name, axis, lead_name, lead)
        else:
            join(lab, node, name, axis, len(lab.shape(name)), lead)
            lab.contracted.add(index)


@rule("Einsum")
def _einsum(lab: Labelling, index: int, node: NodeProto) -> None:
    terms = _letters(lab, node)
    if terms is None:
        freeze_inputs(lab, node, "a sum over a diagonal", meant=False)
        return
    *operands, result = terms
    for letter in dict.fromkeys("".join(operands)):
        sides = [(n, t.index(letter)) for n, t in zip(node.input, operands, strict=True) if letter in t]
        if letter not in result:
            _contract(lab, index, node, *sides)
            if len(sides) == 1 and lab.on(*sides[0]) is not None:
                lab.contracted.add(index)
        elif len(sides) == 1 and lab.is_constant(sides[0][0]):
            lab.put(node.output[0], result.index(letter), lab.produce(index, *sides[0]))
        elif found := [ids for side in sides if (ids := lab.on(*side)) is not None]:
            for name, axis in sides:
                join(lab, node, name, axis, len(lab.shape(name)), found[0])
            lab.put(node.output[0], result.index(letter), found[0])


def _letters(lab: Labelling, node: NodeProto) -> list[str] | None:
    """One letter an axis for every operand and for the result; None where an operand names an axis twice."""
    text = lab.option(node, "equation")
    left, arrow, right = (text.decode() if isinstance(text, bytes) else str(text)).replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:  # the implicit result: letters that occur once, in order
        bare = left.replace(",", "").replace("...", "")
        right = ("..." if "..." in left else "") + "".join(sorted(c for c in set(bare) if bare.count(c) == 1))
    ranks = [len(lab.shape(name)) for name in (*node.input, node.output[0])]
    spare = [chr(code) for code in range(0x100, 0x100 + max(ranks))]  # letters for the axes behind "..."
    spelled = []
    for term, rank in zip([*terms, right], ranks, strict=True):
        behind = rank - len(term.replace("...", ""))
        spelled.append(term.replace("...", "".join(spare[len(spare) - behind :])) if "..." in term else term)
    return None if any(len(set(term)) < len(term) for term in spelled) else spelled
