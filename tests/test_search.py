"""Search: targets, device cards, estimates, the journal, and the laws of what is found."""

from __future__ import annotations

import base64
import json
import math
import os
import pkgutil
import signal
import threading
import time
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import lwcore
from lwcore.analysis.cost import cost
from lwcore.cli import main
from lwcore.errors import JobError, LwcoreError, SearchError
from lwcore.graph import Graph
from lwcore.jobs.tasks import run_task
from lwcore.recipe import Recipe
from lwcore.searching.beliefs import Goal
from lwcore.searching.clock import BESIDE
from lwcore.searching.devices import DEVICES, Device, fit
from lwcore.searching.estimates import Estimator
from lwcore.searching.executors import LocalProcesses
from lwcore.searching.find import search
from lwcore.searching.footprint import Footprint, footprint, peak_ram
from lwcore.searching.found import Found
from lwcore.searching.journal import Journal, place, so_far
from lwcore.searching.problem import SPLIT_FROM, Problem, Score, pose
from lwcore.searching.space import UNIFORM, Choice, Space
from lwcore.searching.targets import Target, limits
from lwcore.searching.trials import Trial, carry_out, find_sensitivity
from lwcore.store import Store
from tests.helpers import noise
from tests.tiny import tiny_model

MODEL = "fashion-squeezenet"


@pytest.fixture(scope="module")
def model():
    return lwcore.load(MODEL)


@pytest.fixture(scope="module")
def samples(model):
    return lwcore.load_samples("fashion-test", model, limit=SPLIT_FROM)


# -- targets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        {"drop": 1},
        {"size_bytes": 256000, "prefer": "speed"},
        {"speedup": 2, "macs": 0.5},
        {"device": "microcontroller", "latency_ms": 50},
    ],
)
def test_a_target_survives_json(data):
    target = Target.from_json(data)
    assert Target.from_json(json.loads(json.dumps(target.to_json()))) == target


@pytest.mark.parametrize(
    ("data", "where"),
    [
        ({}, "at least one of"),
        ({"drop": None}, "at least one of"),
        ([], "named limits"),
        ({"drop": -1}, "target.drop"),
        ({"drop": "1"}, "target.drop"),
        ({"drop": True}, "target.drop"),
        ({"size_bytes": 0}, "target.size_bytes"),
        ({"speedup": math.nan}, "target.speedup"),
        ({"macs": 0}, "target.macs"),
        ({"drop": 1, "prefer": "beauty"}, "target.prefer"),
        ({"drop": 1, "speed": 2}, "target.speed"),
        ({"device": "nosuch"}, "microcontroller"),
        ({"device": {"flash_bytes": 1}}, "target.device.ram_bytes"),
        ({"device": {"colour": 1}}, "target.device.colour"),
    ],
)
def test_a_bad_target_is_a_sentence_that_names_the_fault(data, where):
    with pytest.raises(LwcoreError, match=where):
        Target.from_json(data)


def test_what_is_preferred_follows_from_what_is_limited():
    assert Target(drop=1).wanted == "size"
    assert Target(size_bytes=1000).wanted == "accuracy"
    assert Target(drop=1, speedup=2).wanted == "accuracy"
    assert Target(drop=1, prefer="macs").wanted == "macs"


def test_a_share_of_the_macs_is_a_count_of_this_model():
    assert [limit.value for limit in limits(Target(macs=0.5), 1000)] == [500]
    assert [limit.value for limit in limits(Target(macs=70), 1000)] == [70]


def test_a_limit_is_kept_on_the_digit_and_missed_beyond_it():
    (limit,) = limits(Target(speedup=2), 1)
    assert limit.met(2.0)
    assert not limit.met(1.999)
    assert limit.beyond(1.0) == 1.0
    assert limit.beyond(3.0) == 0.0


# -- devices -------------------------------------------------------------------------------------------------------


def graph_of(*nodes, size=10, constants=()):
    """A graph of float vectors of ten that takes `x` and gives the last node's first output."""
    out = nodes[-1].output[0]
    names = [name for node in nodes for name in node.output if name != out]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, size]) for n in ("x", *names, out)]
    body = helper.make_graph(list(nodes), "g", infos[:1], infos[-1:], list(constants), value_info=infos[1:-1])
    return Graph(helper.make_model(body))


