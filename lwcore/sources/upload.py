"""`read_upload`: a stranger's bytes → a normalised `Model`, or one sentence that says what is wrong with them.

Everything is checked on the parsed description before anything is evaluated: the kind of file, its size, its nodes
(those of inner graphs too), where its data lies, whose operators it uses, and how large its constants would grow. Run
it in a worker (the task `ingest`): memory faults in a parser are the one thing that no check here can rule out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, defs

from lwcore.errors import LwcoreError, ModelError
from lwcore.model import Model
from lwcore.settings import SETTINGS
from lwcore.sources.functions import inline
from lwcore.sources.growth import check_growth
from lwcore.sources.guess import guess_card
from lwcore.sources.inputs import Tokens, check_inputs, settle_sizes
from lwcore.sources.kinds import foreign_kind
from lwcore.sources.normalise import normalise

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
OLDEST_OPSET = 7  # before 7, broadcasting and batch normalisation meant something else


def read_upload(data: bytes, name: str, size: tuple[int, int] | None = None, tokens: Tokens | None = None) -> Model:
    """Read an ONNX file that came from anywhere.

    Args:
        data: the file.
        name: its name; for display only, the content decides what it is.
        size: input height and width, for a file that leaves them open.
        tokens: of a text, for a file that reads token ids and came with its tokenizer.

    Returns:
        The normalised model with a guessed card; its notes say what was done and guessed.

    Raises:
        ModelError: what was expected, what was found, what to do.
    """
    if len(data) > SETTINGS.upload_mb * 1_000_000:
        raise ModelError(f"Expected a file of at most {SETTINGS.upload_mb} MB, found {len(data) // 1_000_000} MB.")
    kind = foreign_kind(data)
    if kind is not None:
        raise ModelError(f"Expected an ONNX file, found {kind.name}. {kind.advice}.")
    proto = inline(_parse(data))
    _check_operators(proto)
    _check_data_inside(proto)
    notes = _drop_metadata(proto)
    check_inputs(proto)
    notes += settle_sizes(proto, size, tokens)
    check_growth(proto)
    try:
        normal, said = normalise(proto)
    except LwcoreError:
        raise
    except Exception as error:  # what a damaged file makes foreign code raise cannot be listed
        raise ModelError(
            f"Expected a whole ONNX file, found one that is damaged inside ({type(error).__name__}). Export it again."
        ) from None
    card, guessed = guess_card(normal, PurePath(name.replace("\\", "/")).stem[:80] or "model", tokens)
    return Model(data=normal, card=card, notes=(*notes, *said, *guessed))


def _parse(data: bytes) -> onnx.ModelProto:
    try:
        proto = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, RuntimeError):
        raise ModelError(
            "Expected an ONNX file, found bytes that cannot be read as one: a damaged or cut-off file, or "
            "another format. Export or download it again."
        ) from None
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise ModelError("Expected an ONNX file with a network in it, found none. Export the model again.")
    return proto


def walk(graph: GraphProto) -> Iterator[NodeProto]:
    """Every node of a graph and of the graphs inside its nodes (If, Loop, Scan)."""
    graphs = [graph]
    while graphs:
        for node in graphs.pop().node:
            yield node
            for attribute in node.attribute:
                graphs.extend(inner(attribute))


def inner(attribute: AttributeProto) -> list[GraphProto]:
    """The graphs an attribute holds."""
    return [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]


def _tensors(proto: onnx.ModelProto) -> Iterator[TensorProto]:
    def of(graph: GraphProto) -> Iterator[TensorProto]:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)

    yield from of(proto.graph)
    for node in walk(proto.graph):
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
            for graph in inner(attribute):
                yield from of(graph)


def _check_operators(proto: onnx.ModelProto) -> None:
    for count, _ in enumerate(walk(proto.graph), start=1):
        if count > SETTINGS.nodes:
            raise ModelError(f"Expected at most {SETTINGS.nodes:,} operators, found more. Export a smaller model.")
    for node in walk(proto.graph):
        if node.domain not in DOMAINS:
            raise ModelError(
                f"Expected standard ONNX operators, found {node.op_type[:60]!r} of the "
                f"domain {node.domain[:60]!r}. Export the model without custom operators."
            )
    version = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), None)
    newest = defs.onnx_opset_version()
    if version is None or not OLDEST_OPSET <= version <= newest:
        raise ModelError(
            f"Expected operator set {OLDEST_OPSET}–{newest}, found {version or 'none'}. Export with opset "
            "17, or convert the file with onnx.version_converter."
        )


def _check_data_inside(proto: onnx.ModelProto) -> None:
    for tensor in _tensors(proto):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise ModelError(
                "Expected a file with its weights inside, found one that points to another file. Save "
                'it as one file: onnx.save(onnx.load("model.onnx"), "whole.onnx").'
            )
    if any(node.op_type == "EPContext" for node in walk(proto.graph)):
        raise ModelError("Expected a portable model, found one compiled for one device. Bring the original .onnx.")


def _drop_metadata(proto: onnx.ModelProto) -> list[str]:
    had = [p.key for p in proto.metadata_props]
    del proto.metadata_props[:]
    if "ORT_config" in had:
        return ["Settings for onnxruntime that were stored in the file were dropped."]
    return []
