"""The same function in the form that int8 needs: new enough operators, batch norms folded, means as global pools."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
from onnx import NodeProto, helper

from lwcore.errors import LwcoreError, SlimError
from lwcore.graph import Graph, attributes, with_input
from lwcore.model import Model
from lwcore.slimming.precision.fold import fold_batch_norms, foldable
from lwcore.sources.normalise import normalise

DYNAMIC_OPSET = 11  # the first with DynamicQuantizeLinear
STATIC_OPSET = 13  # the first whose DequantizeLinear has one scale a channel
BLOCK_OPSET = 21  # the first whose DequantizeLinear takes four bits and one scale a block


def prepared(model: Model, opset: int) -> Model:
    """The model with operators of at least `opset`, and its batch norms folded into the convolutions before them.

    Raises:
        SlimError: the operators cannot be translated.
    """
    if Graph.view(model).opset < opset:
        with translating("preparing"):
            newer = onnx.version_converter.convert_version(model.proto, opset)
            newer.ir_version = max(newer.ir_version, helper.OP_SET_ID_VERSION_MAP["ai.onnx", opset])
            model = dataclasses.replace(model, data=normalise(newer)[0])
    graph = Graph.view(model)
    changed = fold_batch_norms(graph) if foldable(graph) else graph.copy()
    plain_biases(changed)
    return dataclasses.replace(model, data=changed.serialize())


def pooled(model: Model) -> Model:
    """The model with every mean over the picture as GlobalAveragePool, which has an int8 form; ReduceMean has none."""
    graph = Graph.of(model)
    graph.nodes = [twin for node in graph.nodes for twin in _as_pool(graph, node)]
    graph.drop_unused()
    return dataclasses.replace(model, data=graph.serialize())


def plain_biases(graph: Graph) -> None:
    """Write the biases of Gemm that are stored as (1, n) or as one number as the (n,) that converters expect."""
    for index, node in enumerate(graph.nodes):
        if node.op_type != "Gemm" or len(node.input) < 3 or node.input[2] not in graph.constants:
            continue
        bias, width = graph.constants[node.input[2]], graph.shapes[node.output[0]][1]
        if bias.size == width and bias.ndim != 1:
            name = graph.fresh(f"{node.name}.bias")
            graph.set_constant(name, bias.reshape(width))
            graph.nodes[index] = with_input(node, 2, name)
    graph.drop_unused()


def _as_pool(graph: Graph, node: NodeProto) -> list[NodeProto]:
    shape = graph.shapes.get(node.input[0], ()) if node.op_type == "ReduceMean" else ()
    space = set(range(2, len(shape)))
    if len(shape) not in (4, 5) or _axes(graph, node) != space or attributes(node).get("noop_with_empty_axes"):
        return [node]
    if attributes(node).get("keepdims", 1):
        return [helper.make_node("GlobalAveragePool", node.input[:1], node.output, name=node.name)]
    whole = graph.fresh(f"{node.output[0]}.pool")
    graph.shapes[whole], graph.types[whole] = (*shape[:2], *(1 for _ in space)), graph.types[node.output[0]]
    graph.free[whole] = graph.free.get(node.output[0], {})
    return [
        helper.make_node("GlobalAveragePool", node.input[:1], [whole], name=f"{node.name}.pool"),
        helper.make_node("Flatten", [whole], node.output, name=node.name),
    ]


def _axes(graph: Graph, node: NodeProto) -> set[int]:
    listed = attributes(node).get("axes", ())
    if len(node.input) > 1 and node.input[1] in graph.constants:
        listed = graph.constants[node.input[1]].tolist()
    rank = len(graph.shape(node.input[0]))
    return {int(axis) % rank for axis in listed}  # type: ignore[attr-defined]


@contextmanager
def translating(what: str) -> Iterator[None]:
    """Quiet the foreign tools' advice to developers, and turn whatever they raise into one sentence."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    except SlimError:
        raise
    except LwcoreError as error:
        raise SlimError(f"Precision {what}: {error}") from None
    except Exception as error:  # a foreign tool raises whatever it likes
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SlimError(
            f"Precision {what}: expected a model that onnxruntime's tools can convert; they refused this "
            f"one ({text[:200]}). Choose another precision, or none."
        ) from None
    finally:
        root.setLevel(level)
