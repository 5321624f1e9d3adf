"""Allocation: the laws of pricing, of the knapsack, of sharing a budget out, and of measured sensitivity."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lwcore
from lwcore import Budget, Channels, Recipe
from lwcore.analysis.cost import cost
from lwcore.analysis.coupling import couple
from lwcore.errors import SlimError
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.slimming.budget import allocate
from lwcore.slimming.budget.allocate import Sensitivity, share_out, share_out_by_clock
from lwcore.slimming.budget.knapsack import Knapsack
from lwcore.slimming.budget.latency import Pace, measure_pace, share_of_time
from lwcore.slimming.budget.levels import levers
from lwcore.slimming.budget.pricing import price, prices
from lwcore.slimming.budget.sensitivity import _distance, _softmax, measure_sensitivity
from lwcore.slimming.rewrite import cut, keep_any

TRAINED = [name for name in lwcore.gallery() if name.startswith("fashion-")]
PACE = Pace(fixed_ms=0.1, mac_ms=1e-7, value_ms=1e-7)


def _pretend(model: Model, seed: int = 0) -> Sensitivity:
    """Harms by lot: rising, and different for every group."""
    rng = np.random.default_rng(seed)
    harm = {
        group.name: tuple(zip((0.0, 0.3, 0.6, 0.9), (0.0, *np.cumsum(rng.random(3)).tolist()), strict=True))
        for group in couple(model).groups
    }
    return Sensitivity(harm=harm, samples=1, pace=PACE)


def _slim(model: Model, counts: dict[str, int]) -> Model:
    graph = cut(Graph.view(model), couple(model), keep_any(couple(model), counts))
    return dataclasses.replace(model, data=graph.serialize())


@pytest.mark.parametrize("name", list(lwcore.gallery()))
def test_prices_are_what_a_real_cut_costs(name: str) -> None:
    model, rng = lwcore.load(name), np.random.default_rng(0)
    counts = {g.name: int(rng.integers(0, g.channels)) for g in couple(model).groups}
    real, priced = cost(_slim(model, counts)), price(model, counts)
    assert (priced.macs, priced.params) == (real.macs, real.params)
    assert priced.weight_bytes == pytest.approx(real.weight_bytes, rel=0.02)


def test_many_removals_are_priced_as_each_alone() -> None:
    model, rng = lwcore.load("fashion-shufflenetv2"), np.random.default_rng(0)
    groups = couple(model).groups
    many = np.array([[rng.integers(0, g.channels) for g in groups] for _ in range(5)])
    each = [price(model, {g.name: int(n) for g, n in zip(groups, row, strict=True)}).macs for row in many]
    assert prices(model).macs.total(many).tolist() == each


def _problem(seed: int, keep: float, layers: int = 4) -> Knapsack:
    """A chain of layers: costs are products of neighbouring widths."""
    rng, widths = np.random.default_rng(seed), np.full(layers, 8)
    scales = rng.integers(1, 100, layers - 1)

    def costs(removed: np.ndarray) -> np.ndarray:
        left = widths - removed
        return np.asarray((left[..., 1:] * left[..., :-1] * scales).sum(axis=-1))

    removed = [np.outer(np.arange(0, 8, 2), np.eye(layers, dtype=int)[lever]) for lever in range(layers)]
    harms = [np.cumsum([0, *rng.random(3)]) for _ in removed]
    return Knapsack(removed, harms, costs, keep * float(costs(np.zeros(layers, dtype=int))))


def _fitting(problem: Knapsack) -> dict[tuple[int, ...], float]:
    """Every allocation within the limit, and its harm."""
    every = np.indices([4] * len(problem.removed)).reshape(len(problem.removed), -1).T
    removed = np.sum([problem.removed[i][every[:, i]] for i in range(every.shape[1])], axis=0)
    return {tuple(s): problem.harm(s) for s in every[problem.costs(removed) <= problem.limit].tolist()}


@given(seed=st.integers(0, 10_000), keep=st.floats(0.1, 0.95))
@settings(max_examples=80, deadline=None)
def test_few_levers_get_the_best_of_all_allocations(seed: int, keep: float) -> None:
    problem = _problem(seed, keep)
    fitting, found = _fitting(problem), problem.solve()
    assert (found is None) == (not fitting)
    assert found is None or fitting[tuple(found)] == pytest.approx(min(fitting.values()))


def test_many_levers_come_near_the_best_of_all_allocations() -> None:
    ratios = []
    for seed in range(12):
        problem = _problem(seed, keep=0.3 + 0.05 * seed, layers=7)
        fitting, found = _fitting(problem), problem.solve()
        assert found is not None
        ratios.append(fitting[tuple(found)] / min(fitting.values()))
    assert np.mean(ratios) < 1.05


@given(
    name=st.sampled_from(TRAINED),
    of=st.sampled_from(["macs", "params", "bytes"]),
    keep=st.floats(0.2, 1.0),
    align=st.sampled_from([1, 4, 8]),
    seed=st.integers(0, 100),
)
@settings(max_examples=30, deadline=None)
def test_a_shared_out_budget_is_never_exceeded(name: str, of: str, keep: float, align: int, seed: int) -> None:
    model = lwcore.load(name)
    counts = share_out(model, Budget(of=of, keep=keep), align, _pretend(model, seed))  # type: ignore[arg-type]
    field = {"macs": "macs", "params": "params", "bytes": "weight_bytes"}[of]
    before, after = cost(model), cost(_slim(model, counts))
    assert getattr(after, field) <= keep * getattr(before, field)
    assert all(0 <= counts[g.name] < g.channels for g in couple(model).groups)


@pytest.mark.parametrize("name", TRAINED)
def test_a_budget_is_used_up(name: str) -> None:
    model = lwcore.load(name)
    counts = share_out(model, Budget(keep=0.5), 8, _pretend(model))
    assert price(model, counts).macs > 0.48 * cost(model).macs


@pytest.mark.parametrize("name", TRAINED)
def test_whole_blocks_are_kept_where_the_budget_can_be_met_in_them(name: str) -> None:
    model = lwcore.load(name)
    counts = share_out(model, Budget(keep=0.5), 8, _pretend(model))
    stops = [lever.stops for lever in levers(model, 8)]
    assert all(any(all(counts[g] == n for g, n in stop.items()) for stop in each) for each in stops)


def test_a_group_that_hurts_more_gives_less() -> None:
    model = lwcore.load("fashion-squeezenet")
    known = _pretend(model)
    name = max(couple(model).groups, key=lambda g: g.channels).name
    before = share_out(model, Budget(keep=0.6), 8, known)
    harm = {**known.harm, name: tuple((share, 1000 * value) for share, value in known.harm[name])}
    after = share_out(model, Budget(keep=0.6), 8, dataclasses.replace(known, harm=harm))
    assert after[name] <= before[name]
    assert after[name] == 0


def test_a_group_set_by_hand_stays_and_the_budget_still_holds() -> None:
    model = lwcore.load("fashion-mobilenetv2")
    name = max(couple(model).groups, key=lambda g: g.channels).name
    step = Channels(budget=Budget(keep=0.6), groups={name: 0.0})
    plan = lwcore.plan(model, Recipe(steps=(step,)), _pretend(model))
    assert plan.amounts[name] == 0
    assert plan.after.macs <= 0.6 * plan.before.macs


@pytest.mark.parametrize("of", ["macs", "params", "bytes", "latency"])
def test_a_budget_out_of_reach_says_how_near_it_comes(of: str) -> None:
    model = lwcore.load("fashion-squeezenet")
    with pytest.raises(SlimError, match="with every group at its smallest"):
        share_out(model, Budget(of=of, keep=0.0001), 8, _pretend(model))  # type: ignore[arg-type]


def test_sensitivity_survives_json() -> None:
    known = dataclasses.replace(_pretend(lwcore.load("fashion-resnet20")), powers=((0.3, 0.5), (0.7, 1.0)))
    assert Sensitivity.from_json(known.to_json()) == known
    assert known.power(0.9) == 1.0
    assert known.power(0.1) == 0.5


def test_harm_never_falls_with_the_share() -> None:
    known = _pretend(lwcore.load("fashion-resnet20"))
    for name in known.harm:
        values = [known.at(name, share) for share in np.linspace(0, 1, 40)]
        assert values == sorted(values)


def test_answers_that_are_only_more_timid_are_no_harm() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 10)) * 4
    assert _distance(logits / np.exp(0.4), _softmax(logits)) < 1e-3
    assert _distance(-logits, _softmax(logits)) > 0.1


def test_a_time_budget_is_estimated_by_the_pace() -> None:
    model = lwcore.load("fashion-squeezenet")
    counts = share_out(model, Budget(of="latency", keep=0.6), 8, _pretend(model))
    known = prices(model)

    def time(of: dict[str, int]) -> float:
        return float(PACE.of(known.macs.total(known.removed(of)), known.values.total(known.removed(of))))

    assert time(counts) <= 0.6 * time({})


def test_a_time_budget_is_tightened_until_the_clock_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lwcore.load("fashion-squeezenet")

    def slower_than_thought(model: Model, counts: dict[str, int]) -> float:
        return 1.2 * price(model, counts).macs / price(model, {}).macs

    monkeypatch.setattr(allocate, "share_of_time", slower_than_thought)
    counts = share_out_by_clock(model, Budget(of="latency", keep=0.6), 8, _pretend(model))
    assert slower_than_thought(model, counts) <= 0.6


def test_a_time_budget_that_the_clock_never_grants_says_how_near_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lwcore.load("fashion-squeezenet")
    monkeypatch.setattr(allocate, "share_of_time", lambda model, counts: 0.99)
    with pytest.raises(SlimError, match=r"fastest proposal took 0\.99"):
        share_out_by_clock(model, Budget(of="latency", keep=0.9), 8, _pretend(model))


def test_a_real_clock_can_be_set_and_read() -> None:
    model = lwcore.load("fashion-squeezenet")
    pace = measure_pace(model)
    assert pace.fixed_ms >= 0
    assert pace.mac_ms + pace.value_ms > 0
    assert share_of_time(model, share_out(model, Budget(keep=0.3), 8, _pretend(model))) > 0


@pytest.mark.slow
def test_measured_sensitivity_repeats_and_shares_a_budget_out_as_planned() -> None:
    model = lwcore.load("fashion-squeezenet")
    samples = lwcore.load_samples("fashion-calibration", model).take(48)
    first, second = (measure_sensitivity(model, samples) for _ in range(2))
    assert (first.harm, first.powers) == (second.harm, second.powers)
    assert set(first.harm) == {g.name for g in couple(model).groups}
    assert any(harm > 0 for points in first.harm.values() for _, harm in points)
    recipe = Recipe(steps=(Channels(budget=Budget(keep=0.6)),))
    planned = lwcore.plan(model, recipe, first).after
    real = lwcore.apply(model, recipe, samples, first).after
    assert (planned.macs, planned.params) == (real.macs, real.params)
    assert real.macs <= 0.6 * cost(model).macs
