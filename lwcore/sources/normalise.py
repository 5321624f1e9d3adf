"""Bring any ONNX file into the one form the rest of the library works on, without changing what it computes.

Constants become initializers, constant sub-graphs are folded, every node has a name of its own, and the file carries
the shape of every tensor. Shape arithmetic that only follows the batch size (what exporters write for
`x.view(x.size(0), -1)`) becomes a constant, so that a later cut has one number to rewrite instead of a chain of
operators.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from lwcore.errors import ModelError
from lwcore.graph import Graph, reads
from lwcore.runtime import session
from lwcore.settings import SETTINGS

_KEEP = frozenset({"If", "Loop", "Scan"})  # bodies see outer names; folding around them is not worth the care
_RANDOM = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
)


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
    if _freeze_shape_arithmetic(graph, _observe(graph)):
        notes.append("Shape arithmetic that only follows the batch size was replaced by constants.")
        graph.drop_unused()
    return graph.serialize(), tuple(notes)


def has_shapes(proto: onnx.ModelProto) -> bool:
    """True when every tensor's shape is already in the file, as `normalise` leaves it."""
    known = {i.name for i in proto.graph.value_info} | {o.name for o in proto.graph.output}
    return all(name in known for node in proto.graph.node for name in node.output if name)


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
        if node.op_type not in _KEEP | _RANDOM and all(n in known for n in names) and not _is_weight(node):
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
    if sum(array.nbytes for array in results) > SETTINGS.tensor_mb * 1_000_000:
        raise ModelError(
            f"Expected constants of at most {SETTINGS.tensor_mb} MB; this file's constant operators make "
            "more. Export the model with its weights stored in the file."
        )
    body.initializer.extend(numpy_helper.from_array(a, n) for a, n in zip(results, wanted, strict=True))
    kept = [_copy(node) for node in rest]
    del body.node[:]
    body.node.extend(kept)
    return len(part)


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


Observed = dict[str, tuple[np.ndarray, np.ndarray | None]]  # small integer tensors at batch 1 and at batch 2


def _observe(graph: Graph) -> Observed:
    """Run the graph once (twice where the batch is free), write down every shape, return the small integers."""
    declared = _input_shapes(graph)
    free = {name for name, dims in declared.items() if dims and dims[0] is None}
    one = _run_everything(graph, {n: tuple(1 if d is None else d for d in dims) for n, dims in declared.items()})
    two = None
    if free:
        two = _run_everything(graph, {n: (2, *one[n].shape[1:]) if n in free else one[n].shape for n in graph.inputs})
    for name, value in one.items():
        graph.shapes[name] = tuple(value.shape)
        graph.types[name] = helper.np_dtype_to_tensor_dtype(value.dtype)
        graph.free.pop(name, None)
        if two is not None and (axes := _differing(value.shape, two[name].shape)):
            graph.free[name] = axes
    return {n: (v, two[n] if two else None) for n, v in one.items() if v.dtype == np.int64 and v.size <= 64}


def _differing(one: tuple[int, ...], two: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axis for axis, (a, b) in enumerate(zip(one, two, strict=False)) if a != b)


def _input_shapes(graph: Graph) -> dict[str, list[int | None]]:
    shapes: dict[str, list[int | None]] = {}
    for info in graph.declared_inputs():
        dims = [
            d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None
            for d in info.type.tensor_type.shape.dim
        ]
        if any(d is None for d in dims[1:]):
            raise ModelError(
                f"Input {info.name!r}: expected fixed sizes behind the batch, found "
                f"{[d or '?' for d in dims]}. Export with a fixed input size, or name the size when uploading."
            )
        shapes[info.name] = dims
    return shapes


def _run_everything(graph: Graph, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Every tensor's value for one random input."""
    names = [n for node in graph.nodes for n in node.output if n]
    activations = sum(math.prod(s) for s in shapes.values()) * 4
    if activations > SETTINGS.tensor_mb * 1_000_000:
        raise ModelError(f"Expected an input of at most {SETTINGS.tensor_mb} MB, found {activations // 1_000_000} MB.")
    proto = graph.proto()
    listed = {o.name for o in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in listed)
    del proto.graph.value_info[:]
    runner = session(proto.SerializeToString(), optimise=False)
    rng = np.random.default_rng(0)
    feeds = {n: _sample(rng, s, graph.types.get(n) or _declared_type(graph, n)) for n, s in shapes.items()}
    try:
        values = runner.run(names, feeds)
    except Exception as error:
        raise ModelError(f"The model could not be run on an input of its declared size: {str(error)[:200]}") from None
    return {**feeds, **dict(zip(names, values, strict=True))}


def _declared_type(graph: Graph, name: str) -> int:
    return next(int(i.type.tensor_type.elem_type) for i in graph.declared_inputs() if i.name == name)


def _sample(rng: np.random.Generator, shape: tuple[int, ...], kind: int) -> np.ndarray:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    if np.issubdtype(dtype, np.floating):
        return rng.standard_normal(shape).astype(dtype)
    return np.zeros(shape, dtype)


def _freeze_shape_arithmetic(graph: Graph, observed: Observed) -> bool:
    """Replace computed shape tensors by constants: the batch becomes −1 (or stays out of it), the rest is fixed."""
    changed = False
    for index, node in enumerate(graph.nodes):
        for position, name in enumerate(node.input):
            if name in graph.constants or name not in observed:
                continue
            fixed = _fixed_shape(node.op_type, position, *observed[name])
            if fixed is not None:
                constant = graph.fresh(f"{node.name}.shape")
                graph.set_constant(constant, fixed)
                twin = _copy(node)
                twin.input[position] = constant
                graph.nodes[index] = node = twin
                changed = True
    return changed


def _fixed_shape(op: str, position: int, one: np.ndarray, two: np.ndarray | None) -> np.ndarray | None:
    if two is None or np.array_equal(one, two):
        return one
    varies = np.flatnonzero(one != two) if one.shape == two.shape else np.zeros(0)
    if op == "Reshape" and position == 1 and len(varies) == 1 and -1 not in one:
        return np.where(np.arange(one.size) == varies[0], -1, one).reshape(one.shape)
    return None
