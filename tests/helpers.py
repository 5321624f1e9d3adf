"""Small things many tests need: models without training, sample sets, and the masked twin of a cut."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx

from lwcore.analysis.coupling import Coupling
from lwcore.graph import Graph
from lwcore.model import Card, InputSpec, Model
from lwcore.samples import SampleSet
from lwcore.slimming.rewrite import Keep
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
    return SampleSet(name="noise", pixels=pixels)


def masked(graph: Graph, coupling: Coupling, keep: Keep) -> Graph:
    """The original with the removed channels' input columns zeroed in every consumer: what a cut must equal."""
    twin = graph.copy()
    for consumer in coupling.consumers:
        gone = ~keep[consumer.ids]
        if gone.any():
            weight = twin.constants[consumer.constant].copy()
            np.moveaxis(weight, consumer.axis, 0)[gone] = 0
            twin.constants[consumer.constant] = weight
    return twin
