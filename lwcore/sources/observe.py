"""Watch a graph run: every tensor's shape, and the values of shape arithmetic.

A graph is run once at batch 1 and, where its batch is free, once at batch 2; what differs follows the batch. Where the
length of a sequence is free it is run once more, one token shorter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lwcore.errors import ModelError
from lwcore.graph import BATCH, SEQUENCE, Graph, Shape, reads
from lwcore.runtime import session
from lwcore.settings import SETTINGS

BODIES = frozenset({"If", "Loop", "Scan"})  # bodies see outer names; folding around them is not worth the care
RANDOM = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
SEQUENCES = frozenset(
    {"SequenceEmpty", "SequenceConstruct", "SequenceInsert", "SequenceErase", "SequenceAt", "SplitToSequence"}
)  # their results have no shape of their own, so they cannot become constants


@dataclass(frozen=True)
class Observed:
    """One tensor as it came out at batch 1, at batch 2 (the same where the batch is fixed) and at another length.

    Attributes:
        shapes: of the tensor, one a run.
        values: of a small tensor of integers or truth values that follows from shapes alone; None of any other.
    """

    shapes: tuple[Shape, ...]
    values: tuple[np.ndarray, ...] | None


def observe(graph: Graph) -> dict[str, Observed]:
    """Run the graph once for every size that may be free, and once before, and write down every shape."""
    declared = _input_shapes(graph)
    watch = _Watch(graph)
    one = watch.run({n: tuple(size for size, _ in dims) for n, dims in declared.items()})
    others = {}
    for what, changed in ((BATCH, 2), (SEQUENCE, -1)):
        if any(follows == what for dims in declared.values() for _, follows in dims):
            others[what] = watch.run({n: _resized(dims, what, changed) for n, dims in declared.items()})
    runs = [one, others.get(BATCH, one), *(others[what] for what in others if what != BATCH)]
    seen = {}
    for name, run in one.items():
        graph.shapes[name], graph.types[name] = run.shape, watch.types[name]
        graph.free.pop(name, None)
        follows: dict[int, str] = {}
        for what, other in others.items():
            for axis in differing(run.shape, other[name].shape):
                follows[axis] = f"{follows[axis]}.{what}" if axis in follows else what
        if follows:
            graph.free[name] = follows
        values = tuple(r[name].value for r in runs)
        known = None if any(value is None for value in values) else tuple(v for v in values if v is not None)
        seen[name] = Observed(tuple(r[name].shape for r in runs), known)
    return seen


def _resized(dims: list[tuple[int, str]], what: str, changed: int) -> Shape:
    """An input's shape with another batch (2), or one token less (−1)."""
    return tuple((changed if changed > 0 else size + changed) if follows == what else size for size, follows in dims)


def _shape_arithmetic(graph: Graph) -> set[str]:
    """Tensors that follow from shapes and constants alone; whatever else is an integer depends on the data."""
    found: set[str] = set()
    for node in graph.nodes:
        follows = all(name in found or name in graph.constants for name in reads(node))
        if node.op_type in ("Shape", "Size") or (follows and node.op_type not in BODIES | RANDOM | SEQUENCES):
            found.update(node.output)
    return found


def differing(one: Shape, two: Shape) -> tuple[int, ...]:
    """Axes along which two shapes differ."""
    return tuple(axis for axis, (a, b) in enumerate(zip(one, two, strict=False)) if a != b)


def _input_shapes(graph: Graph) -> dict[str, list[tuple[int, str]]]:
    """Sizes of every input, and what each follows: nothing, the free batch, or the free sequence."""
    shapes: dict[str, list[tuple[int, str]]] = {}
    for info in graph.declared_inputs():
        dims: list[tuple[int, str]] = []
        for axis, dim in enumerate(info.type.tensor_type.shape.dim):
            length = _named_length(dim.dim_param)
            if dim.HasField("dim_value") and dim.dim_value > 0:
                dims.append((dim.dim_value, ""))
            elif length is not None:
                dims.append((length, SEQUENCE))
            elif axis == 0:
                dims.append((1, BATCH))
            else:
                found = [d.dim_value or "?" for d in info.type.tensor_type.shape.dim]
                raise ModelError(
                    f"Input {info.name!r}: expected fixed sizes behind the batch, found {found}. Export with a fixed "
                    "input size, or name the size when uploading."
                )
        shapes[info.name] = dims
    return shapes


def _named_length(text: str) -> int | None:
    """128 of `sequence=128`; at least 2, so that one token less is some."""
    stem, _, size = str(text).partition("=")
    return int(size) if stem == SEQUENCE and size.isdecimal() and int(size) > 1 else None


