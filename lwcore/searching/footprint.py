"""What a model asks of any device: its file, the peak of live activations, and each operator's work. Nothing runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import onnx
from onnx import NodeProto

from lwcore.analysis.cost import macs
from lwcore.graph import Graph, per_model, reads
from lwcore.model import Model

# Operators that give back the bytes of their first input under another shape: no memory of their own.
# (Dequantizing counts as one, because integer operators read the integers.)
VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "DequantizeLinear"})
# Operators that runtimes carry out in the place of their input, or fuse into the operator before, when nobody else
# reads it.
IN_PLACE = frozenset(
    {
        "Relu",
        "Clip",
        "LeakyRelu",
        "PRelu",
        "Sigmoid",
        "Tanh",
        "HardSigmoid",
        "HardSwish",
        "Elu",
        "Gelu",
        "BatchNormalization",
    }
)


@dataclass(frozen=True, kw_only=True)
class Load:
    """One operator's work for one picture: multiply–accumulates, and bytes read and written."""

    layer: str
    macs: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a model asks of any device: the file, the peak of live activations, and each operator's work."""

    file_bytes: int
    ram_bytes: int
    loads: tuple[Load, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data, one short list an operator; `from_json` reads it back."""
        loads = [[load.layer, load.macs, load.bytes] for load in self.loads]
        return {"file_bytes": self.file_bytes, "ram_bytes": self.ram_bytes, "loads": loads}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Footprint:
        """Read what `to_json` wrote."""
        loads = tuple(Load(layer=layer, macs=count, bytes=size) for layer, count, size in data["loads"])
        return cls(file_bytes=data["file_bytes"], ram_bytes=data["ram_bytes"], loads=loads)


@per_model(maxsize=24)
def footprint(model: Model) -> Footprint:
    """Count what a model asks of a device, for one picture.

    Quantize/Dequantize pairs count as fused into the operators around them, as integer runtimes do: what lies between
    two operators then takes one byte a value.
    """
    graph = Graph.view(model)
    return Footprint(file_bytes=model.size_bytes, ram_bytes=peak_ram(graph), loads=tuple(_loads(graph)))


def peak_ram(graph: Graph) -> int:
    """The largest sum of activations that are alive at once, in bytes.

    An activation lives from the operator that makes it (inputs from the start) to the last that reads it (outputs to
    the end). While an operator runs, its inputs and its outputs are alive together.
    """
    storage = _storage(graph)
    steps = [node for node in graph.nodes if _is_work(node, storage)]
    first = dict.fromkeys(_stored(graph.inputs, storage), 0)
    last = dict(first)
    for index, node in enumerate(steps):
        last.update(dict.fromkeys(_stored(reads(node), storage), index))
        for name in _stored(node.output, storage):
            first.setdefault(name, index)
            last[name] = index
    last.update(dict.fromkeys(_stored(graph.outputs, storage), len(steps)))
    changes = [0] * (len(steps) + 2)  # what comes to life with each operator, less what has died before it
    for name, born in first.items():
        size = _bytes(graph, name)
        changes[born] += size
        changes[last[name] + 1] -= size
    return max(accumulate(changes))


def _storage(graph: Graph) -> dict[str, str]:
    """Activation → the tensor whose bytes hold it; what is computed from constants alone is no activation."""
    storage = {name: name for name in graph.inputs}
    readers = graph.consumers()
    for node in graph.nodes:
        active = [name for name in reads(node) if name in storage]
        if active or not list(reads(node)):
            shared = bool(active) and _shares(node, active[0], readers, graph)
            storage.update({name: storage[active[0]] if shared else name for name in node.output if name})
    _fuse_quantizing(graph, storage, readers)
    return storage


def _shares(node: NodeProto, source: str, readers: Mapping[str, list[int]], graph: Graph) -> bool:
    """Whether an operator's result lies in the bytes of what it reads."""
    if node.op_type in IN_PLACE:
        return len(readers[source]) == 1 and source not in (*graph.inputs, *graph.outputs)
    return node.op_type in VIEWS


def _fuse_quantizing(graph: Graph, storage: dict[str, str], readers: Mapping[str, list[int]]) -> None:
    """An operator whose result is only quantized writes the integers at once."""
    held: dict[str, list[str]] = {}
    for name, place in storage.items():
        held.setdefault(place, []).append(name)
    for index, node in enumerate(graph.nodes):
        if node.op_type != "QuantizeLinear" or node.input[0] not in storage:
            continue
        place = storage[node.input[0]]
        names = held[place]
        inside = {i for name in names for i in readers.get(name, ()) if graph.nodes[i].output[0] in names}
        outside = {i for name in names for i in readers.get(name, ())} - inside
        if outside == {index} and not set(names) & {*graph.inputs, *graph.outputs}:
            storage.update(dict.fromkeys(names, node.output[0]))
            held[node.output[0]] = held.get(node.output[0], []) + held.pop(place)


def _is_work(node: NodeProto, storage: Mapping[str, str]) -> bool:
    """True for operators that write activations; views and fused quantizing write none."""
    inputs = set(_stored(reads(node), storage))
    return any(name not in inputs for name in _stored(node.output, storage))


def _stored(names: Iterable[str], storage: Mapping[str, str]) -> Iterator[str]:
    return (storage[name] for name in names if name in storage)


def _size(graph: Graph, names: Iterable[str]) -> int:
    return sum(_bytes(graph, name) for name in names)


def _bytes(graph: Graph, name: str) -> int:
    if name in graph.constants:
        return graph.constants[name].nbytes
    if name not in graph.shapes:  # inside branches shapes are not known; the files we make know all others
        return 0
    kind = graph.types[name]
    size = 0.5 if kind in _FOUR_BITS else onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize
    return math.ceil(math.prod(graph.shapes[name]) * size)


_FOUR_BITS = frozenset({onnx.TensorProto.INT4, onnx.TensorProto.UINT4})


def _loads(graph: Graph) -> Iterator[Load]:
    storage = _storage(graph)
    dequantized = {  # weight → the integers it is stored as
        node.output[0]: node.input[0] for node in graph.nodes if node.op_type == "DequantizeLinear"
    }
    for position, node in enumerate(graph.nodes):
        if not _is_work(node, storage):
            continue
        weights = {dequantized.get(name, name) for name in reads(node) if name not in storage}
        moved = {*weights, *_stored(reads(node), storage), *_stored(node.output, storage)}
        yield Load(
            layer=node.name or f"{node.op_type} {position}",
            macs=macs(node, graph.shapes),
            bytes=_size(graph, moved),
        )