def node(kind, inputs, output):
    return helper.make_node(kind, inputs, [output])


def test_peak_memory_is_the_largest_sum_alive_at_once():
    chain = graph_of(node("Sin", ["x"], "a"), node("Cos", ["a"], "b"), node("Sin", ["b"], "y"))
    assert peak_ram(chain) == 2 * 40
    shortcut = graph_of(node("Sin", ["x"], "a"), node("Cos", ["a"], "b"), node("Add", ["b", "x"], "y"))
    assert peak_ram(shortcut) == 3 * 40


def test_views_and_what_runs_in_place_take_no_memory():
    viewed = graph_of(
        node("Sin", ["x"], "a"), node("Identity", ["a"], "b"), node("Relu", ["b"], "c"), node("Sin", ["c"], "y")
    )
    assert peak_ram(viewed) == 2 * 40
    read_twice = graph_of(node("Sin", ["x"], "a"), node("Relu", ["a"], "b"), node("Add", ["a", "b"], "y"))
    assert peak_ram(read_twice) == 3 * 40


def test_a_view_keeps_alive_what_it_looks_at():
    graph = graph_of(
        node("Sin", ["x"], "a"), node("Identity", ["a"], "v"), node("Cos", ["x"], "b"), node("Cos", ["b"], "c"),
        node("Add", ["v", "c"], "y"),
    )  # fmt: skip
    assert peak_ram(graph) == 3 * 40


def test_int8_takes_a_quarter_of_the_memory(model):
    step = lwcore.Precision(format="int8-static", variant="u8u8", samples=8)
    calibration = lwcore.load_samples("fashion-calibration", model, limit=8)
    slim = lwcore.apply(model, lwcore.Recipe(steps=(step,)), samples=calibration)
    assert footprint(slim.model).ram_bytes == footprint(model).ram_bytes / 4


def test_a_footprint_adds_up_to_the_model_and_survives_json(model):
    needs = footprint(model)
    assert sum(load.macs for load in needs.loads) == cost(model).macs
    assert needs.file_bytes == model.size_bytes
    assert Footprint.from_json(json.loads(json.dumps(needs.to_json()))) == needs


def test_latency_is_the_slower_of_arithmetic_and_memory_and_names_the_bottleneck(model):
    def times(macs, moved):
        card = Device(flash_bytes=1e9, ram_bytes=1e9, macs_per_second=macs, bytes_per_second=moved)
        return fit(model, card)

    computing, moving = times(1e6, 1e15), times(1e15, 1e6)
    assert computing.latency_ms == pytest.approx(1000 * cost(model).macs / 1e6)
    assert computing.bottleneck.bound == "compute"
    assert moving.bottleneck.bound == "memory"
    both = times(1e6, 1e6)
    assert max(computing.latency_ms, moving.latency_ms) <= both.latency_ms
    assert both.latency_ms <= computing.latency_ms + moving.latency_ms


def test_room_is_judged_to_the_byte(model):
    needs = footprint(model)

    def card(flash, ram):
        return Device(flash_bytes=flash, ram_bytes=ram, macs_per_second=1e9, bytes_per_second=1e9)

    assert fit(model, card(needs.file_bytes, needs.ram_bytes)).fits
    assert not fit(model, card(needs.file_bytes - 1, needs.ram_bytes)).fits
    assert not fit(model, card(needs.file_bytes, needs.ram_bytes - 1)).fits


def test_every_shipped_device_is_labelled_as_pretend_and_survives_json():
    for name, device in DEVICES.items():
        assert device.title.startswith("Pretend")
        assert Device.from_json(name) == Device.from_json(device.to_json()) == device


# -- estimates -----------------------------------------------------------------------------------------------------


def test_estimates_pass_through_what_was_measured_and_are_unsure_elsewhere():
    rng = np.random.default_rng(0)
    features = rng.uniform(-1, 1, (12, 3))
    values = features @ np.array([3.0, -1.0, 0.0]) + 0.3 * np.sin(3 * features[:, 0])
    estimator = Estimator(features, values, noise=0.01)
    there, far = estimator.at(features), estimator.at(features + 5)
    assert np.abs(there.mean - values).max() < 0.05
    assert there.std.max() < far.std.min()