@dataclass(frozen=True)
class _Run:
    """What one run showed of a tensor; values are kept of shape arithmetic only."""

    shape: Shape
    value: np.ndarray | None


class _Watch:
    """A graph that tells the shape of every tensor; sequences and maps, which have none, are left out.

    Only shapes leave the session, not the activations: those of a video network would fill the memory.

    Attributes:
        types: `onnx.TensorProto` element type of every tensor.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        made = [n for node in graph.nodes for n in node.output if n]
        self.types = {n: graph.types.get(n) or _declared_type(graph, n) for n in graph.inputs} | _types(graph, made)
        follows = _shape_arithmetic(graph)
        self._values = [n for n in made if n in follows and self.types.get(n) in (TensorProto.INT64, TensorProto.BOOL)]
        self._names = [n for n in made if n in self.types]
        proto = _with_outputs(graph, [*(n + _HEAD for n in self._values), *(n + _SHAPE for n in self._names)])
        self._look_at(proto.graph)
        self._runner = session(proto.SerializeToString(), optimise=False, frugal=True)

    def _look_at(self, body: onnx.GraphProto) -> None:
        """Read shape and first numbers of a tensor right after it is made, so that it need not be kept."""
        nodes, values, names = list(body.node), set(self._values), set(self._names)
        tensors = {_HEAD: [0], f"{_HEAD}.end": [SMALL + 1], f"{_HEAD}.flat": [-1]}
        body.initializer.extend(numpy_helper.from_array(np.array(v, np.int64), n) for n, v in tensors.items())
        del body.node[:]
        for node in nodes:
            body.node.append(node)
            for name in names.intersection(node.output):
                body.node.append(helper.make_node("Shape", [name], [name + _SHAPE]))
            for name in values.intersection(node.output):
                flat = f"{name}{_HEAD}.flat"
                body.node.append(helper.make_node("Reshape", [name, f"{_HEAD}.flat"], [flat]))
                if self._graph.opset < 10:
                    body.node.append(helper.make_node("Slice", [flat], [name + _HEAD], starts=[0], ends=[SMALL + 1]))
                else:
                    body.node.append(helper.make_node("Slice", [flat, _HEAD, f"{_HEAD}.end"], [name + _HEAD]))

    def run(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, _Run]:
        """Every tensor for one random input of these shapes."""
        size = sum(math.prod(s) for s in shapes.values()) * 4
        if size > SETTINGS.tensor_mb * 1_000_000:
            raise ModelError(f"Expected an input of at most {SETTINGS.tensor_mb} MB, found {size // 1_000_000} MB.")
        rng = np.random.default_rng(0)
        feeds = {n: _sample(rng, s, self.types[n]) for n, s in shapes.items()}
        names = [*(n + _HEAD for n in self._values), *(n + _SHAPE for n in self._names)]
        try:
            found = dict(zip(names, self._runner.run(names, feeds), strict=True))
        except Exception as error:
            raise ModelError(
                f"The model could not be run on an input of its declared size: {str(error)[:200]}"
            ) from None
        made = {n: tuple(found[n + _SHAPE].tolist()) for n in self._names}
        known = {n: found[n + _HEAD].reshape(made[n]) for n in self._values if found[n + _HEAD].size <= SMALL}
        runs = {n: _Run(shape, known.get(n)) for n, shape in made.items()}
        return {n: _Run(tuple(s), None) for n, s in shapes.items()} | runs


_SHAPE = "//shape"  # added to a tensor's name
_HEAD = ".its head"
SMALL = 64  # numbers of a tensor that may be shape arithmetic


def _with_outputs(graph: Graph, names: list[str]) -> onnx.ModelProto:
    proto = graph.proto()
    del proto.graph.value_info[:]
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names)
    return proto


def _types(graph: Graph, names: list[str]) -> dict[str, int]:
    """Element type of every tensor, as onnxruntime infers it: nothing is run."""
    runner = session(_with_outputs(graph, names).SerializeToString(), optimise=False)
    told = {o.name: o.type for o in runner.get_outputs()}
    return {
        name: TensorProto.DataType.Value(kind[len("tensor(") : -1].upper())
        for name, kind in told.items()
        if kind.startswith("tensor(")
    }


def _declared_type(graph: Graph, name: str) -> int:
    return next(int(i.type.tensor_type.elem_type) for i in graph.declared_inputs() if i.name == name)


def _sample(rng: np.random.Generator, shape: tuple[int, ...], kind: int) -> np.ndarray:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    if np.issubdtype(dtype, np.floating):
        return rng.standard_normal(shape).astype(dtype)
    return np.zeros(shape, dtype)
