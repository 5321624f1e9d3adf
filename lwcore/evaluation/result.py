"""`Evaluation`: everything measured on one file, raw numbers only, JSON in and out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lwcore import units
from lwcore.errors import EvaluationError


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassRow:
    """One class: its name, how many samples have it, and the share answered right; `before` is the original's."""

    name: str
    n: int
    before: float | None
    after: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Confused:
    """A pair of classes that the model mixes up: `count` samples of `label` were called `answer`."""

    label: str
    answer: str
    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Changed:
    """One sample whose answer changed; confidences are the answers' own probabilities, 0–1."""

    index: int
    name: str
    label: str | None
    before: str
    after: str
    before_confidence: float
    after_confidence: float


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputRow:
    """One output of a model that is no classifier, against the original's.

    Attributes:
        shape: for one sample, as the file has it.
        similarity: cosine similarity over all samples, −1 to 1.
        error: ‖after − before‖ / ‖before‖ over all samples.
        agreement: share of equal whole numbers, or of rows with the largest value at the same place; None elsewhere.
    """

    name: str
    shape: tuple[int, ...]
    similarity: float
    error: float
    agreement: float | None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a file does and costs. Shares are 0–1, times milliseconds, sizes bytes, MACs for batch 1.

    Attributes:
        n: samples measured.
        top1, top1_low, top1_high: share answered right, 95 % Wilson interval; None without labels.
        agreement, agreement_low, agreement_high: share answered as the original does; None without an original.
        reference_top1: share that the original answers right.
        difference, difference_low, difference_high: `top1 - reference_top1` on the same samples, 95 % interval.
        p_value: exact McNemar test of that difference.
        per_class: share right by class; empty without labels.
        confusion: `confusion[label][answer]` counts, for at most 50 classes; None otherwise.
        confused: the most confused pairs of classes, worst first.
        similarity, similarity_low, similarity_high: of models that are no classifiers: mean cosine similarity of their
            outputs with the original's, 95 % interval over the samples; None for classifiers.
        relative_error: root mean square over the outputs of their relative errors; None for classifiers.
        outputs: the outputs one by one; empty for classifiers.
        changed, changed_total: samples whose answer changed, at most 200 listed, and how many there are.
        latency_ms, latency_low_ms, latency_high_ms: median, 10th and 90th percentile of one run of `latency_batch`
            samples; `reference_latency_…` is the original's, taken in turns.
        threads: threads used, for answers and latency alike.
        size_bytes, gzip_bytes: the file, and the file after gzip -6. `reference_…` are the original's.
        params, nonzeros, macs: parameters, those of them that are not zero, multiply-accumulates.
        seconds: how long the whole measurement took.
        notes: what could not be measured or needs a word, in plain sentences.
    """

    n: int
    top1: float | None = None
    top1_low: float | None = None
    top1_high: float | None = None
    agreement: float | None = None
    agreement_low: float | None = None
    agreement_high: float | None = None
    reference_top1: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p_value: float | None = None
    per_class: tuple[ClassRow, ...] = ()
    confusion: tuple[tuple[int, ...], ...] | None = None
    confused: tuple[Confused, ...] = ()
    changed: tuple[Changed, ...] = ()
    changed_total: int = 0
    similarity: float | None = None
    similarity_low: float | None = None
    similarity_high: float | None = None
    relative_error: float | None = None
    outputs: tuple[OutputRow, ...] = ()
    latency_ms: float | None = None
    latency_low_ms: float | None = None
    latency_high_ms: float | None = None
    reference_latency_ms: float | None = None
    reference_latency_low_ms: float | None = None
    reference_latency_high_ms: float | None = None
    latency_batch: int = 1
    threads: int = 1
    size_bytes: int = 0
    gzip_bytes: int = 0
    reference_size_bytes: int | None = None
    reference_gzip_bytes: int | None = None
    params: int = 0
    nonzeros: int = 0
    macs: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The main numbers, one a line, rounded for people."""
        return "\n".join(f"{name:12} {value}" for name, value in _lines(self))

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` reads it back to an equal object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Evaluation:
        """Read what `to_json` wrote, JSON text in between or not; raises `EvaluationError` on anything else."""
        try:
            values = dict(data)
            for key, row in (("per_class", ClassRow), ("confused", Confused), ("changed", Changed)):
                values[key] = tuple(row(**item) for item in values.get(key, ()))
            values["outputs"] = tuple(OutputRow(**{**o, "shape": tuple(o["shape"])}) for o in values.get("outputs", ()))
            if values.get("confusion") is not None:
                values["confusion"] = tuple(tuple(line) for line in values["confusion"])
            values["notes"] = tuple(values.get("notes", ()))
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise EvaluationError(f"Expected the JSON of an evaluation, found something else ({error}).") from None


def _lines(found: Evaluation) -> list[tuple[str, str]]:
    lines = [("samples", str(found.n))]
    for name, field in (("top-1", "top1"), ("agreement", "agreement"), ("difference", "difference")):
        value = getattr(found, field)
        if value is not None:
            low, high = (units.percent(getattr(found, f"{field}_{end}")) for end in ("low", "high"))
            lines.append((name, f"{units.percent(value)} (95 %: {low} to {high})"))
    if found.similarity is not None and found.relative_error is not None:
        lines.append(("similarity", f"{found.similarity:.4f} (cosine), relative error {found.relative_error:.2%}"))
        lines += [(f"  {row.name}", f"{row.similarity:.4f}, {row.error:.2%}") for row in found.outputs]
    if found.p_value is not None:
        lines.append(("McNemar", f"p = {found.p_value:.3g}; {found.changed_total} answers changed"))
    if found.latency_ms is not None:
        spread = _spread(found, "latency")
        lines.append(("latency", f"{spread} a run of {found.latency_batch}, {found.threads} threads"))
    if found.reference_latency_ms is not None:
        lines.append(("original's", _spread(found, "reference_latency")))
    return [
        *lines,
        ("file", f"{units.size(found.size_bytes)} ({units.size(found.gzip_bytes)} gzipped)"),
        ("parameters", f"{units.count(found.params)} ({units.count(found.nonzeros)} not zero)"),
        ("MACs", units.count(found.macs)),
    ]


def _spread(found: Evaluation, field: str) -> str:
    median, low, high = (units.milliseconds(getattr(found, f"{field}{end}_ms")) for end in ("", "_low", "_high"))
    return f"{median} ({low} to {high})"
