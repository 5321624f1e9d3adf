"""Static int8: calibrate, round, correct, write; and choose among ways to do so by what comes out of the model.

What is chosen between is measured on the calibration samples with onnxruntime, on the file as it would be downloaded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lwcore import runtime
from lwcore.answers import outputs
from lwcore.domains import domain
from lwcore.errors import SlimError
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.recipe import Precision
from lwcore.samples import SampleSet
from lwcore.similarity import likeness
from lwcore.slimming.precision.equalise import equalised
from lwcore.slimming.precision.prepare import STATIC_OPSET, pooled, prepared
from lwcore.slimming.precision.processor import ranking
from lwcore.slimming.precision.ranges import range_sets
from lwcore.slimming.precision.variants import VARIANTS
from lwcore.slimming.precision.write import Quantizer

AUTO = ("minmax", "mse")  # percentile and entropy were never the best on the built-in models
ACCEPTED = 0.01  # share of other answers (one is always allowed) at which a variant is taken without trying the next
HELD_OUT, MOST_HELD_OUT = 40, 1000  # samples that a limit is verified on, at least and at most
BETTER = 0.01  # agreement that a slower variant must add to be preferred


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Compares files with the float32 model on the same samples."""

    model: Model
    samples: SampleSet

    @cached_property
    def wanted(self) -> np.ndarray:
        """The float32 model's outputs, shape (N, classes)."""
        return self.outputs(self.model.data)

    @property
    def classes(self) -> bool:
        """Whether the outputs are class scores."""
        return domain(self.model).classes

    def outputs(self, data: bytes) -> np.ndarray:
        """A file's outputs, shape (N, classes); all outputs side by side where they are no class scores."""
        return np.concatenate(outputs(runtime.session(data), self.model, self.samples), axis=1)

    def error(self, data: bytes) -> float:
        """Root mean square of the change of the outputs, as a share of their own spread; samples' means left out."""
        return output_error(self.outputs(data), self.wanted)

    def agreement(self, data: bytes) -> float:
        """Share of the samples with the float32 model's answer; cosine similarity of the outputs without classes."""
        if not self.classes:
            return likeness(self.outputs(data), self.wanted).value
        return float((self.outputs(data).argmax(axis=1) == self.wanted.argmax(axis=1)).mean())

    def lost(self, data: bytes) -> float:
        """Points lost: of accuracy, of agreement with float32 without labels, of similarity without classes."""
        if not self.classes:
            return 100 * (1 - self.agreement(data))
        found, wanted, labels = self.outputs(data).argmax(axis=1), self.wanted.argmax(axis=1), self.samples.labels
        if labels is None:
            return 100 * float((found != wanted).mean())
        return 100 * (int((wanted == labels).sum()) - int((found == labels).sum())) / len(labels)


def output_error(after: np.ndarray, before: np.ndarray) -> float:
    """Root mean square change of outputs relative to their spread over the classes; infinite where one is no number."""
    centred = before - before.mean(axis=1, keepdims=True)
    moved = after - after.mean(axis=1, keepdims=True) - centred
    error = float(np.sqrt((moved.astype(np.float64) ** 2).mean() / max(float((centred**2).mean()), 1e-30)))
    return error if np.isfinite(error) else float("inf")


def split(samples: SampleSet, step: Precision, seed: int) -> tuple[SampleSet, SampleSet]:
    """Samples that calibrate, and others that a limit is verified on; the same ones where there are too few."""
    count = step.samples
    if step.drop is not None and len(samples) - count < HELD_OUT:
        count = len(samples) // 2 if len(samples) >= 2 * HELD_OUT else len(samples)
    order = np.random.default_rng(seed).permutation(len(samples))
    used = samples if count >= len(samples) else samples.pick(np.sort(order[:count]))
    rest = np.sort(order[count:])[:MOST_HELD_OUT]
    return used, samples.pick(rest) if len(rest) else used


def calibrate(model: Model, step: Precision, samples: SampleSet) -> Quantizer:
    """Prepare a model, read its ranges and choose a variant.

    With `ranges: auto` the ways to calibrate are tried, layers equalised or not, biases corrected or not, and the one
    that changes the outputs least is kept.

    Raises:
        SlimError: the operators cannot be translated, or the step keeps an operator that is not there.
    """
    ready = pooled(prepared(model, STATIC_OPSET))
    _check_names((model, ready), step.keep)
    judge = Judge(model=ready, samples=samples)
    first = ranking()[0] if step.variant == "auto" else step.variant
    if step.ranges == "auto":
        tried = _ways(ready, first, samples, AUTO)
        even = equalised(ready)
        tried += _ways(even, first, samples, AUTO) if even is not None else []
    else:
        tried = _ways(ready, first, samples, (step.ranges,))[-1:]
    best = min(tried, key=lambda way: judge.error(way.draft(step.keep))) if len(tried) > 1 else tried[0]
    if VARIANTS[first].reduced:  # more bits are better on most models, not on all
        both = (best, dataclasses.replace(best, seven=True))
        best = min(both, key=lambda way: judge.error(way.draft(step.keep)))
    return best if step.variant != "auto" else _best_variant(best, judge, step.keep)


def _ways(model: Model, variant: str, samples: SampleSet, methods: Sequence[str]) -> list[Quantizer]:
    """Each method's ranges, biases left alone and corrected."""
    sets = range_sets(model, samples, methods)
    return [
        Quantizer(model=model, ranges=sets[method], variant=variant, samples=used)
        for method in methods
        for used in (None, samples)
    ]


def _best_variant(way: Quantizer, judge: Judge, keep: Collection[str]) -> Quantizer:
    """The fastest variant on this processor that answers (almost) as the float32 model does."""
    tried: dict[str, float] = {}
    for name in ranking():
        tried[name] = judge.agreement(dataclasses.replace(way, variant=name).draft(keep))
        if round((1 - tried[name]) * len(judge.samples)) <= max(1, ACCEPTED * len(judge.samples)):
            break
    best = next(iter(tried))
    for name, agreement in tried.items():
        if agreement > tried[best] + BETTER:
            best = name
    return dataclasses.replace(way, variant=best)


def _check_names(models: Sequence[Model], keep: Sequence[str]) -> None:
    known = {node.name for model in models for node in Graph.view(model).nodes}
    for name in keep:
        if name not in known:
            raise SlimError(
                f"Precision keep: expected names of operators of this model, found {name!r}. The errors by operator "
                "list them."
            )
