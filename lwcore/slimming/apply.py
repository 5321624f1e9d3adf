"""`apply`: carry out a recipe on a copy, step by step, and check every intermediate file before anyone sees it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from lwcore.analysis.cost import Cost, cost
from lwcore.answers import example
from lwcore.domains import load_samples
from lwcore.errors import ModelError, SlimError
from lwcore.graph import Graph, written
from lwcore.model import Model
from lwcore.progress import Progress, part, silent
from lwcore.recipe import Blocks, Channels, Connections, Distill, Heads, LowRank, Precision, Recipe, Step, Vocabulary
from lwcore.runtime import blas, run, shared_session
from lwcore.samples import SampleSet
from lwcore.slimming.blocks import drop
from lwcore.slimming.budget.allocate import Sensitivity
from lwcore.slimming.budget.sensitivity import measure_sensitivity
from lwcore.slimming.connections import sparsify
from lwcore.slimming.distillation.lessons import Lessons, Taught, told
from lwcore.slimming.heads import drop_heads
from lwcore.slimming.lowrank.spectra import Layers
from lwcore.slimming.lowrank.split import split_layers
from lwcore.slimming.precision import reduce_precision
from lwcore.slimming.pruning.channels import prune, removals
from lwcore.slimming.vocabulary import trim
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
    *,
    order: Sequence[str] | None = None,
    layers: Layers | None = None,
    lessons: Lessons | None = None,
) -> Slimmed:
    """Carry out a recipe. The same model, recipe and samples give the same bytes on every run.

    Three things are measured on this machine and may give others on another one: budgets in time, int8's `auto`
    variant, and training by minutes instead of steps.

    Args:
        model: as loaded; it is not changed.
        samples: calibration samples, labels unused; a built-in model's own calibration set when None.
        sensitivity: measured before, for a channels step with a budget; measured here when None.
        progress: told the share done and a few words.
        order: blocks, the least missed first, as `dropping_order` gave it before; measured here when None.
        layers: what a low-rank step rests on, as `measure_layers` gave it before; measured here when None.
        lessons: where distill steps find teachers and samples, and who watches them; by `lwcore.load` when None.

    Raises:
        SlimError: a step cannot be carried out on this model, or needs samples and has none.
        ModelError: a step's result does not run; nothing is returned.
    """
    start = time.perf_counter()
    # The order in which BLAS adds depends on its threads: with one, the same recipe gives the same bytes in the
    # dashboard, on the command line and in a notebook. The many small solves are faster so, too.
    with blas().limit(limits=1, user_api="blas"):
        known = (sensitivity, order, layers)
        current, notes = _carried_out(model, recipe, samples, known, lessons or Lessons(), progress)
    return Slimmed(
        model=current,
        recipe=recipe,
        before=cost(model),
        after=cost(current),
        notes=tuple(dict.fromkeys(notes)),
        seconds=time.perf_counter() - start,
    )


@dataclass(frozen=True)
class _Work:
    """What a step is carried out with.

    Attributes:
        model: as the steps before have left it.
        original: as it was before all of them.
        after: the steps that follow.
        position: of this step in the recipe.
        sensitivity, order, layers: measured before, and only handed to the first step: they belong to the untouched
            model.
    """

    model: Model
    original: Model
    samples: SampleSet | None
    seed: int
    position: int
    after: Sequence[Step]
    lessons: Lessons
    sensitivity: Sensitivity | None
    order: Sequence[str] | None
    layers: Layers | None
    progress: Progress

    def with_graph(self, graph: Graph) -> Model:
        """The model with another graph."""
        return self.model if graph is Graph.view(self.model) else written(self.model, graph)


def _carried_out(
    model: Model,
    recipe: Recipe,
    samples: SampleSet | None,
    known: tuple[Sensitivity | None, Sequence[str] | None, Layers | None],
    lessons: Lessons,
    progress: Progress,
) -> tuple[Model, list[str]]:
    if samples is None and model.card.calibration:
        samples = load_samples(model.card.calibration, model)
    current, notes = model, list[str]()
    for position, step in enumerate(recipe.steps):
        share = part(progress, position / len(recipe.steps), (position + 1) / len(recipe.steps))
        here = known if current is model else (None, None, None)
        after = recipe.steps[position + 1 :]
        work = _Work(current, model, samples, recipe.seed, position, after, lessons, *here, share)
        current, said = _STEPS[type(step)](work, step)
        current = _checked(current, step.kind)
        notes += said
    return current, notes


def _channels(work: _Work, step: Channels) -> tuple[Model, Sequence[str]]:
    sensitivity, progress = work.sensitivity, work.progress
    if step.budget is not None and sensitivity is None:
        if work.samples is None:
            raise SlimError(
                "Sharing out a budget measures sensitivity on calibration samples; give some, or set amounts."
            )
        sensitivity = measure_sensitivity(work.model, work.samples, part(progress, 0.0, 0.7))
        progress = part(progress, 0.7, 1.0)
    counts = removals(work.model, step, sensitivity, clock=True)
    if not any(counts.values()):
        return work.model, []
    return prune(work.model, step, counts, work.samples, work.seed, progress)


def _blocks(work: _Work, step: Blocks) -> tuple[Model, Sequence[str]]:
    graph, said = drop(work.model, step, work.samples, work.order, work.progress)
    return work.with_graph(graph), said


def _heads(work: _Work, step: Heads) -> tuple[Model, Sequence[str]]:
    graph, said = drop_heads(work.model, step, work.samples, work.progress)
    return work.with_graph(graph), said


def _vocabulary(work: _Work, step: Vocabulary) -> tuple[Model, Sequence[str]]:
    return trim(work.model, step, work.samples)


def _low_rank(work: _Work, step: LowRank) -> tuple[Model, Sequence[str]]:
    graph, said = split_layers(work.model, step, work.samples, work.layers, work.progress)
    return work.with_graph(graph), said


def _connections(work: _Work, step: Connections) -> tuple[Model, Sequence[str]]:
    return sparsify(work.model, step)


def _distill(work: _Work, step: Distill) -> tuple[Model, Sequence[str]]:
    taught = work.lessons.kept.get(work.position) or _train(work, step)
    return taught.student.model, told(taught)


def _train(work: _Work, step: Distill) -> Taught:
    from lwcore.slimming.distillation.step import train  # imports torch, which the web process never does

    static = (s for s in work.after if isinstance(s, Precision) and s.format == "int8-static")
    return train(
        work.model,
        work.original,
        step,
        work.samples,
        work.lessons,
        work.position,
        precision=next(static, None),
        seed=work.seed,
        progress=work.progress,
    )


def _precision(work: _Work, step: Precision) -> tuple[Model, Sequence[str]]:
    return reduce_precision(work.model, step, work.samples, work.seed)


_STEPS: Mapping[type[Step], Callable[[_Work, Any], tuple[Model, Sequence[str]]]] = {
    Channels: _channels,
    Blocks: _blocks,
    Heads: _heads,
    Vocabulary: _vocabulary,
    LowRank: _low_rank,
    Connections: _connections,
    Distill: _distill,
    Precision: _precision,
}


def _checked(model: Model, step: str) -> Model:
    """The model, shapes written in, after the checker and one run; raises `ModelError` naming the step."""
    try:
        if not has_shapes(model.proto):
            data, _ = normalise(model.proto)
            model = dataclasses.replace(model, data=data)
        onnx.checker.check_model(model.data, full_check=True)
        graph = Graph.view(model)
        result = run(shared_session(model.data), example(graph))[0]
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
