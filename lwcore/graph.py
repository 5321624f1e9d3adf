"""`Graph`: the editable form of a model, with its constants as numpy arrays and every tensor's shape at batch 1."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, wraps
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, helper, numpy_helper

from lwcore.errors import ModelError
from lwcore.model import Model

Shape = tuple[int, ...]
T = TypeVar("T")
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")  # their results' shapes follow from their inputs'
BATCH = "batch"  # name of the free dimension in the files we write
_RAW: dict[int, np.dtype[Any]] = {
    helper.np_dtype_to_tensor_dtype(np.dtype(word)): np.dtype(word)
    for word in ("<f4", "<f2", "<f8", "<i8", "<i4", "i1", "u1", "?")
}  # element types whose values a file holds as they lie in memory
SEQUENCE = "sequence"  # and of a text's length: `sequence=128` is free, and 128 wherever a size is needed


def per_model(maxsize: int = 16) -> Callable[[Callable[[Model], T]], Callable[[Model], T]]:
    """Remember a pure function of a model by the model's fingerprint, least recently used out first."""

    def decorate(function: Callable[[Model], T]) -> Callable[[Model], T]:
        known: OrderedDict[str, T] = OrderedDict()
        lock = threading.Lock()  # pages are drawn by several threads; never held while the function works

        @wraps(function)
        def remembered(model: Model) -> T:
            key = model.fingerprint
            with lock:
                if key in known:
                    known.move_to_end(key)
                    return known[key]
            found = function(model)
            with lock:
                found = known.setdefault(key, found)
                while len(known) > maxsize:
                    known.popitem(last=False)
            return found

        return remembered

    return decorate


