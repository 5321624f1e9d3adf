"""What a search is made of: samples in two halves, estimates, the space of recipes, the journal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lwcore
from lwcore.errors import SearchError
from lwcore.recipe import Recipe
from lwcore.searching.estimates import Estimator
from lwcore.searching.journal import Journal
from lwcore.searching.problem import SPLIT_FROM, Problem, pose
from lwcore.searching.space import UNIFORM, Choice, Space
from tests.search_world import MODEL


@pytest.fixture(scope="module")
def model():
    return lwcore.load(MODEL)


@pytest.fixture(scope="module")
def samples(model):
    return lwcore.load_samples("fashion-test", model, limit=SPLIT_FROM)


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


# -- estimates, space, journal -------------------------------------------------------------------------------------


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


def test_every_choice_of_the_space_is_a_recipe_that_survives_json(model):
    space, rng = Space(model, 0, "u8u8"), np.random.default_rng(0)
    drawn = space.draw(rng, 60)
    moved = [space.near(rng, choice) for choice in drawn]
    for choice in (*drawn, *moved, *space.first()):
        assert Recipe.loads(space.recipe(choice).dumps()) == space.recipe(choice)
    features = space.features([Choice(), Choice(channels=UNIFORM, keep=0.5)])
    assert not features[0].any()
    assert features[1][0] < -1  # half the channels are about a quarter of the MACs


def test_a_file_that_is_no_journal_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("milk, eggs")
    with pytest.raises(SearchError, match="expected a new file or the journal"):
        Journal(notes)
    assert notes.read_text() == "milk, eggs"
