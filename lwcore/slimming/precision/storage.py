"""Weight-only formats: integers in the file, floats in the sums. Smaller, and faster only where memory is slow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from lwcore.errors import SlimError
from lwcore.graph import Graph, attributes, with_input
from lwcore.model import Model
from lwcore.slimming.precision.prepare import BLOCK_OPSET, STATIC_OPSET, prepared, translating
from lwcore.sources.normalise import normalise

MICROSOFT = "com.microsoft"  # onnxruntime's own operators
BLOCK = 32  # weights that share a scale in four bits; the size that runtimes have kernels for
FEWEST = 64  # values a weight must have: below, the operator that widens it takes more bytes than it saves
SHRINKS = np.linspace(0.7, 1.0, 13)  # shares of the full range that are tried; at four bits, cutting off peaks pays
_LOWEST = 1e-12
_WEIGHTS: Mapping[str, int] = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": -1}  # axis of the output channels


def store_int8(model: Model) -> tuple[bytes, tuple[str, ...]]:
    """int8 a channel, widened by DequantizeLinear before each use."""
    graph, wide = Graph.of(prepared(model, STATIC_OPSET)), dict[str, str]()
    for index, node, axis in _weights(graph):
        weight = graph.constants[node.input[1]].astype(np.float64)
        over = tuple(a for a in range(weight.ndim) if a != axis)
        scale = (np.maximum(np.abs(weight).max(axis=over, keepdims=True), _LOWEST) / 127).astype(np.float32)
        _widen(graph, wide, index, np.round(weight / scale).astype(np.int8), scale.reshape(-1), axis=axis)
    return _finished(graph), (
        "Weights are stored in 8 bits and widened to float32 while the model runs: a smaller file, not a faster one.",
    )


def store_int4(model: Model) -> tuple[bytes, tuple[str, ...]]:
    """int4, one scale for 32 weights of a linear layer or for a channel of a convolution (operator set 21)."""
    graph, wide = Graph.of(prepared(model, BLOCK_OPSET)), dict[str, str]()
    kind = helper.tensor_dtype_to_np_dtype(TensorProto.INT4)
    for index, node, axis in _weights(graph):
        weight = graph.constants[node.input[1]].astype(np.float64)
        if node.op_type in ("Gemm", "MatMul") and weight.ndim == 2:
            integers, scale = _blocks(np.moveaxis(weight, axis, 0))
            parts = {"axis": 1 - axis, "block_size": BLOCK}
            rows = np.moveaxis(integers, 0, axis).astype(kind)
            _widen(graph, wide, index, rows, np.moveaxis(scale, 0, axis), **parts)
        else:
            rows = np.moveaxis(weight, axis, 0)
            scale = _best_scale(rows.reshape(len(rows), -1))
            integers = _nearest(rows.reshape(len(rows), -1), scale).reshape(rows.shape)
            _widen(graph, wide, index, np.moveaxis(integers, 0, axis).astype(kind), scale.reshape(-1), axis=axis)
    return _finished(graph), (
        "Weights are stored in 4 bits and widened to float32 while the model runs: an eighth of the weights' bytes, "
        "and more error than 8 bits.",
    )


def store_matmul(model: Model) -> tuple[bytes, tuple[str, ...]]:
    """Linear layers as MatMulNBits of onnxruntime: int4 in blocks of 32 that its kernel reads directly.

    Raises:
        SlimError: the model has no linear layer that the operator can take.
    """
    graph = Graph.of(model)
    nodes: list[NodeProto] = []
    for node in graph.nodes:
        nodes += _packed(graph, node) if is_linear(graph, node) else [node]
    if all(node.domain != MICROSOFT for node in nodes):
        raise SlimError(
            "Precision int4-matmul: expected linear layers (Gemm or MatMul with constant weights), found none. "
            "Choose int4-weights, which stores convolutions too."
        )
    graph.nodes = nodes
    graph.drop_unused()
    proto = graph.proto()
    if all(item.domain != MICROSOFT for item in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    with translating("int4-matmul"):
        data = normalise(proto)[0]
    return data, (
        "Linear layers use MatMulNBits, an operator of onnxruntime: the file runs there and nowhere else. "
        "Convolutions stay as they were.",
    )


def _weights(graph: Graph) -> Iterator[tuple[int, NodeProto, int]]:
    """Index, operator, and axis of the output channels of every weight worth storing in fewer bits."""
    for index, node in enumerate(list(graph.nodes)):
        weight = graph.constants.get(node.input[1]) if node.op_type in _WEIGHTS else None
        if weight is None or weight.dtype != np.float32 or weight.size < FEWEST or weight.ndim < 2:
            continue
        axis = 0 if node.op_type == "Gemm" and attributes(node).get("transB") else _WEIGHTS[node.op_type]
        yield index, node, axis % weight.ndim


def _widen(
    graph: Graph, wide: dict[str, str], index: int, integers: np.ndarray, scale: np.ndarray, **parts: Any
) -> None:
    """Let an operator read its weight through a DequantizeLinear; operators that share a weight share that too.

    Args:
        wide: weight → what widens it, of those done so far; added to.
    """
    node = graph.nodes[index]
    stem = node.input[1]
    if stem not in wide:
        stored, factor, result = (graph.fresh(f"{stem}.{part}") for part in ("int", "scale", "wide"))
        graph.set_constant(stored, integers)
        graph.set_constant(factor, scale.astype(np.float32))
        graph.shapes[result], graph.types[result] = tuple(integers.shape), TensorProto.FLOAT
        graph.nodes.append(helper.make_node("DequantizeLinear", [stored, factor], [result], name=result, **parts))
        wide[stem] = result
    graph.nodes[index] = with_input(node, 1, wide[stem])


def _finished(graph: Graph) -> bytes:
    """Bytes with the widening operators first, where everybody can read them."""
    first = [node for node in graph.nodes if node.op_type == "DequantizeLinear"]
    graph.nodes = first + [node for node in graph.nodes if node.op_type != "DequantizeLinear"]
    graph.drop_unused()
    with translating("weights"):
        return normalise(graph.proto())[0]


def _best_scale(rows: np.ndarray) -> np.ndarray:
    """The scale of each row, shape (rows, 1), that gives the smallest squared error in −8…7."""
    peak = np.take_along_axis(rows, np.abs(rows).argmax(axis=1, keepdims=True), axis=1)
    full = np.where(np.abs(peak) < _LOWEST, _LOWEST, peak / -8)  # the largest magnitude becomes −8, the extra step
    errors = np.stack([((_nearest(rows, full * s) * full * s - rows) ** 2).sum(axis=1) for s in SHRINKS])
    return np.asarray(full * SHRINKS[errors.argmin(axis=0)][:, None])


def _nearest(rows: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(np.round(rows / scale), -8, 7))


def _blocks(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integers (N, K) and scales (N, blocks) of a weight (N, K), its last block filled up with zeros meanwhile."""
    rows, columns = weight.shape
    count = -(-columns // BLOCK)
    padded = np.zeros((rows, count * BLOCK))
    padded[:, :columns] = weight
    blocks = padded.reshape(-1, BLOCK)
    scale = _best_scale(blocks)
    integers = _nearest(blocks, scale).reshape(rows, -1)[:, :columns]
    return integers, scale.reshape(rows, count)


def is_linear(graph: Graph, node: NodeProto) -> bool:
    """Whether MatMulNBits can take an operator's place."""
    weight = graph.constants.get(node.input[1]) if node.op_type in ("Gemm", "MatMul") else None
    if weight is None or weight.ndim != 2 or weight.dtype != np.float32 or weight.size < FEWEST:
        return False
    found = attributes(node)
    return not found.get("transA") and found.get("alpha", 1.0) == 1.0 and found.get("beta", 1.0) == 1.0


def _packed(graph: Graph, node: NodeProto) -> list[NodeProto]:
    weight = graph.constants[node.input[1]].astype(np.float64)
    rows = weight if attributes(node).get("transB") else weight.T
    integers, scale = _blocks(rows)
    padded = np.full((len(rows), scale.shape[1] * BLOCK), 8, np.uint8)
    padded[:, : rows.shape[1]] = integers + 8
    pairs = padded.reshape(len(rows), scale.shape[1], BLOCK // 2, 2)
    names = [graph.fresh(f"{node.name}.{part}") for part in ("int4", "scales")]
    graph.set_constant(names[0], pairs[..., 0] | pairs[..., 1] << 4)
    graph.set_constant(names[1], scale.reshape(-1).astype(np.float32))
    sizes = {"K": rows.shape[1], "N": rows.shape[0], "bits": 4, "block_size": BLOCK}
    bias = node.input[2] if len(node.input) > 2 else ""
    product = graph.fresh(f"{node.name}.product") if bias else node.output[0]
    product_node = helper.make_node(
        "MatMulNBits", [node.input[0], *names], [product], name=node.name, domain=MICROSOFT, **sizes
    )
    if not bias:
        return [product_node]
    graph.shapes[product], graph.types[product] = graph.shapes[node.output[0]], graph.types[node.output[0]]
    graph.free[product] = graph.free.get(node.output[0], {})
    return [product_node, helper.make_node("Add", [product, bias], node.output, name=f"{node.name}.bias")]
