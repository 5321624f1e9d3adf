"""From answers to accuracy, agreement, confusion and the samples whose answer changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from lwcore.errors import EvaluationError
from lwcore.evaluation.result import Changed, ClassRow, Confused
from lwcore.evaluation.statistics import mcnemar, paired_difference, wilson
from lwcore.samples import SampleSet

NO_ANSWER = -1  # the class of an answer that is no number
CONFUSION_CLASSES = 50
CONFUSED_PAIRS = 20
CHANGED_SAMPLES = 200


def answers(logits: np.ndarray) -> np.ndarray:
    """Class with the highest score, int64 shape (N,); `NO_ANSWER` where a score is not a number."""
    best = logits.argmax(axis=1)
    return np.where(np.isnan(logits).any(axis=1), NO_ANSWER, best)


def confidences(logits: np.ndarray) -> np.ndarray:
    """Probability of each sample's best class, float64 shape (N,); a softmax is taken unless the model already did."""
    scores = logits.astype(np.float64)
    finite = scores[np.isfinite(scores).all(axis=1)]
    if len(finite) and finite.min() >= 0 and np.allclose(finite.sum(axis=1), 1.0, atol=1e-2):
        return np.asarray(scores.max(axis=1))
    with np.errstate(invalid="ignore", over="ignore"):
        total = np.exp(scores - scores.max(axis=1, keepdims=True)).sum(axis=1)
    return np.asarray(np.nan_to_num(1.0 / total))


def class_names(classes: Sequence[str], count: int) -> list[str]:
    """One name a class; classes that the card does not name go by their number."""
    return [classes[i] if i < len(classes) else str(i) for i in range(count)]


def check_labels(samples: SampleSet, classes: int) -> np.ndarray | None:
    """The labels, once they fit the model's outputs; raises `EvaluationError` when they do not."""
    labels = samples.labels
    if labels is None:
        return None
    if labels.min() < 0 or labels.max() >= classes:
        raise EvaluationError(
            f"Expected labels 0–{classes - 1}, one a class of the model; found {labels.min()}–{labels.max()} in "
            f"{samples.name!r}. Choose samples of the model's classes."
        )
    return labels


def top1(found: np.ndarray, labels: np.ndarray, classes: int, names: Sequence[str]) -> dict[str, Any]:
    """Fields of an `Evaluation` that need labels only."""
    share = wilson(int((found == labels).sum()), len(labels))
    counts = _counts(found, labels)
    return {
        "top1": share.value,
        "top1_low": share.low,
        "top1_high": share.high,
        "per_class": _per_class(found, None, labels, names),
        "confused": _confused(counts, names),
        "confusion": _table(counts, classes) if classes <= CONFUSION_CLASSES else None,
    }


def paired(found: np.ndarray, before: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Fields of an `Evaluation` that need labels and the original's answers."""
    right, was_right = found == labels, before == labels
    gained, lost = int((right & ~was_right).sum()), int((~right & was_right).sum())
    change = paired_difference(gained, lost, len(labels))
    return {
        "reference_top1": float(was_right.mean()),
        "difference": change.value,
        "difference_low": change.low,
        "difference_high": change.high,
        "p_value": mcnemar(gained, lost),
        "per_class": _per_class(found, before, labels, names),
    }


def agreement(found: np.ndarray, before: np.ndarray) -> dict[str, Any]:
    """Fields of an `Evaluation` that need the original's answers only."""
    share = wilson(int((found == before).sum()), len(found))
    return {"agreement": share.value, "agreement_low": share.low, "agreement_high": share.high}


def changed(logits: np.ndarray, original: np.ndarray, samples: SampleSet, names: Sequence[str]) -> dict[str, Any]:
    """The samples whose answer changed, in their own order, and how many there are in all."""
    found, before = answers(logits), answers(original)
    rows = np.flatnonzero(found != before)
    shown = rows[:CHANGED_SAMPLES]
    sure, was_sure = confidences(logits[shown]), confidences(original[shown])
    listed = tuple(
        Changed(
            index=int(i),
            name=samples.names[i] if i < len(samples.names) else str(i),
            label=None if samples.labels is None else names[samples.labels[i]],
            before=_name(names, before[i]),
            after=_name(names, found[i]),
            before_confidence=float(was_sure[k]),
            after_confidence=float(sure[k]),
        )
        for k, i in enumerate(shown)
    )
    return {"changed": listed, "changed_total": len(rows)}


def _name(names: Sequence[str], answer: int) -> str:
    return "–" if answer == NO_ANSWER else names[answer]


def _counts(found: np.ndarray, labels: np.ndarray) -> Counter[tuple[int, int]]:
    known = found != NO_ANSWER
    return Counter(zip(labels[known].tolist(), found[known].tolist(), strict=True))


def _table(counts: Counter[tuple[int, int]], classes: int) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(counts[label, answer] for answer in range(classes)) for label in range(classes))


def _confused(counts: Counter[tuple[int, int]], names: Sequence[str]) -> tuple[Confused, ...]:
    wrong = [(count, pair) for pair, count in counts.items() if pair[0] != pair[1]]
    wrong.sort(key=lambda item: (-item[0], item[1]))
    return tuple(
        Confused(label=names[label], answer=names[answer], count=count)
        for count, (label, answer) in wrong[:CONFUSED_PAIRS]
    )


def _per_class(
    found: np.ndarray, before: np.ndarray | None, labels: np.ndarray, names: Sequence[str]
) -> tuple[ClassRow, ...]:
    rows = []
    for label in np.unique(labels):
        mine = labels == label
        was = None if before is None else float((before[mine] == label).mean())
        now = float((found[mine] == label).mean())
        rows.append(ClassRow(name=names[label], n=int(mine.sum()), before=was, after=now))
    return tuple(rows)
