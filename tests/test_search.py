"""Search: the laws of what is found, in a made-up world, against the clock, and for real."""

from __future__ import annotations

import base64
import json
import pkgutil
import threading
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import pytest

import lwcore
from lwcore.errors import SearchError
from lwcore.recipe import Recipe
from lwcore.searching.clock import BESIDE
from lwcore.searching.find import search
from lwcore.searching.found import Found
from lwcore.searching.journal import Journal
from lwcore.searching.problem import SPLIT_FROM, pose
from lwcore.searching.targets import Target
from lwcore.searching.trials import Trial, carry_out, find_sensitivity
from tests.helpers import noise
from tests.search_world import MODEL, Inline, World, found_in
from tests.tiny import tiny_model


@pytest.fixture(scope="module")
def model():
    return lwcore.load(MODEL)


@pytest.fixture(scope="module")
def samples(model):
    return lwcore.load_samples("fashion-test", model, limit=SPLIT_FROM)


# -- in a made-up world --------------------------------------------------------------------------------------------


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


def test_nothing_to_search_with_is_a_sentence(model, samples):
    with pytest.raises(SearchError):
        search(model, samples, Target(drop=1), seconds=0)
    with pytest.raises(SearchError):
        found_in(World(model), samples, Target(drop=1), trials=0)


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


# -- for real ------------------------------------------------------------------------------------------------------


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
