"""`apply`: carry out a recipe on a copy, step by step, and check every intermediate file before anyone sees it."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from threadpoolctl import threadpool_limits

from lwcore.analysis.cost import Cost, cost
from lwcore.errors import ModelError, SlimError
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.progress import Progress, part, silent
from lwcore.recipe import Channels, Connections, Recipe, Step
from lwcore.runtime import run, session
from lwcore.samples import SampleSet, load_samples
from lwcore.slimming.allocate import Sensitivity, measure_sensitivity
from lwcore.slimming.channels import prune, removals
from lwcore.slimming.connections import sparsify
from lwcore.slimming.precision import reduce_precision
from lwcore.sources.normalise import has_shapes, normalise


@dataclass(frozen=True, kw_only=True)
class Slimmed:
    """What came out of a recipe.

    Attributes:
        model: the slimmed model; its bytes are the download.
        recipe: what was done.
        before, after: costs, exact.
        seconds: wall time of the slimming alone.
        notes: what was kept, what was given up and why, in plain words.
    """

    model: Model
    recipe: Recipe
    before: Cost
    after: Cost
    seconds: float
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Costs, seconds and notes as plain data (the model itself is bytes)."""
        return {
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "seconds": self.seconds,
            "notes": list(self.notes),
            "recipe": self.recipe.to_json(),
        }


def apply(
    model: Model,
    recipe: Recipe,
    samples: SampleSet | None = None,
    sensitivity: Sensitivity | None = None,
    progress: Progress = silent,
) -> Slimmed:
    """Carry out a recipe. The same model, recipe and samples give the same bytes on every run.

    Args:
        model: as loaded; it is not changed.
        samples: calibration samples, labels unused; a built-in model's own calibration set when None.
        sensitivity: measured before, for a step with a budget; measured here when None.
        progress: told the share done and a few words.

    Raises:
        SlimError: a step cannot be carried out on this model, or needs samples and has none.
        ModelError: a step's result does not run; nothing is returned.
    """
    start = time.perf_counter()
    # The order in which BLAS adds depends on its threads: with one, the same recipe gives the same bytes in the
    # dashboard, on the command line and in a notebook. The many small solves are faster so, too.
    with threadpool_limits(limits=1, user_api="blas"):
        current, notes = _carried_out(model, recipe, samples, sensitivity, progress)
    return Slimmed(
        model=current,
        recipe=recipe,
        before=cost(model),
        after=cost(current),
        notes=tuple(dict.fromkeys(notes)),
        seconds=time.perf_counter() - start,
    )


def _carried_out(
    model: Model, recipe: Recipe, samples: SampleSet | None, sensitivity: Sensitivity | None, progress: Progress
) -> tuple[Model, list[str]]:
    if samples is None and model.card.calibration:
        samples = load_samples(model.card.calibration, model)
    current, notes = model, list[str]()
    for position, step in enumerate(recipe.steps):
        share = part(progress, position / len(recipe.steps), (position + 1) / len(recipe.steps))
        current, said = _step(current, step, samples, recipe.seed, sensitivity if current is model else None, share)
        current = _checked(current, step.kind)
        notes += said
    return current, notes


def _step(
    model: Model, step: Step, samples: SampleSet | None, seed: int, sensitivity: Sensitivity | None, progress: Progress
) -> tuple[Model, list[str]]:
    if isinstance(step, Channels):
        if step.budget is not None and sensitivity is None:
            if samples is None:
                raise SlimError(
                    "Sharing out a budget measures sensitivity on calibration samples; give some, or set amounts."
                )
            sensitivity = measure_sensitivity(model, samples, part(progress, 0.0, 0.7))
            progress = part(progress, 0.7, 1.0)
        counts = removals(model, step, sensitivity)
        if not any(counts.values()):
            return model, []
        graph, said = prune(model, step, counts, samples, seed, progress)
        return dataclasses.replace(model, data=graph.serialize()), said
    if isinstance(step, Connections):
        changed, remarks = sparsify(model, step)
    else:
        changed, remarks = reduce_precision(model, step, samples, seed)
    return changed, list(remarks)


def _checked(model: Model, step: str) -> Model:
    """The model, shapes written in, after the checker and one run; raises `ModelError` naming the step."""
    try:
        if not has_shapes(model.proto):
            data, _ = normalise(model.proto)
            model = dataclasses.replace(model, data=data)
        onnx.checker.check_model(model.proto, full_check=True)
        graph = Graph.view(model)
        name = graph.inputs[0]
        kind = onnx.helper.tensor_dtype_to_np_dtype(graph.types[name])
        result = run(session(model.data), np.zeros(graph.shape(name), kind))[0]
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ModelError) as error:
        raise ModelError(
            f"Step {step!r} gave a file that does not run; this is a fault of ours, please report it: "
            f"{str(error)[:300]}"
        ) from None
    if tuple(result.shape) != graph.shape(graph.outputs[0]):
        raise ModelError(
            f"Step {step!r}: expected an output of shape {graph.shape(graph.outputs[0])}, found {result.shape}."
        )
    return model
