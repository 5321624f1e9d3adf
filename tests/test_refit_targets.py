"""Targets of a re-fit: what the dense model gives is asked for once, and remembering it changes no answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import lwcore
from lwcore import Channels, Recipe
from lwcore.analysis.coupling import couple
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.samples import SampleSet
from lwcore.similarity import change
from lwcore.slimming.pruning.channels import removals
from lwcore.slimming.pruning.selection import Choice, choose
from lwcore.slimming.refit import targets
from lwcore.slimming.refit.calibration import answers, draw
from lwcore.slimming.refit.compensate import Cut, sequential
from lwcore.slimming.refit.linear import along, linear_layers
from lwcore.slimming.refit.regression import Batch
from lwcore.slimming.refit.targets import Take, gather_targets, pack, sample, unpack
from lwcore.slimming.rewrite import cut


def _given(name: str, count: int = 64) -> tuple[Model, SampleSet]:
    model = lwcore.load(name)
    return model, lwcore.load_samples("fashion-calibration", model).take(count)


def _chosen(model: Model, samples: SampleSet, amount: float) -> Choice:
    counts = removals(model, Channels(amount=amount))
    return choose(model, counts, "gram", samples, np.random.default_rng(0), True)


@pytest.mark.parametrize("name", ["fashion-squeezenet", "fashion-mobilenetv2"])
def test_a_sweep_gives_the_same_with_and_without_remembered_targets(name: str) -> None:
    model, samples = _given(name)
    choice, given = _chosen(model, samples, 0.3), draw(model, samples)
    plain = cut(choice.dense, couple(model), choice.keep)
    both = [
        Cut(choice.dense, plain.copy(), couple(model), choice.keep, Graph.view(model), choice.turns) for _ in range(3)
    ]
    sequential(both[0], given.fit, known=gather_targets(model, samples, given.fit))
    sequential(both[1], given.fit)
    sequential(replace(both[2], origin=None, turns={}), given.fit)  # asks the turned graph itself
    truth, *others = (answers(each.slim, given.check) for each in both)
    assert all(change(other, truth) < 1e-4 for other in others)


def test_other_amounts_before_it_do_not_change_a_recipes_bytes() -> None:
    model, samples = _given("fashion-squeezenet")
    recipes = [Recipe(steps=(Channels(amount=amount),)) for amount in (0.4, 0.2)]
    targets._TARGETS.clear()
    first = lwcore.apply(model, recipes[0], samples).model.data
    targets._TARGETS.clear()
    lwcore.apply(model, recipes[1], samples)
    assert lwcore.apply(model, recipes[0], samples).model.data == first


def test_packed_targets_are_read_back_exactly() -> None:
    model, samples = _given("fashion-squeezenet", 16)
    inputs = draw(model, samples).fit
    known = gather_targets(model, samples, inputs)
    used, read = unpack(pack(7, known))
    assert used == 7
    assert known.keys() == read.keys()
    assert all(np.array_equal(a, b) for key in known for a, b in zip(known[key], read[key], strict=True))


def test_targets_that_are_too_many_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    model, samples = _given("fashion-squeezenet", 16)
    monkeypatch.setattr(targets, "AHEAD", 1000)
    targets._TARGETS.clear()
    assert not gather_targets(model, samples, draw(model, samples).fit)
    targets._TARGETS.clear()


def test_portions_give_what_one_run_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    model, samples = _given("fashion-resnet20", 8)
    inputs, graph = draw(model, samples).fit, Graph.view(model)
    takes = [[Take(layer.result, 1, 5)] for layer in linear_layers(graph)[:6]]
    whole = [chunks for (chunks,) in sample(graph, takes, inputs)]
    monkeypatch.setattr(targets, "AHEAD", 1)
    for one, other in zip(whole, (chunks for (chunks,) in sample(graph, takes, inputs)), strict=True):
        assert all(np.allclose(a, b, atol=1e-4) for a, b in zip(one, other, strict=True))


def test_vectors_along_an_axis_are_those_of_every_position() -> None:
    values = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    for axis in (1, -1):
        every = np.moveaxis(np.moveaxis(values, axis, 0), 1, -1).reshape(values.shape[axis], -1)  # samples last
        assert np.array_equal(along(values, axis, 1), every)


@pytest.mark.parametrize("step", [2, 4, 7])
def test_thinning_leaves_vectors_of_every_sample(step: int) -> None:
    """Samples lie side by side at every position, so a plain stride would lose whole samples."""
    samples, positions = 64, 20
    sample_of = np.tile(np.arange(samples, dtype=np.float32), positions)
    thin = Batch(sample_of[None, None], sample_of[None, None], low=np.zeros((1, 1, 1))).thinned(step)
    assert thin.x.shape[-1] == -(-samples * positions // step)
    assert np.unique(thin.x).size == samples
    assert np.array_equal(thin.x, thin.y)