def test_what_two_methods_do_together_is_expected_from_each_alone():
    alone = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], float)
    estimator = Estimator(alone, alone @ np.array([1.0, 2.0, 4.0]), noise=0.01)
    assert estimator.at(np.array([[1.0, 1.0, 0.0]])).mean[0] == pytest.approx(3.0, abs=0.6)


# -- samples -------------------------------------------------------------------------------------------------------


def problem_of(model, samples, seed=0):
    logits = np.random.default_rng(1).standard_normal((len(samples), 10))
    return pose(model, samples, samples, [logits], seed)


def test_half_of_the_samples_choose_and_the_other_half_is_held_out(model, samples):
    problem = problem_of(model, samples)
    assert problem.split == len(samples) // 2
    first, second = (np.bincount(problem.samples.labels[s]) for s in (slice(problem.split), slice(problem.split, None)))
    assert np.abs(first - second).max() <= 1
    choice, held_out = problem.score(problem.answers)
    assert (choice.drop, held_out.drop) == (0.0, 0.0)
    whole = choice.plus(held_out)
    assert whole.n == len(samples)
    assert whole.quality == pytest.approx(float((problem.answers == problem.samples.labels).mean()))


def test_too_few_samples_are_not_split(model, samples):
    problem = problem_of(model, samples.take(SPLIT_FROM - 1))
    assert problem.score(problem.answers)[1] is None


def test_a_problem_survives_its_bytes(model, samples):
    problem = problem_of(model, samples)
    again = Problem.from_bytes(problem.to_bytes())
    assert again.key == problem.key
    assert again.model.card == model.card
    assert problem_of(model, samples, seed=1).key != problem.key


def test_no_samples_are_a_sentence(model, samples):
    with pytest.raises(SearchError, match="found none"):
        problem_of(model, samples.take(0))


# -- the search in a made-up world ---------------------------------------------------------------------------------


class World(Executor):
    """Answers trials from a formula: sizes and losses that any recipe would have, nothing is run."""

    def __init__(self, model, fails=()):
        self.model, self.fails, self.asked = model, set(fails), []
        self.needs = footprint(model)

    def submit(self, fn, /, *args, **kwargs):
        future: Future = Future()
        if fn is find_sensitivity:
            future.set_result(json.dumps({"error": "no budgets in this world"}))
            return future
        request = json.loads(args[1])
        recipe = Recipe.from_json(request["recipe"])
        answer = {"trial": self.trial(recipe).to_json()}
        if request["keep"]:
            answer |= {"model": base64.b64encode(self.model.data).decode(), "notes": [], "seconds": 0.0}
        self.asked.append(recipe.dumps())
        future.set_result(json.dumps(answer))
        return future

    def trial(self, recipe):
        size, macs, lost = float(self.model.size_bytes), float(cost(self.model).macs), 0.0
        for step in recipe.steps:
            if {step.kind, getattr(step, "format", "")} & self.fails:
                return Trial(recipe=recipe, error="it cannot be done here")
            if step.kind == "channels":
                share = (1 - step.amount) ** 2
                size, macs, lost = size * (0.9 * share + 0.1), macs * share, lost + 0.8 * math.log(share) ** 2
            elif step.kind == "blocks":
                size, macs, lost = size * (1 - step.amount), macs * (1 - step.amount), lost + 9 * step.amount
            elif step.kind == "low-rank":
                macs, lost = macs * step.budget.keep, lost + 4 * (1 - step.budget.keep)
            else:
                factor, cruel = {"fp16": (0.5, 0), "int8-static": (0.4, 0.3), "int8-weights": (0.4, 0.1)}.get(
                    step.format, (0.3, 2.0)
                )
                size, lost = size * factor, lost + cruel
        counts = lwcore.Cost(params=1, macs=int(macs), weight_bytes=1, size_bytes=int(size))
        noisy = np.random.default_rng(len(recipe.dumps())).normal(0, 0.2, 2)
        scores = [Score(n=200, quality=0.9 - (lost + extra) / 100, reference=0.9) for extra in noisy]
        return Trial(recipe=recipe, cost=counts, choice=scores[0], held_out=scores[1], footprint=self.needs)


