"""A recipe carried out and measured, as the worker's tasks do it: with everything that is kept in the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lwcore.evaluation import evaluate
from lwcore.evaluation.causes import causes
from lwcore.kept import (
    find_calibration,
    find_model,
    find_moments,
    find_order,
    find_reference,
    find_samples,
    find_sensitivity,
    find_targets,
)
from lwcore.model import Model
from lwcore.progress import Progress, part
from lwcore.recipe import Blocks, Channels, Distill, Recipe, Step
from lwcore.samples import SampleSet
from lwcore.slimming import apply
from lwcore.slimming.distillation.lessons import Lessons
from lwcore.slimming.pruning.channels import reads_moments
from lwcore.store import Store

_SLIMMED, _TRAINED = 0.55, 0.95  # share of the work that slimming is, without and with training


def measured(
    store: Store,
    progress: Progress,
    asked: tuple[str, Mapping[str, Any], str, str | None],
    latency: bool,
    lessons: Lessons,
) -> dict[str, Any]:
    """What the task `measure` returns.

    Args:
        asked: model, recipe, samples and calibration samples, as the task was asked.
        latency: time both models, too.
        lessons: how distill steps are carried out.
    """
    model, recipe, samples, calibration = asked
    original = find_model(store, model)
    known = find_samples(store, samples, original)
    steps = Recipe.from_json(recipe)
    pictures = find_calibration(store, original, calibration, known)
    first = next(iter(steps.steps), None)
    before = _measured_before(store, original, first, pictures, part(progress, 0.0, 0.3))
    if isinstance(first, Channels) and reads_moments(first):
        find_moments(store, original, pictures)
    if isinstance(first, Channels) and first.compensate == "sequential":
        find_targets(store, original, pictures)
    end = _TRAINED if len(lessons.kept) < sum(isinstance(step, Distill) for step in steps.steps) else _SLIMMED
    slimming = part(progress, 0.3 if before else 0.0, end)
    slimmed = apply(original, steps, samples=pictures, progress=slimming, lessons=lessons, **before)
    progress(end, "Asking the original model")
    reference = find_reference(store, original, known)
    report = evaluate(
        slimmed.model, known, against=original, reference=reference, latency=latency, progress=part(progress, end, 1.0)
    )
    return {
        **slimmed.to_json(),
        "model": store.put_model(slimmed.model),
        "evaluation": report.to_json(),
        "notes": [*slimmed.notes, *report.notes, *_shared(pictures, known)],
        "causes": [cause.to_json() for cause in causes(original, slimmed.model, report)],
    }


def _measured_before(
    store: Store, model: Model, first: Step | None, samples: SampleSet, progress: Progress
) -> dict[str, Any]:
    """What the first step needs to know of the untouched model and every later amount needs again, for `apply`."""
    if isinstance(first, Channels) and first.budget is not None:
        return {"sensitivity": find_sensitivity(store, model, samples, progress)}
    if isinstance(first, Blocks) and first.amount and not first.names:
        return {"order": find_order(store, model, samples, progress)}
    return {}


def _shared(calibration: SampleSet, measured: SampleSet) -> tuple[str, ...]:
    """A word of warning when a model is measured on the pictures that it was re-fitted on."""
    if calibration.fingerprint != measured.fingerprint:
        return ()
    return ("Calibrated (without labels) on the same samples it is measured on, which flatters the result a little.",)
