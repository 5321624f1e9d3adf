"""Rules of fused and quantized operators: each is a plain operator with some of its inputs, and is labelled as that.

QOperator files (QLinearConv, QLinearAdd, …) carry scales and zero points beside every input; those of a weight that has
one a channel shrink with the weight.
"""

from __future__ import annotations

from collections.abc import Callable

from onnx import NodeProto

from lwcore.analysis.labels import Labelling
from lwcore.analysis.rules import RULES, cut_vector, freeze_inputs, join, rule

MICROSOFT = "com.microsoft."


def _as(plain: str, *positions: int) -> Callable[[Labelling, int, NodeProto], None]:
    """The rule of `plain`, given the inputs at these positions."""

    def same(lab: Labelling, index: int, node: NodeProto) -> None:
        RULES[plain](lab, index, _plain(node, plain, positions))

    return same


def _plain(node: NodeProto, operator: str, positions: tuple[int, ...]) -> NodeProto:
    twin = NodeProto(op_type=operator, name=node.name, output=node.output, attribute=node.attribute)
    twin.input.extend(node.input[p] for p in positions if p < len(node.input))
    return twin


for _name, _operator, _positions in (
    ("QLinearAdd", "Add", (0, 3)),
    ("QLinearMul", "Mul", (0, 3)),
    ("QLinearWhere", "Where", (0, 1, 4)),
    ("QLinearSigmoid", "Sigmoid", (0,)),
    ("QLinearLeakyRelu", "LeakyRelu", (0,)),
    ("QLinearSoftmax", "Softmax", (0,)),
    ("QLinearReduceMean", "ReduceMean", (0,)),
    ("Gelu", "Gelu", (0,)),
    ("QuickGelu", "Gelu", (0,)),
    ("FastGelu", "Add", (0, 1)),
    ("BiasGelu", "Add", (0, 1)),
    ("FusedGemm", "Gemm", (0, 1, 2)),
):
    rule(MICROSOFT + _name)(_as(_operator, *_positions))


@rule("QLinearConv")
def _conv(lab: Labelling, index: int, node: NodeProto) -> None:
    _with_scales(lab, index, node, _plain(node, "Conv", (0, 3, 8)), channels=1)


@rule("QLinearMatMul")
def _matmul(lab: Labelling, index: int, node: NodeProto) -> None:
    _with_scales(lab, index, node, _plain(node, "MatMul", (0, 3)), channels=len(lab.shape(node.output[0])) - 1)


@rule(MICROSOFT + "QGemm")
def _gemm(lab: Labelling, index: int, node: NodeProto) -> None:
    _with_scales(lab, index, node, _plain(node, "Gemm", (0, 3, 6)), channels=1)


def _with_scales(lab: Labelling, index: int, node: NodeProto, plain: NodeProto, channels: int) -> None:
    """A product whose weight at input 3 has its scale and zero point at 4 and 5, perhaps one an output channel."""
    RULES[plain.op_type](lab, index, plain)
    made = lab.on(node.output[0], channels)
    if made is not None:
        for position in (4, 5):
            cut_vector(lab, node, position, made)


@rule(MICROSOFT + "QLinearConcat")
def _concat(lab: Labelling, index: int, node: NodeProto) -> None:
    RULES["Concat"](lab, index, _plain(node, "Concat", tuple(range(2, len(node.input), 3))))


@rule(MICROSOFT + "QLinearGlobalAveragePool", MICROSOFT + "QLinearAveragePool")
def _pool(lab: Labelling, index: int, node: NodeProto) -> None:
    if lab.option(node, "channels_last", 0):
        freeze_inputs(lab, node, "a pool with channels last", meant=False)
    else:
        RULES["GlobalAveragePool"](lab, index, _plain(node, "GlobalAveragePool", (0,)))


@rule(MICROSOFT + "FusedConv")
def _fused_conv(lab: Labelling, index: int, node: NodeProto) -> None:
    RULES["Conv"](lab, index, _plain(node, "Conv", (0, 1, 2)))
    made, rank = lab.on(node.output[0], 1), len(lab.shape(node.output[0]))
    if made is not None and len(node.input) > 3 and node.input[3]:  # a sum that the optimiser pulled in
        join(lab, node, node.input[3], 1, rank, made)


@rule(MICROSOFT + "MatMulNBits")
def _block_weights(lab: Labelling, index: int, node: NodeProto) -> None:
    freeze_inputs(lab, node, "its weights are stored in blocks that share a scale")