def found_in(world, samples, target, trials=24, **more):
    return search(world.model, samples, target, seconds=None, trials=trials, executor=world, **more)


@dataclass(frozen=True)
class Long:
    """A search of forty trials, and what it told while it went on."""

    found: Found
    shares: list[float]
    seen: list[Trial]


@pytest.fixture(scope="module")
def long(model, samples):
    shares, seen = [], []
    found = found_in(
        World(model), samples, Target(drop=1), 40, progress=lambda share, _: shares.append(share), watch=seen.append
    )
    return Long(found, shares, seen)


def test_the_same_seed_tries_the_same_and_budgets_of_trials_are_kept(model, samples, long):
    again = found_in(World(model), samples, Target(drop=1), trials=20)
    assert len(again.trials) == 1 + 20  # the original costs nothing
    assert [t.recipe for t in again.trials] == [t.recipe for t in long.found.trials[:21]]


def test_what_is_found_keeps_the_limit_on_both_halves_and_is_the_smallest_that_does(model, long):
    found = long.found
    assert found.met
    chosen = next(t for t in found.trials if t.recipe == found.slimmed.recipe)
    assert max(chosen.choice.drop, chosen.held_out.drop) <= 1
    assert found.held_out == chosen.held_out
    keeping = [t for t in found.trials if max(t.choice.drop, t.held_out.drop) <= 1]
    assert chosen.cost.size_bytes == min(t.cost.size_bytes for t in keeping)
    assert chosen.cost.size_bytes < 0.25 * model.size_bytes  # 0.16 is the best of this world, and each half is noisy


def test_estimates_find_more_than_the_first_fixed_trials(model, samples, long):
    short = found_in(World(model), samples, Target(drop=1), trials=8)
    assert long.found.trials[: len(short.trials)] == short.trials
    sizes = [next(t.cost.size_bytes for t in f.trials if t.recipe == f.slimmed.recipe) for f in (short, long.found)]
    assert sizes[1] < sizes[0]


def test_a_size_limit_is_met_with_the_smallest_loss(model, samples):
    limit = 0.3 * model.size_bytes
    found = found_in(World(model), samples, Target(size_bytes=limit), trials=30)
    assert found.met
    (verdict,) = found.verdicts
    assert verdict.limit.name == "size_bytes"
    assert verdict.found <= limit


def test_a_target_out_of_reach_says_which_limit_and_how_near(model, samples):
    found = found_in(World(model), samples, Target(size_bytes=100, drop=0.5), trials=12)
    assert not found.met
    assert found.words.startswith("Not met by any of 13 recipes")
    assert "Nothing tried came nearer to this limit: file" in found.words
    assert {v.limit.name: v.met for v in found.verdicts}["size_bytes"] is False


def test_a_method_that_fails_is_left_alone(model, samples):
    world = World(model, fails=("int8-static", "low-rank"))
    found = found_in(world, samples, Target(drop=1), trials=30)
    assert found.met
    assert sum("int8-static" in text for text in world.asked) <= 3  # those asked for before the first failure was heard
    assert sum("low-rank" in text for text in world.asked) <= 1


def test_a_search_goes_on_from_its_journal_and_measures_nothing_twice(model, samples, tmp_path, long):
    path, first, second = tmp_path / "journal", World(model), World(model)

    class Cut(Exception):
        pass

    def cut(trial):
        if trial.number == 9:
            raise Cut

    with pytest.raises(Cut):
        found_in(first, samples, Target(drop=1), 14, journal=path, watch=cut)
    with path.open("ab") as file:
        file.write(b'{"key": "of another version", "choice": {"energy": 1}, "trial": {}}\n{"key": "cut off in the mid')
    found = found_in(second, samples, Target(drop=1), 14, journal=path)
    assert len(Journal(path)) == 14
    taken = {found.slimmed.recipe.dumps()}  # its file is made again; the journal holds numbers only
    assert set(first.asked[:9]) & set(second.asked) <= taken
    assert [t.recipe for t in found.trials] == [t.recipe for t in long.found.trials[:15]]
    third = World(model)
    found_in(third, samples, Target(drop=1), 14, journal=path)
    assert set(third.asked) <= taken


