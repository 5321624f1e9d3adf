"""`what_if`: what smaller pictures and fewer frames cost and save, measured on real samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lwcore import runtime
from lwcore.analysis.cost import cost
from lwcore.answers import feed, logits
from lwcore.errors import EvaluationError, ModelError
from lwcore.evaluation.accuracy import answers, check_labels
from lwcore.evaluation.statistics import wilson
from lwcore.model import ClipSpec, Model
from lwcore.progress import Progress, part, silent
from lwcore.resizing import refitted, resized, settings
from lwcore.samples import SampleSet
from lwcore.timing import take_turns

WORK = 4e11  # multiply–accumulates for the answers of all settings together: about half a minute on two cores
_SECONDS = 3.0  # for timing all settings in turns


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One input size: what a run of it costs, and how well it answers.

    Attributes:
        size: (height, width) in pixels.
        frames: of a clip; None for pictures.
        macs: multiply–accumulates of one sample.
        latency_ms, latency_low_ms, latency_high_ms: of one sample, all settings timed in turns.
        quality, low, high: share answered right (without labels: as at the model's own size), 95 % Wilson interval.
    """

    size: tuple[int, int]
    frames: int | None
    macs: int
    latency_ms: float
    latency_low_ms: float
    latency_high_ms: float
    quality: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class WhatIf:
    """All settings that the network takes, the model's own first.

    Attributes:
        models: the network of each setting.
        labelled: whether `quality` is accuracy; else it is agreement.
        n: samples measured.
    """

    settings: tuple[Setting, ...]
    models: tuple[Model, ...]
    labelled: bool
    n: int

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the models."""
        rows = [dataclasses.asdict(setting) for setting in self.settings]
        return {"settings": rows, "labelled": self.labelled, "n": self.n}


def what_if(model: Model, samples: SampleSet, progress: Progress = silent) -> WhatIf:
    """Measure a classifier at smaller input sizes.

    Args:
        model: reads pictures or clips and pools over them.
        samples: at the model's own size; the smaller ones are made of them.
        progress: told the share done.

    Raises:
        EvaluationError: the network takes no size but its own.
    """
    models = _models(model, part(progress, 0.0, 0.3))
    if len(models) < 2:
        raise EvaluationError(
            "Expected a network that takes inputs of other sizes, found one that is built for one size. Networks that "
            "end in global pooling take others."
        )
    few = samples.take(max(1, min(len(samples), int(WORK / max(1, sum(cost(m).macs for m in models))))))
    shares, labelled = _quality(models, few, part(progress, 0.3, 0.85))
    progress(0.85, "Timing")
    times = take_turns([_one_run(m, few) for m in models], _SECONDS)
    found = tuple(
        Setting(
            size=m.card.pictures.size,
            frames=m.card.input.frames if isinstance(m.card.input, ClipSpec) else None,
            macs=cost(m).macs,
            latency_ms=time.median_ms,
            latency_low_ms=time.low_ms,
            latency_high_ms=time.high_ms,
            **share,
        )
        for m, time, share in zip(models, times, shares, strict=True)
    )
    return WhatIf(settings=found, models=tuple(models), labelled=labelled, n=len(few))


def _models(model: Model, progress: Progress) -> list[Model]:
    found, tried = [], settings(model)
    for done, spec in enumerate(tried):
        try:
            found.append(resized(model, spec))
        except ModelError:
            continue  # this size does not go together with what the network holds inside
        finally:
            progress((done + 1) / len(tried), "Trying input sizes")
    return found


def _quality(models: list[Model], samples: SampleSet, progress: Progress) -> tuple[list[Mapping[str, float]], bool]:
    rows = []
    for done, model in enumerate(models):
        rows.append(_answers(model, samples))
        progress((done + 1) / len(models), "Measuring input sizes")
    labels = check_labels(samples, rows[0].shape[1])
    truth = answers(rows[0]) if labels is None else labels
    shares = [wilson(int((answers(found) == truth).sum()), len(truth)) for found in rows]
    return [{"quality": s.value, "low": s.low, "high": s.high} for s in shares], labels is not None


def _answers(model: Model, samples: SampleSet) -> np.ndarray:
    return logits(runtime.session(model.data), model, refitted(samples, model.card.pictures))


def _one_run(model: Model, samples: SampleSet) -> Callable[[], object]:
    runner, batch = runtime.session(model.data), feed(model, refitted(samples.take(1), model.card.pictures), 0, 1)
    return lambda: runtime.run(runner, batch)
