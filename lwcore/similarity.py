"""How near rows of numbers are to other rows: what is compared where there are no classes to compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def fitted(after: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 rows of the same length; what one has fewer values of is filled up with zeros."""
    width = max(after.shape[1], before.shape[1])
    one, two = (np.pad(rows.astype(np.float64), ((0, 0), (0, width - rows.shape[1]))) for rows in (after, before))
    return one, two


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """Cosine similarity over all samples, −1 to 1, and its standard error over them."""

    value: float
    error: float


def likeness(after: np.ndarray, before: np.ndarray) -> Likeness:
    """Cosine similarity of all rows with the original's, taken as one long vector, so that single numbers count too.

    It is 1 where nothing changed and 0 where a value is no number; the standard error is the jackknife's.
    """
    one, two = fitted(after, before)
    if np.array_equal(one, two):
        return Likeness(value=1.0, error=0.0)
    if not np.isfinite(one).all():
        return Likeness(value=0.0, error=0.0)
    parts = np.stack([(one * two).sum(axis=1), (one**2).sum(axis=1), (two**2).sum(axis=1)])
    total, count = parts.sum(axis=1), parts.shape[1]
    without = _cosine(total[:, None] - parts)
    spread = float(((without - without.mean()) ** 2).sum()) * (count - 1) / count
    return Likeness(value=float(_cosine(total)), error=spread**0.5)


def _cosine(sums: np.ndarray) -> np.ndarray:
    power = np.sqrt(np.maximum(sums[1] * sums[2], 0))
    found: np.ndarray = np.clip(np.divide(sums[0], power, out=np.zeros_like(power), where=power > 0), -1.0, 1.0)
    return found


def relative_error(after: np.ndarray, before: np.ndarray) -> float:
    """‖after − before‖ / ‖before‖ over all rows; infinite values count as the largest number there is."""
    one, two = fitted(after, before)
    with np.errstate(invalid="ignore", over="ignore"):
        moved, power = np.linalg.norm(one - two), np.linalg.norm(two)
    return float(np.nan_to_num(moved / max(float(power), 1e-30), nan=np.finfo(np.float64).max))


def change(found: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> float:
    """Mean squared change of the outputs, each relative to its own power, the mean over all of them."""
    moved = [
        float(np.mean((one - two) ** 2)) / max(float(np.mean(two**2)), 1e-30)
        for one, two in (fitted(*pair) for pair in zip(found, truth, strict=True))
    ]
    return float(np.mean(moved))