def test_the_front_holds_what_no_other_beats(long):
    found = long.found
    front = found.front
    assert [t.cost.size_bytes for t in front] == sorted(t.cost.size_bytes for t in front)
    for trial in front:
        assert not any(
            o.cost.size_bytes <= trial.cost.size_bytes and o.score.quality > trial.score.quality for o in found.trials
        )
    json.dumps(found.to_json())


def test_progress_rises_and_every_trial_is_told(long):
    assert long.shares == sorted(long.shares)
    assert 0 <= long.shares[0] <= long.shares[-1] <= 1
    assert [t.number for t in long.seen] == list(range(41))


@pytest.mark.parametrize("timed", [{"speedup": 2}, {"latency_ms": 0.001}, {"prefer": "speed"}])
def test_a_goal_in_time_ends_even_where_no_trial_has_a_time(model, samples, timed):
    found = found_in(World(model), samples, Target(drop=1, size_bytes=1, **timed), trials=2)
    assert not found.met
    assert len(found.verdicts) == 2 + ("prefer" not in timed)
    assert found.words.count("Nothing tried came nearer") >= len(found.verdicts) - 1


# -- against the clock ---------------------------------------------------------------------------------------------


class Busy(World):
    """A loaded machine: every trial takes a while, and sensitivity never ends."""

    def __init__(self, model, seconds):
        super().__init__(model)
        self._seconds, self.learning = seconds, []

    def submit(self, fn, /, *args, **kwargs):
        if fn is find_sensitivity:
            self.learning.append((len(self.asked), args[1]))
            return Future()
        late, known = Future(), super().submit(fn, *args, **kwargs).result()
        late.set_running_or_notify_cancel()
        threading.Timer(self._seconds, late.set_result, (known,)).start()
        return late


def test_sensitivity_waits_for_the_first_trials_and_gets_a_share_of_the_time(model, samples):
    world = Busy(model, 0.05)
    found = search(model, samples, Target(drop=1), seconds=6, trials=13, executor=world)
    ((asked, seconds),) = world.learning
    assert asked >= 2
    assert 0 < seconds <= 6 * BESIDE
    assert found.met
    assert not any(
        getattr(step, "budget", None) and step.kind == "channels" for t in found.trials for step in t.recipe.steps
    )
    assert found.slimmed.after.size_bytes <= model.size_bytes


def test_a_search_without_time_still_measures_int8_and_takes_it(model, samples):
    found = search(model, samples, Target(drop=1), seconds=0.2, executor=Busy(model, 0.5))
    assert found.met
    assert [step.kind for step in found.slimmed.recipe.steps] == ["precision"]
    assert len(found.trials) <= 3


def test_sensitivity_is_given_up_when_it_would_take_too_long():
    model = tiny_model()
    pictures = noise(model, 16)
    problem = pose(model, pictures, pictures, [np.eye(10)[np.arange(16) % 10]], 0).to_bytes()
    assert "would take longer" in json.loads(find_sensitivity(problem, 1e-9))["error"]
    assert "harm" in json.loads(find_sensitivity(problem, 1e9))


def test_nothing_to_search_with_is_a_sentence(model, samples):
    with pytest.raises(SearchError):
        search(model, samples, Target(drop=1), seconds=0)
    with pytest.raises(SearchError):
        found_in(World(model), samples, Target(drop=1), trials=0)


def test_every_choice_of_the_space_is_a_recipe_that_survives_json(model):
    space, rng = Space(model, 0, "u8u8"), np.random.default_rng(0)
    drawn = space.draw(rng, 60)
    moved = [space.near(rng, choice) for choice in drawn]
    for choice in (*drawn, *moved, *space.first()):
        assert Recipe.loads(space.recipe(choice).dumps()) == space.recipe(choice)
    features = space.features([Choice(), Choice(channels=UNIFORM, keep=0.5)])
    assert not features[0].any()
    assert features[1][0] < -1  # half the channels are about a quarter of the MACs


