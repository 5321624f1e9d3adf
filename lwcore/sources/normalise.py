"""Bring any ONNX file into the one form the rest of the library works on, without changing what it computes.

Constants become initializers, constant sub-graphs are folded, every node has a name of its own, and the file carries
the shape of every tensor. Shape arithmetic that only follows the batch size (what exporters write for
`x.view(x.size(0), -1)`) becomes a constant, so that a later cut has one number to rewrite instead of a chain of
operators.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from lwcore.errors import ModelError
from lwcore.graph import CONVERSIONS, Graph, reads
from lwcore.runtime import session
from lwcore.settings import SETTINGS
from lwcore.sources.observe import BODIES, RANDOM, SEQUENCES, observe
from lwcore.sources.simplify import drop_zero_states, freeze_shape_arithmetic, plain_expands
from lwcore.sources.unroll import unroll


def normalise(proto: onnx.ModelProto) -> tuple[bytes, tuple[str, ...]]:
    """The normalised file and what was done to it, in plain words.

    Raises:
        ModelError: onnxruntime cannot load or run the graph, or it has no fixed input size to run at.
    """
    notes: list[str] = []
    proto = _plain(proto)
    folded = _fold_constants(proto)
    if folded:
        notes.append(f"{folded} constant operators were folded into weights.")
    _name_nodes(proto)
    graph = Graph(proto)
    graph.drop_unused()
    _drop_training_outputs(graph)
    straightened = unroll(graph)
    graph.drop_unused()
    observed = observe(graph)
    frozen = freeze_shape_arithmetic(graph, observed)
    if unroll(graph):  # branches whose condition followed from shapes
        straightened = True
        graph.drop_unused()
        observed = observe(graph)
        freeze_shape_arithmetic(graph, observed)
    if straightened:
        notes.append("Loops and branches that always run the same way were written out.")
    if frozen:
        notes.append("Shape arithmetic that only follows the batch size was replaced by constants.")
    graph = _folded_again(graph)
    plain_expands(graph, observed)
    drop_zero_states(graph)
    graph.drop_unused()
    return graph.serialize(), tuple(notes)


def has_shapes(proto: onnx.ModelProto) -> bool:
    """True when every tensor's shape is already in the file, as `normalise` leaves it."""
    known = {i.name for i in proto.graph.value_info} | {o.name for o in proto.graph.output}
    written = (node for node in proto.graph.node if node.op_type not in CONVERSIONS)
    return all(name in known for node in written for name in node.output if name)


def _plain(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose constants are all initializers, and whose inputs are only what a caller feeds."""
    twin = onnx.ModelProto()
    twin.CopyFrom(proto)
    del twin.metadata_props[:]
    body = twin.graph
    del body.value_info[:]
    del body.quantization_annotation[:]
    names = {t.name for t in body.initializer}
    inputs = [i for i in body.input if i.name not in names]
    del body.input[:]
    body.input.extend(inputs)
    nodes = []
    for node in body.node:
        value = _constant_value(node) if node.op_type == "Constant" else None
        if value is None:
            nodes.append(node)
        else:
            body.initializer.append(numpy_helper.from_array(value, node.output[0]))
    kept = [_copy(node) for node in nodes]
    del body.node[:]
    body.node.extend(kept)
    if twin.ir_version < 4:  # before 4, initializers had to be listed as inputs
        twin.ir_version = 4
    return twin


def _copy(node: NodeProto) -> NodeProto:
    twin = NodeProto()
    twin.CopyFrom(node)
    return twin


def _constant_value(node: NodeProto) -> np.ndarray | None:
    attribute = node.attribute[0] if node.attribute else None
    if attribute is None or attribute.name in ("sparse_value", "value_string", "value_strings"):
        return None
    value = helper.get_attribute_value(attribute)
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    kind = np.int64 if attribute.name.startswith("value_int") else np.float32
    return np.asarray(value, dtype=kind)


def _fold_constants(proto: onnx.ModelProto) -> int:
    """Run the part of the graph that no input reaches, once, and keep its results as initializers."""
    body = proto.graph
    constants = {t.name for t in body.initializer}
    known, part, rest = set(constants), [], []
    for node in body.node:
        names = list(reads(node))
        if node.op_type not in BODIES | RANDOM | SEQUENCES and all(n in known for n in names) and not _is_weight(node):
            part.append(node)
            known.update(node.output)
        else:
            rest.append(node)
    wanted = sorted(
        {n for node in rest for n in reads(node)} & (known - constants)
        | {o.name for o in body.output} & (known - constants)
    )
    if not part or not wanted:
        return 0
    results = _run_part(proto, part, wanted)
    # Weights that are only turned around make as much as the file already holds; what grows beyond that is limited.
    if sum(array.nbytes for array in results) > SETTINGS.tensor_mb * 1_000_000 + proto.ByteSize():
        raise ModelError(
            f"Expected at most {SETTINGS.tensor_mb} MB of constants beside what the file holds; this file's constant "
            "operators make more. Export the model with its weights stored in the file."
        )
    body.initializer.extend(numpy_helper.from_array(a, n) for a, n in zip(results, wanted, strict=True))
    kept = [_copy(node) for node in rest]
    del body.node[:]
    body.node.extend(kept)
    return len(part)


def _folded_again(graph: Graph) -> Graph:
    """What was made of frozen shapes is constant now: tables of positions, coordinates."""
    ready = (n for n in graph.nodes if n.input and n.op_type not in BODIES | RANDOM | SEQUENCES and not _is_weight(n))
    if not any(all(name in graph.constants for name in reads(node)) for node in ready):
        return graph
    proto = graph.proto()
    _fold_constants(proto)
    return Graph(proto)


def _is_weight(node: NodeProto) -> bool:
    """Quantized weights stay quantized: folding DequantizeLinear would undo the saving."""
    return node.op_type == "DequantizeLinear"


def _run_part(proto: onnx.ModelProto, part: list[NodeProto], wanted: list[str]) -> list[np.ndarray]:
    names = {n for node in part for n in reads(node)}
    tensors = [t for t in proto.graph.initializer if t.name in names]
    outputs = [onnx.ValueInfoProto(name=name) for name in wanted]
    piece = onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import, functions=proto.functions)
    piece.graph.CopyFrom(helper.make_graph(part, "constants", [], outputs, tensors))
    runner = session(piece.SerializeToString(), threads=1, optimise=False)
    try:
        return list(runner.run(wanted, {}))
    except Exception as error:
        raise ModelError(f"The constant operators of this file could not be run: {str(error)[:200]}") from None


def _name_nodes(proto: onnx.ModelProto) -> None:
    """Give every node a name of its own: its own if unique, else one made from its output."""
    taken: set[str] = set()
    for node in proto.graph.node:
        stem = node.name or f"{node.op_type}_{next((o for o in node.output if o), 'out')}"
        name, n = stem, 1
        while name in taken:
            n += 1
            name = f"{stem}#{n}"
        taken.add(name)
        node.name = name


def _drop_training_outputs(graph: Graph) -> None:
    """Running statistics and masks are of use in training only; left in, their shapes would have to follow cuts."""
    used = {name for node in graph.nodes for name in reads(node)} | set(graph.outputs)
    for index, node in enumerate(graph.nodes):
        if node.op_type in ("BatchNormalization", "Dropout") and not used.intersection(node.output[1:]):
            graph.nodes[index] = twin = _copy(node)
            del twin.output[1:]
