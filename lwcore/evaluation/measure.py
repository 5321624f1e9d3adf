"""`evaluate`: everything about one file on real samples, measured on its exact bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from lwcore import runtime
from lwcore.analysis.cost import cost
from lwcore.answers import feed, outputs, per_run
from lwcore.domains import domain
from lwcore.errors import EvaluationError
from lwcore.evaluation import accuracy, numbers, sizes
from lwcore.evaluation.remembered import Reference
from lwcore.evaluation.result import Evaluation
from lwcore.model import Model
from lwcore.progress import Progress, part, silent
from lwcore.samples import SampleSet
from lwcore.settings import SETTINGS
from lwcore.timing import take_turns

if TYPE_CHECKING:
    import onnxruntime

# Timing both models takes a share of the time that the answers took, within these seconds: measuring must not dominate.
LATENCY_SHARE, LATENCY_LEAST, LATENCY_MOST = 0.15, 0.1, 0.4


def evaluate(
    model: Model,
    samples: SampleSet,
    against: Model | None = None,
    progress: Progress = silent,
    threads: int | None = None,
    latency: bool = True,
    reference: Reference | None = None,
) -> Evaluation:
    """Measure a model on samples, and against the original it was made from.

    Args:
        model: the file to measure.
        samples: pictures; without labels the measure is agreement with `against`.
        against: the original; agreement, the paired test and the changed samples need it.
        progress: called with the share done (0–1) and what is being done.
        threads: of onnxruntime; `SETTINGS.threads` when None.
        latency: also time one run of each, in turns (0.1–0.4 s; five rounds of slow models).
        reference: the original's answers from an earlier `lwcore.evaluation.reference`; used when they fit.

    Raises:
        EvaluationError: there are no samples, or outputs and labels do not fit together.
        ModelError: a model cannot be run.
    """
    if not len(samples):
        raise EvaluationError(f"Expected at least one sample in {samples.name!r}, found none.")
    started = time.perf_counter()
    threads = threads or SETTINGS.threads
    known = reference if against and reference and reference.fits(against, samples) else None
    with ThreadPoolExecutor(max_workers=1) as helper:  # gzip runs beside onnxruntime: zlib lets go of the interpreter
        packed = helper.submit(_gzipped, model, against, known)
        runner = runtime.shared_session(model.data, threads)
        original = runtime.shared_session(against.data, threads) if against and (latency or not known) else None
        before: Sequence[np.ndarray] | None = known.outputs if known else None
        if against and original and before is None:
            before = outputs(original, against, samples, _share(part(progress, 0.0, 0.45), "Running the original"))
        first = 0.45 if original and not known else 0.0
        after = outputs(runner, model, samples, _share(part(progress, first, 0.9), "Running the slimmed model"))
        fields = _against(model, after, before, samples)
        if latency:
            progress(0.9, "Timing")
            box = min(LATENCY_MOST, max(LATENCY_LEAST, LATENCY_SHARE * (time.perf_counter() - started)))
            pairs = [(model, runner), (against, original)] if against and original else [(model, runner)]
            fields |= _latency([_one_run(m, r, samples) for m, r in pairs], box)
        fields |= _sizes(model, packed)
    progress(1.0, "Measured")
    return Evaluation(
        n=len(samples),
        threads=threads,
        latency_batch=per_run(model) or 1,
        notes=_notes(after),
        seconds=time.perf_counter() - started,
        **fields,
    )


def _share(progress: Progress, message: str) -> Callable[[float], None]:
    return lambda share: progress(share, message)


def _against(
    model: Model, after: Sequence[np.ndarray], before: Sequence[np.ndarray] | None, samples: SampleSet
) -> dict[str, Any]:
    """A classifier's answers against labels and the original; the outputs of any other model as numbers."""
    if domain(model).classes:
        return _compared(after[0], None if before is None else before[0], samples, model.card.classes)
    return numbers.compared(model, after, after if before is None else before)


def _compared(
    after: np.ndarray, before: np.ndarray | None, samples: SampleSet, classes: tuple[str, ...]
) -> dict[str, Any]:
    if before is not None and before.shape != after.shape:
        raise EvaluationError(
            f"Expected two models with the same classes, found {before.shape[1]} and "
            f"{after.shape[1]} outputs. Compare a model with the one it was made from."
        )
    names = accuracy.class_names(classes, after.shape[1])
    labels = accuracy.check_labels(samples, after.shape[1])
    found = accuracy.answers(after)
    fields: dict[str, Any] = {}
    if labels is not None:
        fields |= accuracy.top1(found, labels, after.shape[1], names)
    if before is not None:
        was = accuracy.answers(before)
        fields |= accuracy.agreement(found, was) | accuracy.changed(after, before, samples, names)
        if labels is not None:
            fields |= accuracy.paired(found, was, labels, names)
    return fields


def _notes(outputs: Sequence[np.ndarray]) -> tuple[str, ...]:
    after = outputs[0]
    lost = int(np.any([np.isnan(rows).any(axis=1) for rows in outputs], axis=0).sum())
    if not lost:
        return ()
    return (
        f"{lost} of {len(after)} answers are not numbers: the values inside the model left the range of its number "
        "format. They count as wrong.",
    )


def _latency(runs: list[Callable[[], object]], seconds: float) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for prefix, found in zip(("latency", "reference_latency"), take_turns(runs, seconds), strict=False):
        fields |= {
            f"{prefix}_ms": found.median_ms,
            f"{prefix}_low_ms": found.low_ms,
            f"{prefix}_high_ms": found.high_ms,
        }
    return fields


def _one_run(model: Model, runner: onnxruntime.InferenceSession, samples: SampleSet) -> Callable[[], object]:
    batch = feed(model, samples, 0, 1)
    return lambda: runtime.run(runner, batch)


def _gzipped(model: Model, against: Model | None, known: Reference | None) -> dict[str, int]:
    found = {"gzip_bytes": sizes.gzip_bytes(model.data)}
    if against is not None:
        packed = known.gzip_bytes if known else sizes.gzip_bytes(against.data)
        found |= {"reference_size_bytes": against.size_bytes, "reference_gzip_bytes": packed}
    return found


def _sizes(model: Model, packed: Future[dict[str, int]]) -> dict[str, Any]:
    total = cost(model)
    return {
        "size_bytes": model.size_bytes,
        "params": total.params,
        "macs": total.macs,
        "nonzeros": sizes.nonzeros(model),
    } | packed.result()
