"""Training in a recipe, as a job and on the command line: planned exactly, kept as it goes, never done twice."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import lwcore
from lwcore import cli
from lwcore.errors import SlimError
from lwcore.jobs.table import limits_of
from lwcore.jobs.tasks import TASKS, run_task
from lwcore.model import Card
from lwcore.progress import silent
from lwcore.recipe import Channels, Distill, Precision, Recipe
from lwcore.settings import Settings
from lwcore.slimming.command import read_recipe
from lwcore.slimming.distillation import kept, training
from lwcore.slimming.distillation.lessons import Lessons, Point, Taught, Trained
from lwcore.store import Store
from tests.tiny import CLASSES, SPEC, tiny_model, tiny_samples

FEW = Distill(steps=3)


@pytest.fixture(autouse=True)
def _few_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LOOKS", 4)


def test_a_plan_is_exact_for_a_recipe_that_trains() -> None:
    """Training moves weights, not sizes."""
    model, recipe = tiny_model(), Recipe(steps=(Channels(amount=0.25, align=1), FEW))
    slim = lwcore.apply(model, recipe, tiny_samples())
    planned = lwcore.plan(model, recipe).after
    assert (planned.params, planned.macs) == (slim.after.params, slim.after.macs)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def ask(store: Store, task: str, recipe: Recipe, **more: object) -> dict[str, object]:
    model = store.put_model(dataclasses.replace(tiny_model(), card=Card(name="t", classes=CLASSES, input=SPEC)))
    samples = store.put_samples(tiny_samples())
    given = {"model": model, "recipe": recipe.to_json(), "samples": samples, "latency": False, **more}
    return run_task(task, given, store, silent)


def test_the_task_trains_and_later_questions_do_not(store: Store) -> None:
    """`measure` refuses what is not trained yet, and afterwards measures the same file, whatever step follows."""
    recipe = Recipe(steps=(Channels(amount=0.5, align=1), Distill(steps=4, rate=0.02)))
    with pytest.raises(SlimError, match="Train it first"):
        ask(store, "measure", recipe)
    found = ask(store, "distill", recipe)
    assert {"student", "control", "scores"} <= found["training"][0].keys()
    assert ask(store, "measure", recipe)["model"] == found["model"]
    longer = Recipe(steps=(*recipe.steps, Precision(format="fp16")))
    assert ask(store, "measure", longer)["after"]["weight_bytes"] < found["after"]["weight_bytes"]


def test_what_was_learnt_survives_a_training_that_is_broken_off(store: Store) -> None:
    """Curve and best state are in the store, and can be taken as they are."""
    recipe = Recipe(steps=(Channels(amount=0.5, align=1), Distill(steps=40, rate=0.05)))

    def tell(share: float, message: str) -> None:
        if message == "learning" and share > 0:
            raise KeyboardInterrupt

    model = store.put_model(dataclasses.replace(tiny_model(), card=Card(name="t", classes=CLASSES, input=SPEC)))
    given = {"model": model, "recipe": recipe.to_json(), "samples": store.put_samples(tiny_samples())}
    with pytest.raises(KeyboardInterrupt):
        run_task("distill", given, store, tell)
    about = kept.so_far(store, kept.keys(model, recipe)[1])
    assert about is not None
    assert not about["finished"]
    found = run_task("distill", {**given, "train": False, "latency": False}, store, silent)
    assert found["training"][0]["student"] == about["student"]


def test_nothing_is_taken_where_nothing_began(store: Store) -> None:
    """A sentence, no training."""
    with pytest.raises(SlimError, match="expected one that had begun"):
        ask(store, "distill", Recipe(steps=(FEW,)), train=False)
    with pytest.raises(SlimError, match="at most 60 minutes"):
        ask(store, "distill", Recipe(steps=(Distill(minutes=100),)))


def test_a_teacher_is_found_by_reference_and_its_samples_too() -> None:
    """What the step names is asked for, once each."""
    names: list[str] = []
    lessons = Lessons(
        teacher=lambda ref: names.append(ref) or tiny_model(seed=1),
        samples=lambda ref, model: names.append(ref) or tiny_samples(),
        watch=lambda position, taught, finished: names.append(f"{position} {finished}") if finished else None,
    )
    lwcore.apply(tiny_model(), Recipe(steps=(Distill(steps=2, teacher="t", samples="s"),)), lessons=lessons)
    assert names == ["t", "s", "0 True"]


def test_a_training_that_is_kept_is_not_done_again() -> None:
    """Its model comes out."""
    model, other = tiny_model(), tiny_model(seed=5)
    curve = (Point(seconds=0.0, steps=0, loss=None, score=0.5), Point(seconds=1.0, steps=9, loss=0.1, score=0.75))
    lessons = Lessons(kept={0: Taught(student=Trained(model=other, curve=curve))})
    slim = lwcore.apply(model, Recipe(steps=(FEW,)), lessons=lessons)
    assert slim.model.data == other.data
    assert slim.notes == (
        "Trained for 1 s and 9 steps; on samples held out from the training 50.0 % before, 75.0 % after.",
    )


def test_a_job_has_the_minutes_of_its_recipe() -> None:
    """Those of the control, too, on top of the usual limit; and no more than the server gives."""
    settings, task = Settings(job_seconds=100, training_minutes=30), TASKS["distill"]

    def seconds(minutes: float, **more: object) -> int:
        recipe = Recipe(steps=(Distill(minutes=minutes),)).to_json()
        return limits_of(task, {"recipe": recipe, **more}, settings).seconds

    assert seconds(5) == 100 + 600
    assert seconds(5, control=False) == 100 + 300
    assert seconds(600) == 100 + 3600
    assert limits_of(TASKS["measure"], {"recipe": {}}, settings).seconds == 100
    assert limits_of(task, {"recipe": "nonsense"}, settings).seconds == 100


def test_the_command_line_says_a_training() -> None:
    """Between what is removed and what is rounded; what is not said keeps its default."""

    def read(line: str) -> Recipe:
        return read_recipe(cli._parser().parse_args(["slim", "m", *line.split(), "--out", "o.onnx"]))

    recipe = read("--channels 0.3 --precision int8-static --distill 5 --teacher t --train-on s --int8-aware")
    assert recipe.steps[1] == Distill(minutes=5.0, teacher="t", samples="s", int8=True)
    assert [step.kind for step in recipe.steps] == ["channels", "distill", "precision"]
    assert read("--distill-steps 7 --labels 0.5").steps == (Distill(steps=7, labels=0.5),)
