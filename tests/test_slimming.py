"""Slimming: the laws of plan and apply."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lwcore
from lwcore import Budget, Channels, Connections, Precision, Recipe
from lwcore.analysis.coupling import couple
from lwcore.answers import feed
from lwcore.errors import SlimError
from lwcore.model import Model
from lwcore.runtime import run, session
from lwcore.samples import SampleSet
from lwcore.slimming.budget.allocate import Sensitivity
from lwcore.slimming.budget.levels import levers
from lwcore.slimming.budget.sensitivity import measure_sensitivity
from lwcore.slimming.pruning.criteria import CRITERIA

TRAINED = [name for name in lwcore.gallery() if name.startswith("fashion-")]


@pytest.fixture(scope="module")
def small() -> Model:
    return lwcore.load("fashion-squeezenet")


@pytest.fixture(scope="module")
def calibration(small: Model) -> SampleSet:
    return lwcore.load_samples("fashion-calibration", small).take(96)


def _recipe(**options: object) -> Recipe:
    return Recipe(steps=(Channels(**options),))  # type: ignore[arg-type]


def _logits(model: Model, samples: SampleSet) -> np.ndarray:
    return run(session(model.data), feed(model, samples))[0]


@pytest.mark.parametrize("name", list(lwcore.gallery()))
@pytest.mark.parametrize("align", [1, 8])
def test_a_plan_prices_parameters_and_macs_exactly(name: str, align: int) -> None:
    model = lwcore.load(name)
    recipe = _recipe(amount=0.35, compensate="none", criterion="l2", align=align)
    plan, slim = lwcore.plan(model, recipe), lwcore.apply(model, recipe)
    assert (plan.after.params, plan.after.macs) == (slim.after.params, slim.after.macs)
    assert plan.after.size_bytes == pytest.approx(slim.after.size_bytes, rel=0.02)
    assert slim.after.params < slim.before.params


@pytest.mark.parametrize("name", TRAINED)
def test_amount_zero_is_the_identity(name: str) -> None:
    model = lwcore.load(name)
    assert lwcore.apply(model, _recipe(amount=0.0)).model.data == model.data


@pytest.mark.parametrize("name", TRAINED)
def test_parameters_and_macs_never_rise_with_the_amount(name: str) -> None:
    model = lwcore.load(name)
    costs = [lwcore.plan(model, _recipe(amount=a / 20)).after for a in range(20)]
    for before, after in itertools.pairwise(costs):
        assert after.macs <= before.macs


@given(amount=st.floats(0, 0.95), align=st.sampled_from([1, 4, 8, 16]), name=st.sampled_from(TRAINED))
@settings(max_examples=40, deadline=None)
def test_every_group_keeps_at_least_one_channel(amount: float, align: int, name: str) -> None:
    model = lwcore.load(name)
    plan = lwcore.plan(model, _recipe(amount=amount, align=align))
    for group in couple(model).groups:
        assert 0 <= plan.amounts[group.name] < group.channels


@pytest.mark.parametrize("name", TRAINED)
def test_aligned_levers_keep_whole_blocks_on_every_wide_axis(name: str) -> None:
    model = lwcore.load(name)
    coupling = couple(model)
    counts = lwcore.plan(model, _recipe(amount=0.4)).amounts
    gone = np.zeros(coupling.units, dtype=bool)
    for group in coupling.groups:
        gone[group.units[: counts[group.name]]] = True
    for place in coupling.producers:
        classes = coupling.cuts[place]
        if len(classes) >= 8 and len(classes) % 8 == 0:
            assert np.count_nonzero(~gone[classes]) % 8 == 0, place


def test_levers_start_with_nothing_removed_and_grow(small: Model) -> None:
    for lever in levers(small, 8):
        shares = [lever.share(i) for i in range(len(lever.stops))]
        assert shares[0] == 0
        assert shares == sorted(set(shares))


@pytest.mark.parametrize("criterion", list(CRITERIA))
def test_the_same_recipe_gives_the_same_bytes(small: Model, calibration: SampleSet, criterion: str) -> None:
    recipe = _recipe(amount=0.3, criterion=criterion)
    first, second = (lwcore.apply(small, recipe, calibration).model.data for _ in range(2))
    assert first == second


_PRINT_FINGERPRINT = """
import lwcore
model = lwcore.load("fashion-squeezenet")
samples = lwcore.load_samples("fashion-calibration", model).take(96)
print(lwcore.apply(model, lwcore.Recipe(steps=(lwcore.Channels(amount=0.3),)), samples).model.fingerprint)
"""


def test_threads_of_the_environment_do_not_change_the_bytes() -> None:
    prints = set()
    for threads in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", _PRINT_FINGERPRINT],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        )
        prints.add(done.stdout.strip())
    assert len(prints) == 1


@pytest.mark.parametrize("how", ["one-shot", "sequential"])
def test_compensation_brings_the_answer_nearer_to_the_original(small: Model, calibration: SampleSet, how: str) -> None:
    test = lwcore.load_samples("fashion-test", small).take(200)
    truth = _logits(small, test)
    plain = _logits(lwcore.apply(small, _recipe(amount=0.2, compensate="none")).model, test)
    better = _logits(lwcore.apply(small, _recipe(amount=0.2, compensate=how), calibration).model, test)
    assert np.mean((better - truth) ** 2) < 0.5 * np.mean((plain - truth) ** 2)


def test_sequential_compensation_beats_one_shot(small: Model, calibration: SampleSet) -> None:
    test = lwcore.load_samples("fashion-test", small).take(500)
    error = {}
    for how in ("one-shot", "sequential"):
        slim = lwcore.apply(small, _recipe(amount=0.4, compensate=how), calibration).model
        error[how] = np.mean((_logits(slim, test) - _logits(small, test)) ** 2)
    assert error["sequential"] < error["one-shot"]


def test_compensation_adds_no_parameter(small: Model, calibration: SampleSet) -> None:
    plain = lwcore.apply(small, _recipe(amount=0.3, compensate="none"))
    fitted = lwcore.apply(small, _recipe(amount=0.3), calibration)
    assert plain.after.params == fitted.after.params


@pytest.fixture(scope="module")
def sensitivity(small: Model, calibration: SampleSet) -> Sensitivity:
    return measure_sensitivity(small, calibration)


@pytest.mark.parametrize("of", ["macs", "params"])
def test_a_budget_is_never_exceeded(
    small: Model, calibration: SampleSet, sensitivity: Sensitivity, of: Literal["macs", "params"]
) -> None:
    slim = lwcore.apply(small, _recipe(budget=Budget(of=of, keep=0.6)), calibration, sensitivity)
    left = getattr(slim.after, of) / getattr(slim.before, of)
    assert 0.45 < left <= 0.6


def test_a_budget_that_cannot_be_met_says_how_near_it_comes(small: Model, sensitivity: Sensitivity) -> None:
    with pytest.raises(SlimError, match="with every group at its smallest"):
        lwcore.apply(small, _recipe(budget=Budget(keep=0.001)), sensitivity=sensitivity)


def test_a_group_set_by_hand_wins(small: Model) -> None:
    name = couple(small).groups[3].name
    plan = lwcore.plan(small, _recipe(amount=0.5, groups={name: 0.0}))
    assert plan.amounts[name] == 0
    assert sum(plan.amounts.values()) > 0


def test_an_unknown_group_is_named(small: Model) -> None:
    with pytest.raises(SlimError, match="nonsense"):
        lwcore.plan(small, _recipe(groups={"nonsense": 0.2}))


def test_compensation_without_samples_says_what_to_do() -> None:
    model = lwcore.load("article-cnn")
    with pytest.raises(SlimError, match="needs calibration samples"):
        lwcore.apply(model, _recipe(amount=0.2))


STEPS = (
    Channels(amount=0.3),
    Connections(amount=0.4),
    Precision(format="fp16"),
    Precision(format="int8-static", samples=32),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "steps",
    [pair for pair in itertools.permutations(STEPS, 2) if {s.kind for s in pair} != {"precision"}],
    ids=lambda pair: "-".join(getattr(s, "format", s.kind) for s in pair),
)
def test_steps_work_in_any_order(small: Model, calibration: SampleSet, steps: tuple[object, ...]) -> None:
    slim = lwcore.apply(small, Recipe(steps=steps), calibration)  # type: ignore[arg-type]
    report = lwcore.evaluate(
        slim.model, lwcore.load_samples("fashion-test", small).take(300), against=small, latency=False
    )
    assert report.agreement > 0.5


@pytest.mark.slow
def test_a_plan_is_exact_for_int8_where_batch_norms_are_folded() -> None:
    model = lwcore.load("article-cnn")
    recipe = Recipe(steps=(Channels(amount=0.8, compensate="none", criterion="l2"), Precision(format="int8-dynamic")))
    plan, slim = lwcore.plan(model, recipe), lwcore.apply(model, recipe)
    assert (plan.after.params, plan.after.macs) == (slim.after.params, slim.after.macs)


def test_blocks_broken_by_hand_are_said(small: Model) -> None:
    name = couple(small).groups[0].name
    slim = lwcore.apply(small, _recipe(groups={name: 0.1}, criterion="l2", compensate="none"))
    assert any("whole blocks of 8" in note for note in slim.notes)