class Graph:
    """Nodes in topological order, constants by name, shapes and element types by tensor name.

    Attributes:
        nodes: the graph's operators; replace a node rather than change one that another graph may share.
        constants: initializers as arrays.
        shapes: concrete shape of every tensor, constants included, with the batch dimension as 1 where it is free, and
            the sequence's as the length named in the file.
        types: `onnx.TensorProto` element type of every tensor that has a shape.
        free: tensor → axis → what its size follows: the free batch (attention code moves it from the first place), the
            free sequence, or both.
        inputs, outputs: names.
        opset: version of the default operator set.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._frame = _without_body(proto)
        self.nodes: list[NodeProto] = list(proto.graph.node)
        self.constants: dict[str, np.ndarray] = {t.name: _values(t) for t in proto.graph.initializer}
        self.inputs = [i.name for i in proto.graph.input if i.name not in self.constants]
        self.outputs = [o.name for o in proto.graph.output]
        self.opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 1)
        self.shapes: dict[str, Shape] = {name: tuple(a.shape) for name, a in self.constants.items()}
        self.types: dict[str, int] = {t.name: t.data_type for t in proto.graph.initializer}
        self.free: dict[str, Mapping[int, str]] = {}
        for info in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
            self._read_info(info)
        self._follow_conversions()

    @classmethod
    def of(cls, model: Model) -> Graph:
        """An own, editable copy; parsing is remembered, so this costs little."""
        return _parsed(model).copy()

    @staticmethod
    def view(model: Model) -> Graph:
        """The shared parsed graph: for reading only."""
        return _parsed(model)

    def copy(self) -> Graph:
        """A copy that can be edited without touching this one (arrays and nodes are shared until replaced)."""
        twin = copy.copy(self)
        twin.nodes = list(self.nodes)
        twin.constants, twin.shapes, twin.types = dict(self.constants), dict(self.shapes), dict(self.types)
        twin.free = dict(self.free)
        return twin

    def _read_info(self, info: onnx.ValueInfoProto) -> None:
        if not info.type.HasField("tensor_type") or info.name in self.constants:
            return
        found = _declared(info.type.SerializeToString())
        if found is not None:
            self.types[info.name], self.shapes[info.name], free = found
            if free:
                self.free[info.name] = free

    def _follow_conversions(self) -> None:
        """Integers and what they stand for have the shape of what they are made from, so files need not say it."""
        for node in self.nodes:
            if node.op_type not in CONVERSIONS or len(node.input) < 2 or not node.output:
                continue
            if node.output[0] in self.shapes or node.input[0] not in self.shapes:
                continue
            self.shapes[node.output[0]] = self.shapes[node.input[0]]
            if node.op_type == "DequantizeLinear":
                self.types[node.output[0]] = self.types.get(node.input[1], onnx.TensorProto.FLOAT)
            else:
                zero = node.input[2] if len(node.input) > 2 else ""
                self.types[node.output[0]] = self.types.get(zero, onnx.TensorProto.UINT8)
            if node.input[0] in self.free:
                self.free[node.output[0]] = self.free[node.input[0]]

    # -- reading -------------------------------------------------------------------------------------------------

    def shape(self, name: str) -> Shape:
        """Concrete shape of a tensor; raises `ModelError` when it is unknown."""
        try:
            return self.shapes[name]
        except KeyError:
            raise ModelError(
                f"The shape of tensor {name!r} is not known; load the model with lwcore.load first."
            ) from None

    def declared_inputs(self) -> list[onnx.ValueInfoProto]:
        """The inputs as the file declares them, free dimensions included."""
        return list(self._frame.graph.input)

    def consumers(self) -> dict[str, list[int]]:
        """Tensor name → indexes of the nodes that read it (bodies of If and Loop included)."""
        table: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for name in dict.fromkeys(reads(node)):
                table.setdefault(name, []).append(index)
        return table

    def producers(self) -> dict[str, int]:
        """Tensor name → index of the node that writes it."""
        return {name: index for index, node in enumerate(self.nodes) for name in node.output if name}

    # -- writing -------------------------------------------------------------------------------------------------

    def fresh(self, stem: str) -> str:
        """A tensor name that is not yet taken."""
        name, n = stem, 0
        while name in self.shapes or name in self.constants:
            n += 1
            name = f"{stem}_{n}"
        return name

    def set_constant(self, name: str, array: np.ndarray) -> None:
        """Add or replace an initializer."""
        self.constants[name] = np.asarray(array, order="C")  # `ascontiguousarray` would give scalars an axis
        self.shapes[name] = tuple(array.shape)
        self.types[name] = helper.np_dtype_to_tensor_dtype(array.dtype)

    def drop_unused(self) -> None:
        """Remove nodes whose results nobody reads, and constants nobody reads."""
        needed = set(self.outputs)
        kept: list[NodeProto] = []
        for node in reversed(self.nodes):
            if any(name in needed for name in node.output if name):
                kept.append(node)
                needed.update(reads(node))
        self.nodes = kept[::-1]
        self.constants = {name: array for name, array in self.constants.items() if name in needed}

    def proto(self) -> onnx.ModelProto:
        """The graph as an ONNX model, inner shapes included."""
        model = onnx.ModelProto()
        model.CopyFrom(self._frame)
        body = model.graph
        body.node.extend(self.nodes)
        for name, array in self.constants.items():
            self._write_constant(name, array, body.initializer.add())
        for name in self._inner():
            self._describe(name, body.value_info.add())
        for info in body.output:
            if info.name in self.shapes:  # files may leave the shape of their outputs open
                name = info.name
                info.Clear()
                self._describe(name, info)
        return model

    def serialize(self) -> bytes:
        """Deterministic bytes of the graph."""
        return bytes(self.proto().SerializeToString(deterministic=True))

    def _write_constant(self, name: str, array: np.ndarray, tensor: onnx.TensorProto) -> None:
        kind = self.types.get(name)
        if kind in _RAW and array.dtype == _RAW[kind]:
            tensor.name, tensor.data_type, tensor.raw_data = name, kind, array.tobytes()
            tensor.dims.extend(array.shape)
            return
        tensor.CopyFrom(numpy_helper.from_array(array, name))
        if kind is not None and tensor.data_type != kind:
            raise ModelError(f"Constant {name!r} changed its element type from {kind} to {tensor.data_type}.")

    def _inner(self) -> Iterator[str]:
        """Tensors whose shapes the file says beside those of its inputs and outputs."""
        outside = {*self.inputs, *self.outputs}
        for node in self.nodes:
            for name in node.output if node.op_type not in CONVERSIONS else ():
                if name and name in self.shapes and name not in outside:
                    yield name

    def value_info(self, name: str) -> onnx.ValueInfoProto:
        """Type and shape of a tensor, batch and sequence symbolic where they are free."""
        info = onnx.ValueInfoProto()
        self._describe(name, info)
        return info

    def _describe(self, name: str, info: onnx.ValueInfoProto) -> None:
        dims: list[int | str] = list(self.shapes[name])
        for axis, follows in self.free.get(name, {}).items():
            if follows != BATCH:
                dims[axis] = f"{follows}={dims[axis]}"
            else:
                dims[axis] = BATCH if dims[axis] == 1 else f"{BATCH}*{dims[axis]}"
        info.name = name
        info.type.CopyFrom(_tensor_type(self.types[name], tuple(dims)))

    def subgraph(self, indexes: Iterable[int], inputs: Iterable[str], outputs: Iterable[str]) -> bytes:
        """Serialized model of some of the nodes, reading `inputs` and giving `outputs`; constants come along."""
        nodes = [self.nodes[i] for i in indexes]
        names = {name for node in nodes for name in reads(node)}
        tensors = [numpy_helper.from_array(self.constants[n], n) for n in sorted(names) if n in self.constants]
        body = helper.make_graph(
            nodes, "part", [self._loose_info(n) for n in inputs], [self._loose_info(n) for n in outputs], tensors
        )
        model = onnx.ModelProto()
        model.CopyFrom(self._frame)
        model.graph.CopyFrom(body)
        return bytes(model.SerializeToString(deterministic=True))

    def _loose_info(self, name: str) -> onnx.ValueInfoProto:
        rank = len(self.shape(name))
        return helper.make_tensor_value_info(name, self.types[name], [None] * rank)


def written(model: Model, graph: Graph) -> Model:
    """The model with another graph, written to bytes once for all who run, check and measure it."""
    proto = graph.proto()
    slim = dataclasses.replace(model, data=bytes(proto.SerializeToString(deterministic=True)))
    vars(slim)["proto"] = proto  # what parsing the bytes would give: a tenth of a second for a large file
    return slim


@lru_cache(maxsize=4096)
def _tensor_type(kind: int, dims: tuple[int | str, ...]) -> onnx.TypeProto:
    """Shared, because few shapes occur many times and building one takes longer than all else that is written of it."""
    return helper.make_tensor_type_proto(kind, dims)


@lru_cache(maxsize=4096)
def _declared(data: bytes) -> tuple[int, Shape, Mapping[int, str]] | None:
    """Element type, shape and free axes of a serialized tensor type; None where a size is not known."""
    tensor = onnx.TypeProto.FromString(data).tensor_type
    dims = [_size(dim, axis) for axis, dim in enumerate(tensor.shape.dim)]
    if not tensor.HasField("shape") or None in dims:
        return None
    free = {axis: _followed(dim) for axis, dim in enumerate(tensor.shape.dim) if not dim.HasField("dim_value")}
    return tensor.elem_type, tuple(int(d) for d in dims if d is not None), MappingProxyType(free)


def _size(dim: onnx.TensorShapeProto.Dimension, axis: int) -> int | None:
    """Size of a dimension at batch 1: `batch` is 1, `batch*12` is 12, `sequence=128` is 128, and any open first
    dimension is the batch."""
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    text = str(dim.dim_param)  # protobuf gives bytes where a damaged file is no UTF-8
    followed, _, size = text.partition("=")
    if SEQUENCE in followed.split("."):
        return int(size) if size.isdecimal() else None
    stem, _, times = text.partition("*")
    if stem == BATCH:
        return int(times) if times.isdecimal() else 1
    return 1 if axis == 0 else None


def _followed(dim: onnx.TensorShapeProto.Dimension) -> str:
    """What an open dimension follows, as `Graph.free` has it."""
    followed = str(dim.dim_param).partition("=")[0]
    return followed if SEQUENCE in followed.split(".") else BATCH


def _values(tensor: onnx.TensorProto) -> np.ndarray:
    """A constant as an array; the plain case by hand, because `onnx.numpy_helper` takes five times as long."""
    kind = _RAW.get(tensor.data_type)
    if kind is None or not tensor.HasField("raw_data") or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return np.asarray(numpy_helper.to_array(tensor))
    return np.frombuffer(tensor.raw_data, kind).reshape(tuple(tensor.dims))


def _without_body(proto: onnx.ModelProto) -> onnx.ModelProto:
    frame = onnx.ModelProto()
    frame.ir_version = proto.ir_version
    frame.opset_import.extend(proto.opset_import)
    frame.functions.extend(proto.functions)
    frame.producer_name, frame.producer_version = proto.producer_name, proto.producer_version
    frame.graph.name = proto.graph.name or "graph"
    constants = {t.name for t in proto.graph.initializer}
    frame.graph.input.extend(i for i in proto.graph.input if i.name not in constants)
    frame.graph.output.extend(proto.graph.output)
    return frame


@per_model(maxsize=24)
def _parsed(model: Model) -> Graph:
    return Graph(model.proto)


def reads(node: NodeProto) -> Iterator[str]:
    """Names a node reads, those captured by the bodies of If, Loop and Scan included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        if attribute.type not in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
            continue
        for body in [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs:
            inner = {i.name for i in body.input} | {t.name for t in body.initializer}
            for child in body.node:
                yield from (name for name in reads(child) if name not in inner)
                inner.update(child.output)


def attributes(node: NodeProto) -> dict[str, object]:
    """Attributes by name as plain Python values."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def with_attributes(node: NodeProto, **values: object) -> NodeProto:
    """A copy of the node with some attributes set."""
    twin = NodeProto()
    twin.CopyFrom(node)
    for name in values:
        for i, attribute in enumerate(twin.attribute):
            if attribute.name == name:
                del twin.attribute[i]
                break
    twin.attribute.extend(helper.make_attribute(name, value) for name, value in values.items())
    return twin


def with_input(node: NodeProto, position: int, name: str) -> NodeProto:
    """A copy of the node that reads `name` at `position` (inputs in between are left empty)."""
    twin = NodeProto()
    twin.CopyFrom(node)
    while len(twin.input) <= position:
        twin.input.append("")
    twin.input[position] = name
    return twin