# -- for real ------------------------------------------------------------------------------------------------------


class Inline(Executor):
    """Runs trials at once, in this process; sensitivity, which takes longest, is not to be had."""

    def submit(self, fn, /, *args, **kwargs):
        future: Future = Future()
        future.set_result(json.dumps({"error": "no budgets here"}) if fn is find_sensitivity else fn(*args))
        return future


@pytest.mark.slow
def test_a_model_is_really_slimmed_and_measured(model, samples):
    calibration = lwcore.load_samples("fashion-calibration", model, limit=32)
    found = search(
        model, samples, Target(drop=3), calibration=calibration, seconds=None, trials=3, executor=Inline()
    )  # fmt: skip
    assert found.met
    assert found.evaluation.size_bytes == found.slimmed.model.size_bytes < model.size_bytes
    assert found.evaluation.n == len(samples)
    chosen = next(t for t in found.trials if t.recipe == found.slimmed.recipe)
    assert chosen.cost == found.slimmed.after
    assert chosen.score.quality == pytest.approx(found.evaluation.top1)
    again = lwcore.apply(model, found.slimmed.recipe, samples=calibration)
    assert again.model.data == found.slimmed.model.data


def test_what_low_rank_and_blocks_rest_on_is_measured_once_a_process(monkeypatch):
    model = tiny_model()
    pictures = noise(model, 32)
    problem = pose(model, pictures, pictures, [np.eye(10)[np.arange(32) % 10]], 1).to_bytes()
    steps = (*(lwcore.LowRank(energy=e) for e in (0.5, 0.9)), *(lwcore.Blocks(amount=a) for a in (0.3, 0.5)))
    alone = [lwcore.apply(model, Recipe(steps=(step,)), samples=pictures).model.data for step in steps]
    calls = []
    for function in ("lowrank.spectra.measure_layers", "blocks.dropping_order"):
        name = f"lwcore.slimming.{function}"
        real = pkgutil.resolve_name(name)
        monkeypatch.setattr(name, lambda *given, real=real, name=function: calls.append(name) or real(*given))
    for step, data in zip(steps, alone, strict=True):
        asked = {"recipe": Recipe(steps=(step,)).to_json(), "sensitivity": None, "timed": False, "keep": True}
        answer = json.loads(carry_out(problem, json.dumps(asked)))
        assert base64.b64decode(answer["model"]) == data
    assert calls == ["lowrank.spectra.measure_layers", "blocks.dropping_order"]


def test_unlabelled_samples_are_judged_by_agreement():
    model = tiny_model()
    pictures = noise(model, 40)
    found = search(model, pictures, Target(size_bytes=10**6), seconds=None, trials=2, executor=Inline())
    assert found.met
    assert found.held_out is None
    assert any("too few samples (40)" in note for note in found.slimmed.notes)
    assert any("flatters" in note for note in found.slimmed.notes)


def test_the_task_keeps_model_and_journal_in_the_store(tmp_path, samples, monkeypatch):
    monkeypatch.setattr("lwcore.searching.find.open_pool", lambda executor: _inline_pool())
    monkeypatch.setattr("lwcore.searching.task.LEAST_SECONDS", 0.1)
    store = Store(tmp_path)
    few = lwcore.load_samples("fashion-calibration", lwcore.load(MODEL), limit=32)
    arguments = {"model": MODEL, "samples": store.put_samples(samples), "target": {"drop": 5}, "seconds": 2, "seed": 0}
    arguments["calibration"] = store.put_samples(few)
    assert so_far(store, arguments) == []
    result = json.loads(json.dumps(run_task("search", arguments, store, lambda *_: None)))
    assert store.model(result["model"]).size_bytes == result["after"]["size_bytes"]
    assert so_far(store, arguments) == so_far(store, arguments | {"seconds": 60})
    assert len(so_far(store, arguments)) == len(result["trials"]) - 1
    assert place(store, arguments) != place(store, arguments | {"seed": 1})
    from lwcore.scenarios import Attempt

    assert Attempt.from_result(MODEL, arguments["samples"], result).evaluation.n == len(samples)


