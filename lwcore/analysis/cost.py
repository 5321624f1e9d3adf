"""What a model costs, counted on the graph: parameters, multiply–accumulates, bytes. No torch, a few milliseconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from onnx import NodeProto, TensorProto

from lwcore.graph import Graph, Shape, attributes, per_model, reads
from lwcore.model import Model

_HALF_BYTES = frozenset({TensorProto.INT4, TensorProto.UINT4})
_BYTES = frozenset({TensorProto.INT8, TensorProto.UINT8})  # positions are wider, so a table of bytes holds weights
FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16})

# Constant inputs that are settings of an operator (positions), not trained values.
_SETTINGS: Mapping[str, frozenset[int]] = {
    "BatchNormalization": frozenset({3, 4}),  # running statistics: buffers in every framework
    "Resize": frozenset({1, 2, 3}),
    "Upsample": frozenset({1}),
    "Clip": frozenset({1, 2}),
    "Pad": frozenset({2, 3}),
    "Dropout": frozenset({1, 2}),
    "Range": frozenset({0, 1, 2}),
    "OneHot": frozenset({1, 2}),
    "QuantizeLinear": frozenset({1, 2}),
    "DequantizeLinear": frozenset({1, 2}),
    "MatMulNBits": frozenset({2, 3}),
}
# Positions at which an integer constant is a weight that a quantizer stored with few bits.
_QUANTIZED: Mapping[str, frozenset[int]] = {
    "DequantizeLinear": frozenset({0}),
    "ConvInteger": frozenset({1}),
    "MatMulInteger": frozenset({1}),
    "QLinearConv": frozenset({3, 8}),
    "QLinearMatMul": frozenset({3}),
    "MatMulNBits": frozenset({1}),
}
# Operators whose one-element constants are trained values (a bias of one output), not scalars of an expression.
_TRAINED_SCALARS = frozenset(
    {
        "Conv",
        "ConvTranspose",
        "Gemm",
        "BatchNormalization",
        "PRelu",
        "DequantizeLinear",
        "InstanceNormalization",
        "LayerNormalization",
        "ConvInteger",
        "MatMulInteger",
    }
)


Product = Callable[[NodeProto, Mapping[str, Shape]], int]  # a node and shapes → multiply–accumulates


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Totals of a model: parameters, MACs for batch 1, bytes of all constants, bytes of the file."""

    params: int
    macs: int
    weight_bytes: int
    size_bytes: int

    def to_json(self) -> dict[str, int]:
        """Plain data."""
        return asdict(self)


@per_model(maxsize=24)
def cost(model: Model) -> Cost:
    """Count a model's parameters, MACs and bytes.

    Parameters are trained values: floating-point constants (or the integers a quantizer stored instead) except
    batch-norm running statistics and single scalars. MACs are those of convolutions and matrix products, for batch 1.
    """
    graph = Graph.view(model)
    shapes = graph.shapes
    return Cost(
        params=sum(values(graph).values()),
        macs=sum(macs(node, shapes) for node in graph.nodes),
        weight_bytes=sum(constant_bytes(graph, name) for name in graph.constants),
        size_bytes=model.size_bytes,
    )


def constant_bytes(graph: Graph, name: str) -> int:
    """Bytes of a constant in the file: two four-bit numbers share one."""
    array = graph.constants[name]
    return (array.size + 1) // 2 if graph.types[name] in _HALF_BYTES else array.nbytes


def values(graph: Graph) -> dict[str, int]:
    """How many trained values each constant holds, by name."""
    return {name: count for node in graph.nodes for name, count in node_values(graph, node).items()}


def node_values(graph: Graph, node: NodeProto) -> dict[str, int]:
    """How many trained values each constant of one node holds; MatMulNBits packs two into each byte."""
    found = {name: math.prod(graph.shapes[name]) for name in node_parameters(graph, node)}
    if node.op_type == "MatMulNBits" and node.input[1] in found:
        sizes = attributes(node)
        found[node.input[1]] = int(sizes["K"]) * int(sizes["N"])  # type: ignore[call-overload]
    return found


def parameters(graph: Graph) -> list[str]:
    """Names of the constants that hold trained values, in the order of first use, each once."""
    found: dict[str, None] = {}
    for node in graph.nodes:
        for name in node_parameters(graph, node):
            found[name] = None
    return list(found)


def node_parameters(graph: Graph, node: NodeProto) -> list[str]:
    """Names of the constants with trained values that this node reads."""
    return [
        name
        for position, name in enumerate(_read_in_order(node))
        if name in graph.constants and _is_trained(graph, node, position, name)
    ]


def _read_in_order(node: NodeProto) -> list[str]:
    listed = list(node.input)
    return listed + [name for name in reads(node) if name not in listed]


def _is_trained(graph: Graph, node: NodeProto, position: int, name: str) -> bool:
    if position in _QUANTIZED.get(node.op_type, ()) or (node.op_type == "Gather" and graph.types[name] in _BYTES):
        return True
    if graph.types[name] not in FLOATS or position in _SETTINGS.get(node.op_type, ()):
        return False
    return graph.constants[name].size > 1 or node.op_type in _TRAINED_SCALARS


def macs(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    """Multiply–accumulates of one operator; 0 for operators without a rule (element-wise work is not counted)."""
    return sum(product(node, shapes) for product in products(node))


def products(node: NodeProto) -> tuple[Product, ...]:
    """The products of sizes whose sum an operator's MACs are: two for a recurrent layer, one for any other."""
    return _MACS.get(node.op_type, ())


def _conv(weight: int) -> Product:
    def rule(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
        return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[weight]][1:])

    return rule


def _conv_transpose(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])


def _gemm(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    inner = shapes[node.input[0]][0 if attributes(node).get("transA") else 1]
    return math.prod(shapes[node.output[0]]) * inner


def _matmul(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _every_step(weight: int) -> Product:
    """A recurrent layer's product with one of its weights, at every step of every sample."""

    def rule(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
        return math.prod(shapes[node.input[0]][:2]) * math.prod(shapes[node.input[weight]])

    return rule


_RECURRENT = (_every_step(1), _every_step(2))
_MACS: Mapping[str, tuple[Product, ...]] = {
    "Conv": (_conv(1),),
    "ConvInteger": (_conv(1),),
    "QLinearConv": (_conv(3),),
    "ConvTranspose": (_conv_transpose,),
    "Gemm": (_gemm,),
    "MatMul": (_matmul,),
    "MatMulInteger": (_matmul,),
    "QLinearMatMul": (_matmul,),
    "MatMulNBits": (_matmul,),
    "LSTM": _RECURRENT,
    "GRU": _RECURRENT,
    "RNN": _RECURRENT,
}
