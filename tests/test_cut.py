"""Cutting channels out of a graph: the laws that make it right for any model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import numpy_helper

import lwcore
from lwcore.analysis.coupling import couple
from lwcore.answers import example
from lwcore.graph import Graph, written
from lwcore.model import Model
from lwcore.runtime import run, session
from lwcore.slimming.rewrite import cut
from tests.helpers import LIGHT, light, masked

BUILT_IN = list(lwcore.gallery())
LARGE = ("vgg19", "zfnet512", "alexnet")


def _halved(model: Model, share: float, seed: int) -> tuple[Model, Model]:
    """The model cut at random, and its masked twin."""
    coupling = couple(model)
    rng = np.random.default_rng(seed)
    keep = np.ones(coupling.units, dtype=bool)
    for group in coupling.groups:
        keep[rng.permutation(group.units)[: int(group.channels * share)]] = False
    graph = Graph.of(model)
    slim, twin = cut(graph, coupling, keep), masked(graph, coupling, keep)
    return replace(model, data=slim.serialize()), replace(model, data=twin.serialize())


def _outputs(model: Model) -> np.ndarray:
    return run(session(model.data), example(Graph.view(model), seed=1))[0]


def _assert_cut_equals_mask(model: Model) -> None:
    slim, twin = _halved(model, 0.4, seed=3)
    assert slim.size_bytes < 0.85 * model.size_bytes
    expected, found = _outputs(twin), _outputs(slim)
    assert np.abs(expected - _outputs(model)).max() > 0, (
        "the masked twin must differ from the original to prove anything"
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * float(np.abs(expected).max()))


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_cut_built_in_equals_the_original_with_its_columns_zeroed(name: str) -> None:
    _assert_cut_equals_mask(lwcore.load(name))


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, id=p.stem, marks=pytest.mark.slow if any(n in p.stem for n in LARGE) else ()) for p in LIGHT],
)
def test_a_cut_light_file_equals_the_original_with_its_columns_zeroed(path: str) -> None:
    _assert_cut_equals_mask(light(path))


@pytest.mark.parametrize("name", ["fashion-shufflenetv2", "email-tinybert", "article-cnn"])
def test_a_written_model_is_what_reading_its_file_gives(name: str) -> None:
    """Nobody parses what we have just written: the parts that are kept must be those of the file."""
    model = lwcore.load(name)
    slim = written(model, Graph.of(model))
    read = replace(slim)
    assert read.proto == slim.proto
    kept, found = Graph.view(slim), Graph(read.proto)
    assert (kept.shapes, kept.types, kept.free) == (found.shapes, found.types, found.free)
    assert found.serialize() == slim.data
    for tensor in read.proto.graph.initializer:
        assert np.array_equal(found.constants[tensor.name], numpy_helper.to_array(tensor))
