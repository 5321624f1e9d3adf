"""Training on the Slim page: it begins when it is asked for, shows its curves, and what was learnt can be taken."""

from __future__ import annotations

from pathlib import Path

import pytest

import lwcore
from lwcore.recipe import Channels, Distill, Recipe
from lwcore.slimming.distillation.kept import Keeper, keys
from lwcore.slimming.distillation.lessons import Point, Taught, Trained
from lwcore.store import Store
from pages.ui import service
from pages.ui.workspaces import links
from tests.test_pages import MODEL, InstantJobs, at, opened

RECIPE = Recipe(steps=(Channels(amount=0.4), Distill(minutes=1.0)))


class TrainingJobs(InstantJobs):
    """Every training is done at once, too."""

    def distill(self, model: str, recipe: dict, samples: str, train: bool) -> dict:
        return self.measure(model, recipe, samples)


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> TrainingJobs:
    made = TrainingJobs()
    monkeypatch.setattr(service, "jobs", lambda: made)
    return made


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    made = Store(tmp_path)
    monkeypatch.setattr(service, "store", lambda: made)
    return made


def left(store: Store, finished: bool) -> None:
    """A training as a worker leaves it."""
    points = [
        Point(seconds=20.0 * i, steps=30 * i, loss=1.0 / i if i else None, score=0.8 + 0.03 * i) for i in range(4)
    ]
    one = Trained(model=lwcore.load(MODEL), curve=tuple(points))
    keeper = Keeper(store, keys(MODEL, RECIPE)[1])
    keeper.keep(Taught(student=one, control=one), finished)
    keeper.score("fashion-test", {"student": 0.93, "control": 0.91})


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_training_begins_when_it_is_asked_for(jobs: TrainingJobs, store: Store, language: str) -> None:
    """Choosing it measures nothing by itself; the button asks the task that trains."""
    app = at(opened(language, recipe=links.to_link(RECIPE)), "slim")
    assert not app.exception
    assert app.number_input(key="distill-minutes").value == 1.0
    assert "distill" not in [task for task, _ in jobs.asked]
    app.button(key="measure").click().run()
    task, asked = jobs.asked[-1]
    assert (task, asked["train"]) == ("distill", True)
    assert asked["recipe"] == RECIPE.to_json()
    app.run()
    assert not app.exception
    assert "90.0 %" in "".join(m.value for m in app.markdown)


def test_a_training_that_was_broken_off_offers_its_best_state(jobs: TrainingJobs, store: Store) -> None:
    """With both curves; the button takes it without training."""
    left(store, finished=False)
    app = at(opened(recipe=links.to_link(RECIPE)), "slim")
    assert not app.exception
    assert len(app.get("vega_lite_chart")) == 2
    app.button(key="training-take").click().run()
    task, asked = jobs.asked[-1]
    assert (task, asked["train"]) == ("distill", False)


def test_a_training_that_is_done_is_measured_by_itself(jobs: TrainingJobs, store: Store) -> None:
    """And student and control are told beside each other."""
    left(store, finished=True)
    app = at(opened(recipe=links.to_link(RECIPE)), "slim")
    app.run()
    assert not app.exception
    assert "93.0 %** with the teacher, 91.0 %" in "".join(m.value for m in app.markdown)


def test_teachers_are_those_with_the_same_classes() -> None:
    """The other Fashion-MNIST models, not the model itself, nor one of another task or with random weights."""
    found = service.teachers(MODEL, ())
    assert "fashion-resnet20" in found
    assert MODEL not in found
    assert all(name.startswith("fashion-") for name in found)


def test_a_recipe_that_trains_is_told_in_words(jobs: TrainingJobs, store: Store) -> None:
    """By minutes, by steps, and without a teacher."""
    steps = (Distill(minutes=2.5), Distill(steps=1000), Distill(labels=1.0))
    app = at(opened(recipe=links.to_link(Recipe(steps=steps))), "slim")
    app.session_state["order"] = True  # the list is drawn once it is opened
    app.run()
    assert not app.exception
    told = [text.value for text in app.text]
    assert {"taught 2.5 min", "taught 1,000 steps", "fine-tuned 2 min"} <= set(told)
