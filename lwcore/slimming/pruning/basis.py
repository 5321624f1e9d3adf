"""Streams on which nothing but sums happens: there, directions can be removed instead of channels.

Between the projection that ends an inverted residual block and the expansion that begins the next lies no activation,
so it may be written in any basis: the layers that write it are multiplied by T, those that read it by T⁻¹, and the
network computes the same. In the basis of the principal directions, weighted by what the readers make of them, the last
ones carry least. Sources: SliceGPT (Ashkboos et al., ICLR 2024), principal component analysis; the kept directions are
mixed in the end, as in QuaRot (NeurIPS 2024), so that no channel outgrows the others and int8 stays possible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lwcore.analysis.coupling import Coupling, Group, couple
from lwcore.analysis.labels import Consumer
from lwcore.analysis.statistics import Moments
from lwcore.graph import Graph, per_model
from lwcore.model import Model
from lwcore.slimming.refit.linear import Linear, linear_layers
from lwcore.slimming.refit.mixing import channel_axis, moments_key, whole
from lwcore.slimming.rewrite import Keep

_RIDGE = 0.01  # share of the mean weight added to every direction's, so that the basis can be inverted
_SEED = 7  # of the rotation that mixes the kept directions


@dataclass(frozen=True)
class Stream:
    """A group whose tensors are only written by linear layers, summed, and read by linear layers.

    Attributes:
        group: its channels.
        writers: layers that write it, with the position in the group of each of their outputs.
        added: constants added to it (biases), with positions.
        readers: layers that read it, with positions.
        tensors: those that hold it, with positions.
    """

    group: Group
    writers: tuple[tuple[Linear, np.ndarray], ...]
    added: tuple[tuple[str, np.ndarray], ...]
    readers: tuple[tuple[Consumer, np.ndarray], ...]
    tensors: tuple[tuple[str, np.ndarray], ...]

    def turns(self, forward: np.ndarray) -> dict[str, np.ndarray]:
        """Tensor → the change of basis in the order of its channels."""
        return {name: forward[np.ix_(order, order)] for name, order in self.tensors}

    def change(self, graph: Graph, moments: dict[str, Moments], forward: np.ndarray, backward: np.ndarray) -> None:
        """Write the stream in another basis, in place: x → `forward` x, with `backward` its inverse."""
        for layer, order in self.writers:
            turn = forward[np.ix_(order, order)]
            matrix = layer.matrix(graph.constants[layer.weight].astype(np.float64))
            _store(graph, layer.weight, layer.stored(turn @ matrix))
        for name, order in self.added:
            array = graph.constants[name]
            _store(graph, name, (forward[np.ix_(order, order)] @ array.reshape(-1)).reshape(array.shape))
        for consumer, order in self.readers:
            weight = graph.constants[consumer.constant].astype(np.float64)
            turned = np.tensordot(weight, backward[np.ix_(order, order)], (consumer.axis, 0))
            _store(graph, consumer.constant, np.moveaxis(turned, -1, consumer.axis))
        for key, order in {moments_key(graph, c): order for c, order in self.readers}.items():
            turn, known = forward[np.ix_(order, order)], moments[key]
            moments[key] = Moments(turn @ known.mean, turn @ known.gram @ turn.T, known.count)


@dataclass(frozen=True)
class Basis:
    """Another basis of a stream: x → `forward` x, and the inverse."""

    stream: Stream
    forward: np.ndarray
    backward: np.ndarray

    def mixed(self, keep: Keep) -> Basis:
        """The same with the directions that are kept mixed among each other."""
        turn, back = spread(self.stream, keep)
        return Basis(self.stream, turn @ self.forward, self.backward @ back)


@per_model(maxsize=24)
def streams(model: Model) -> tuple[Stream, ...]:
    """The groups of a model that may be written in another basis."""
    graph, coupling = Graph.view(model), couple(model)
    layers = {layer.index: layer for layer in linear_layers(graph)}
    consumers = {(c.node, c.tensor): c for c in whole(graph, coupling)}
    wiring = (layers, graph.consumers(), graph.producers(), consumers)
    tensors, constants = _held(coupling)
    found = (
        _stream(graph, coupling, group, tensors[group.name], constants[group.name], wiring)
        for group in coupling.groups
        if tensors.get(group.name)
    )
    return tuple(stream for stream in found if stream)


def directions(stream: Stream, graph: Graph, moments: Mapping[str, Moments]) -> tuple[np.ndarray, np.ndarray]:
    """The principal directions of a stream, weighted by its readers: the basis and its inverse."""
    size = stream.group.channels
    weight, covariance = np.zeros((size, size)), np.zeros((size, size))
    for consumer, order in stream.readers:
        place, known = np.argsort(order), moments[moments_key(graph, consumer)]
        spread = (known.gram - np.outer(known.mean, known.mean))[np.ix_(place, place)]
        matrix = np.moveaxis(graph.constants[consumer.constant].astype(np.float64), consumer.axis, -1)
        flat = matrix.reshape(-1, size)[:, place]
        gram = flat.T @ flat
        weight += gram / max(float((gram * spread).sum()), 1e-30)
        covariance += spread
    values, vectors = np.linalg.eigh(weight + _RIDGE * float(np.trace(weight)) / size * np.eye(size))
    root, inverse = (vectors * np.sqrt(values)) @ vectors.T, (vectors / np.sqrt(values)) @ vectors.T
    _, axes = np.linalg.eigh(root @ covariance @ root)
    return axes.T @ root, inverse @ axes


def spread(stream: Stream, keep: Keep) -> tuple[np.ndarray, np.ndarray]:
    """A rotation that mixes the directions kept, and leaves the others; its inverse."""
    kept = np.flatnonzero(keep[stream.group.units])
    turn = np.eye(stream.group.channels)
    turn[np.ix_(kept, kept)] = np.linalg.qr(np.random.default_rng(_SEED).standard_normal((len(kept), len(kept))))[0]
    return turn, turn.T


def _store(graph: Graph, name: str, values: np.ndarray) -> None:
    graph.constants[name] = np.ascontiguousarray(values, dtype=graph.constants[name].dtype)


def _held(coupling: Coupling) -> tuple[dict[str, list[str]], dict[str, set[str]]]:
    """By group: the tensors that hold it (none where one holds anything else besides), and the constants."""
    owner = np.full(coupling.units, -1)
    for number, group in enumerate(coupling.groups):
        owner[group.units] = number
    tensors: dict[int, list[str]] = {}
    mixed: set[int] = set()
    for name, held in coupling.tensors.items():
        for classes in held.values():
            found = np.unique(owner[classes]).tolist()
            if len(found) > 1 or len(held) > 1 or len(classes) != coupling.groups[found[0]].channels:
                mixed.update(found)
            tensors.setdefault(found[0], []).append(name)
    constants: dict[str, set[str]] = {}
    for (name, _), classes in coupling.cuts.items():
        for number in np.unique(owner[classes]).tolist():
            constants.setdefault(coupling.groups[number].name, set()).add(name)
    named = {coupling.groups[n].name: names for n, names in tensors.items() if n >= 0 and n not in mixed}
    return named, constants


Wiring = tuple[Mapping[int, Linear], Mapping[str, Sequence[int]], Mapping[str, int], Mapping[tuple[int, str], Consumer]]


def _stream(
    graph: Graph, coupling: Coupling, group: Group, names: Sequence[str], constants: set[str], wiring: Wiring
) -> Stream | None:
    layers, readers, made, consumers = wiring
    position = np.full(coupling.units, -1)
    position[group.units] = np.arange(group.channels)
    inside, writers, read, added = set(names), [], [], dict[str, np.ndarray]()
    for name in names:
        ((axis, classes),) = coupling.tensors[name].items()
        node, layer = graph.nodes[made[name]], layers.get(made[name])
        if layer is not None and layer.groups == 1 and layer.axis % len(graph.shape(name)) == axis:
            writers.append((layer, position[classes]))
            own = [n for n in list(node.input)[2:3] if n and node.op_type != "MatMul"]
        elif node.op_type == "Add":
            own = [n for n in node.input if n not in inside]
        else:
            return None
        if any(graph.constants.get(n, np.zeros(0)).size != group.channels or len(readers[n]) > 1 for n in own):
            return None
        added.update((n, position[classes]) for n in own)
        for index in readers.get(name, ()):
            consumer = consumers.get((index, name))
            if consumer is not None and channel_axis(graph, consumer) == axis:
                read.append((consumer, position[consumer.ids]))
            elif graph.nodes[index].op_type != "Add":
                return None
    known = {layer.weight for layer, _ in writers} | {c.constant for c, _ in read} | set(added)
    floats = all(name in graph.constants and graph.constants[name].dtype.kind == "f" for name in known)
    if not read or not writers or known != constants or not floats:
        return None
    held = tuple((name, position[next(iter(coupling.tensors[name].values()))]) for name in names)
    return Stream(group, tuple(writers), tuple(added.items()), tuple(read), held)
