"""Small things many tests need: models without training, sample sets, and the law of every cut with its masked twin."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from lwcore.analysis.cost import cost
from lwcore.analysis.coupling import Coupling, couple
from lwcore.analysis.labels import Consumer
from lwcore.analysis.stored import stored
from lwcore.graph import Graph, with_attributes
from lwcore.model import Card, InputSpec, Model
from lwcore.runtime import session
from lwcore.samples import SampleSet
from lwcore.slimming.budget.pricing import price
from lwcore.slimming.rewrite import Keep, cut
from lwcore.sources.normalise import normalise

LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))


def light(path: os.PathLike[str] | str) -> Model:
    """One of the real ONNX files that ship with the onnx package, with seeded random weights.

    The files' own weights are all ones, which make every channel alike and overflow; laws need channels that differ.
    """
    data, notes = normalise(onnx.load(path))
    graph = Graph(onnx.load_model_from_string(data))
    rng = np.random.default_rng(0)
    for name, array in graph.constants.items():
        if array.dtype == np.float32 and array.ndim:
            fan_in = max(1, int(np.prod(array.shape[1:]))) if array.ndim > 1 else 1
            drawn = (
                rng.standard_normal(array.shape) / np.sqrt(fan_in)
                if array.ndim > 1
                else rng.uniform(0.5, 1, array.shape)
            )
            graph.constants[name] = drawn.astype(np.float32)
    return Model(data=graph.serialize(), card=Card(name=Path(path).stem, input=InputSpec(size=(224, 224))), notes=notes)


def noise(model: Model, count: int = 4, seed: int = 0) -> SampleSet:
    """Random pictures that fit a model."""
    spec = model.card.input
    pixels = np.random.default_rng(seed).integers(0, 256, (count, *spec.size, spec.channels), dtype=np.uint8)
    return SampleSet(name="noise", arrays={"pixels": pixels})


def masked(graph: Graph, coupling: Coupling, keep: Keep) -> Graph:
    """The original with the removed channels' input columns zeroed in every consumer: what a cut must equal.

    Nodes that sum over removable channels without a weight (norms' statistics, queries times keys) leave the removed
    entries out: they run on the kept entries, and their result is put back into its place between zeros.
    """
    twin = graph.copy()
    for consumer in coupling.consumers:
        gone = ~keep[consumer.ids]
        if gone.any():
            name = coupling.mirrors.get(consumer.constant, consumer.constant)
            weight = twin.constants[name].copy()
            nothing = np.broadcast_to(_nothing(graph, consumer), weight.shape)
            np.moveaxis(weight, consumer.axis, 0)[gone] = np.moveaxis(nothing, consumer.axis, 0)[gone]
            twin.constants[name] = weight
    nodes: list[onnx.NodeProto] = []
    for index, node in enumerate(twin.nodes):
        apart = index in coupling.normalised or index in coupling.contracted
        nodes += _on_kept(twin, coupling, keep, index, node) if apart else [node]
    twin.nodes = nodes
    return twin


def _nothing(graph: Graph, consumer: Consumer) -> np.ndarray:
    """What stands for 0 in a consumer's weight: its zero point where a quantizer stored it."""
    maker = graph.producers().get(consumer.constant)
    node = graph.nodes[consumer.node if maker is None else maker]
    return stored(graph, node, list(node.input).index(consumer.constant) if maker is None else 0).zero


def _on_kept(graph: Graph, coupling: Coupling, keep: Keep, index: int, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """A node between the operators that take the kept entries out of its inputs and put its results back."""
    inner, before, after = onnx.NodeProto(), list[onnx.NodeProto](), list[onnx.NodeProto]()
    inner.CopyFrom(node)
    for position, name in enumerate(node.input):
        places = coupling.tensors.get(name, {})
        if name in graph.constants:
            places = {a: c for (n, a), c in coupling.cuts.items() if n == name}
        for axis, classes in places.items():
            here = graph.fresh(f"{node.name}.kept{position}.{axis}")
            graph.set_constant(f"{here}.places", np.flatnonzero(keep[classes]))
            before.append(onnx.helper.make_node("Gather", [inner.input[position], f"{here}.places"], [here], axis=axis))
            inner.input[position] = here
    width = coupling.grouped.get(index)
    if width is not None:
        classes = coupling.tensors[node.input[0]][1]
        inner = with_attributes(inner, num_groups=int(np.count_nonzero(keep[classes])) // width)
    for position, name in enumerate(node.output):
        small: dict[int, int] = {}  # put back after this one
        for axis, classes in coupling.tensors.get(name, {}).items():
            here = graph.fresh(f"{node.name}.small{position}.{axis}")
            mask = keep[classes]
            places = np.where(mask, np.cumsum(mask) - 1, np.count_nonzero(mask))
            shape = [1 if a == axis else small.get(a, size) for a, size in enumerate(graph.shapes[name])]
            small[axis] = int(np.count_nonzero(mask))
            graph.set_constant(f"{here}.places", places)
            graph.set_constant(f"{here}.zero", np.zeros(shape, np.float32))
            after.insert(
                0,
                onnx.helper.make_node(
                    "Gather", [f"{here}.filled", f"{here}.places"], [inner.output[position]], axis=axis
                ),
            )
            after.insert(0, onnx.helper.make_node("Concat", [here, f"{here}.zero"], [f"{here}.filled"], axis=axis))
            inner.output[position] = here
    return [*before, inner, *after]


def assert_law(model: Model, share: float = 0.5, tolerance: float = 1e-4) -> Coupling:
    """The model cut at random equals its masked twin, and costs what pricing says; gives the coupling back."""
    coupling = couple(model)
    rng = np.random.default_rng(3)
    keep = np.ones(coupling.units, dtype=bool)
    counts = {g.name: int(g.channels * share) for g in coupling.groups}
    for group in coupling.groups:
        keep[rng.permutation(group.units)[: counts[group.name]]] = False
    assert not keep.all(), "nothing is cut"
    graph = Graph.of(model)
    slim = replace(model, data=cut(graph, coupling, keep).serialize())
    onnx.checker.check_model(onnx.load_model_from_string(slim.data))
    planned, real = price(model, counts), cost(slim)
    assert (planned.params, planned.macs) == (real.params, real.macs)
    rng = np.random.default_rng(1)
    feeds = {n: rng.standard_normal(graph.shape(n)).astype(np.float32) for n in graph.inputs}
    expected = session(masked(graph, coupling, keep).serialize()).run(None, feeds)
    found = session(slim.data).run(None, feeds)
    dense = session(model.data).run(None, feeds)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(dense, expected, strict=True)), "the mask changes nothing"
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * float(np.abs(b).max()))
    return coupling