def _inline_pool():
    from lwcore.searching.executors import Pool

    return Pool(executor=Inline(), workers=1, share=lambda data: data, close=lambda: None)


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"seconds": "x"}, {"seed": -1}, {"target": {"drop": -1}}])
def test_bad_arguments_of_the_task_are_sentences(tmp_path, wrong):
    arguments = {"model": MODEL, "samples": "fashion-test", "target": {"drop": 1}} | wrong
    with pytest.raises(SearchError):
        run_task("search", arguments, Store(tmp_path), lambda *_: None)


@pytest.mark.parametrize(
    "options",
    [
        ("--samples", "fashion-test"),
        ("--drop", "1"),
        ("--samples", "fashion-test", "--drop", "x"),
        ("--samples", "fashion-test", "--drop", "-1"),
        ("--samples", "fashion-test", "--size-kb", "0"),
        ("--samples", "fashion-test", "--device", "nosuch"),
        ("--samples", "fashion-test", "--device", "/no/such.json"),
        ("--samples", "fashion-test", "--drop", "1", "--prefer", "beauty"),
        ("--samples", "fashion-test", "--drop", "1", "--trials", "0"),
        ("--samples", "nosuch", "--drop", "1"),
        ("--samples", "fashion-test", "--drop", "1", "--out", "x.bin"),
    ],
    ids=" ".join,
)
def test_bad_options_of_the_command_are_one_sentence(capsys, options):
    assert main(["search", MODEL, *options]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert "fault of lwcore" not in told.err


def test_the_command_tells_what_was_found_and_writes_it(capsys, long, monkeypatch, tmp_path):
    found = long.found
    monkeypatch.setattr(lwcore, "search", lambda *arguments, **options: found)
    out = tmp_path / "small.onnx"
    told = ["search", MODEL, "--samples", "fashion-test", "--drop", "1", "--out", str(out)]
    assert main([*told, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["met"]
    assert lwcore.load(str(out)).data == found.slimmed.model.data
    assert main(told) == 0
    assert "points lost" in capsys.readouterr().out


# -- local processes -----------------------------------------------------------------------------------------------


@pytest.fixture
def processes():
    made = LocalProcesses(1)
    yield made
    made.shutdown(cancel_futures=True)


def test_work_of_a_killed_process_is_done_again_by_another(processes, tmp_path):
    problem = tmp_path / "problem"
    pictures = noise(tiny_model(), 16)
    logits = np.eye(10)[np.arange(16) % 10][:, : len(tiny_model().card.classes) or 10]
    problem.write_bytes(pose(tiny_model(), pictures, pictures, [logits], 0).to_bytes())
    request = json.dumps({"recipe": Recipe().to_json(), "sensitivity": None, "timed": False, "keep": False})
    future = processes.submit(carry_out, str(problem), request)
    while not processes.pids():
        time.sleep(0.01)
    os.kill(processes.pids()[0], signal.SIGKILL)
    trial = Trial.from_json(json.loads(future.result(timeout=120))["trial"])
    assert trial.error is None
    assert trial.cost == cost(tiny_model())


def test_a_foreign_function_is_refused_by_the_worker(processes):
    with pytest.raises(JobError, match="expected a function of lwcore"):
        processes.submit(os.getpid).result(timeout=120)


def test_a_processor_pool_ends_its_processes(processes):
    while not processes.pids():
        time.sleep(0.01)
    pid = processes.pids()[0]
    processes.shutdown(cancel_futures=True)
    assert processes.pids() == []
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_goal_scales_every_number_it_limits(model):
    world = World(model)
    target = Target(drop=1, macs=0.5, size_bytes=1000, device=DEVICES["microcontroller"], latency_ms=5)
    goal = Goal.of(target, cost(model).macs)
    assert {limit.name for limit in goal.limits} <= goal.raw(world.trial(Recipe())).keys()
    assert goal.misses(world.trial(Recipe())) > 0
    assert goal.misses(Trial(recipe=Recipe(), error="no")) == math.inf


def test_a_file_that_is_no_journal_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("milk, eggs")
    with pytest.raises(SearchError, match="expected a new file or the journal"):
        Journal(notes)
    assert notes.read_text() == "milk, eggs"
