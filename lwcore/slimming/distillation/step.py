"""The distill step of a recipe: find its teacher and its samples, and train."""

from __future__ import annotations

from lwcore.errors import SlimError
from lwcore.model import Model
from lwcore.progress import Progress, silent
from lwcore.recipe import Distill, Precision
from lwcore.samples import SampleSet
from lwcore.slimming.distillation.lessons import Lessons, Taught
from lwcore.slimming.distillation.teach import teach


def train(
    model: Model,
    original: Model,
    step: Distill,
    calibration: SampleSet | None,
    lessons: Lessons,
    position: int,
    *,
    precision: Precision | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Taught:
    """Carry out a distill step.

    Args:
        model: as the steps before have left it.
        original: the teacher unless the step names another.
        calibration: learnt from where neither the step nor the card names a training set.
        position: of the step in its recipe.
        precision: the next static int8 of the recipe.

    Raises:
        SlimError: there is nothing to learn from, or the model cannot be trained.
    """
    teacher = lessons.teacher(step.teacher) if step.teacher else original
    taught = teach(
        model,
        step,
        _samples(step.samples or model.card.training, model, calibration, lessons),
        teacher,
        seed,
        control=lessons.control,
        precision=precision,
        progress=progress,
        watch=lambda found: lessons.watch(position, found, False),
    )
    lessons.watch(position, taught, True)
    return taught


def _samples(ref: str | None, model: Model, calibration: SampleSet | None, lessons: Lessons) -> SampleSet:
    if ref:
        return lessons.samples(ref, model)
    if calibration is None:
        raise SlimError("Training: expected samples to learn from, found none. Name a set in the step.")
    return calibration
