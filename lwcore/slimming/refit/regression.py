"""Ridge regression of what a layer should give on what it reads, in float64 from float32 vectors.

With W the weight at hand, x its inputs and y what it should give: `W' = W + Cov(y − W x, x) (Cov(x, x) + λI)⁻¹`. The
ridge pulls towards the weight at hand, so that few or dull samples end in no change rather than in a wrong one; λ is
the one that does best on batches that were left out. Where an activation cuts y off (ReLU, ReLU6), only what passes it
must be right: further sweeps put the targets that are cut off where the prediction is (Zhang et al., TPAMI 2016).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dpotrf, dpotrs  # what `cho_factor` calls; its own checks cost as much as a small solve

from lwcore.slimming.refit.targets import GOLDEN

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # λ as a share of the mean variance of the inputs
FIRST = 1  # index of the one that is tried first, and taken when nothing can be left out
HELD = 4  # every so-manieth batch is left out while λ is chosen
SWEEPS = 2  # over targets that an activation cuts off; a third gained a tenth of the second
_FLOOR = 1e-12  # of a variance
_FIRMER = 10.0


@dataclass(frozen=True)
class Window:
    """Which targets lie at or beyond the edges of what an activation tells apart, None where there is no edge."""

    below: np.ndarray | None
    above: np.ndarray | None


@dataclass(frozen=True)
class Batch:
    """Vectors of one batch.

    Attributes:
        x: inputs, float32, shape (groups, inputs, n).
        y: targets, float32, shape (groups, outputs, n).
        low, high: what follows tells no values below `low` or above `high` apart; broadcast to `y`'s shape.
    """

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | float = -np.inf
    high: np.ndarray | float = np.inf

    def thinned(self, step: int) -> Batch:
        """One vector of every `step`, at changing places: samples lie side by side, none must lose all."""
        n = self.y.shape[-1]
        blocks = np.arange(-(-n // step))
        kept = np.minimum(blocks * step + (GOLDEN * step * blocks).astype(int) % step, n - 1)
        low, high = (
            edge[..., kept] if isinstance(edge, np.ndarray) and edge.shape[-1:] == self.y.shape[-1:] else edge
            for edge in (self.low, self.high)
        )
        return Batch(self.x[..., kept], self.y[..., kept], low, high)

    def window(self) -> Window | None:
        """Which targets an activation cuts off, None where it cuts off nothing."""
        below = self.y <= self.low if np.isfinite(self.low).any() else None
        above = self.y >= self.high if np.isfinite(self.high).any() else None
        return None if below is None and above is None else Window(below, above)

    def met(self, window: Window, predicted: np.ndarray) -> np.ndarray:
        """The targets; one that is cut off lies where the prediction does, or at the edge where that would pass."""
        targets = self.y
        if window.above is not None:
            targets = np.where(window.above, np.maximum(predicted, self.high), targets)
        if window.below is not None:
            targets = np.where(window.below, np.minimum(predicted, self.low), targets)
        return targets


@dataclass(frozen=True)
class Sums:
    """Sums over vectors, group by group.

    Attributes:
        inner: Σ x xᵀ, shape (groups, inputs, inputs).
        cross: Σ y xᵀ, shape (groups, outputs, inputs).
        x, y: Σ x and Σ y.
        count: vectors.
    """

    inner: np.ndarray
    cross: np.ndarray
    x: np.ndarray
    y: np.ndarray
    count: int

    @classmethod
    def of(cls, batches: Sequence[Batch]) -> Sums:
        """Of some batches: each is summed in float32, their sums in float64."""
        groups, width, _ = batches[0].x.shape
        outputs = batches[0].y.shape[1]
        inner, cross = np.zeros((groups, width, width)), np.zeros((groups, outputs, width))
        x, y = np.zeros((groups, width)), np.zeros((groups, outputs))
        for batch in batches:
            flipped, ones = batch.x.swapaxes(1, 2), np.ones(batch.x.shape[2], np.float32)
            inner += batch.x @ flipped
            cross += batch.y @ flipped
            x += batch.x @ ones
            y += batch.y @ ones
        return cls(inner, cross, x, y, sum(batch.x.shape[2] for batch in batches))

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.inner + other.inner, self.cross + other.cross, self.x + other.x, self.y + other.y,
            self.count + other.count,
        )  # fmt: skip

    def covariances(self, centred: bool) -> tuple[np.ndarray, np.ndarray]:
        """Cov(x, x) and Cov(y, x), or the plain second moments."""
        inner, cross = self.inner / self.count, self.cross / self.count
        if centred:
            x, y = self.x / self.count, self.y / self.count
            inner, cross = inner - x[:, :, None] * x[:, None], cross - y[:, :, None] * x[:, None]
        return inner, cross


Solver = Callable[[np.ndarray], np.ndarray]  # what is missing of Cov(y, x), shape (groups, outputs, inputs) → ΔW


def solver(inner: np.ndarray, ridge: float) -> Solver:
    """`missing @ (inner + λI)⁻¹`, factorised once."""
    groups, size = inner.shape[:2]
    if not np.isfinite(inner).all():  # whoever writes the weight refuses it
        return lambda missing: np.full_like(missing, np.nan)
    full, diagonal = inner.copy(), np.arange(size)
    power = np.maximum(np.trace(inner, axis1=1, axis2=2) / size, _FLOOR)
    full[:, diagonal, diagonal] += (ridge * power)[:, None]
    if groups > 1:
        inverse = np.linalg.inv(full)
        return lambda missing: np.asarray(missing @ inverse)
    factor, failed = dpotrf(full[0].T, clean=False, overwrite_a=True)  # the transpose is LAPACK's own order
    if failed:  # rounding of nearly dependent inputs outweighs so small a ridge
        return solver(inner, _FIRMER * ridge)
    return lambda missing: np.asarray(dpotrs(factor, missing[0].T)[0].T[None])


def fitted(batches: Sequence[Batch], plain: np.ndarray, centred: bool) -> tuple[np.ndarray, np.ndarray]:
    """The weight that predicts `y` from `x` best, and the mean it leaves over.

    Args:
        plain: the weight at hand, shape (groups, outputs, inputs).
        centred: a constant can be added to the prediction.

    Returns:
        The weight, and E[y − W x], shape (groups, outputs); not finite where the vectors are not.
    """
    held = batches[HELD - 1 :: HELD]
    seen = Sums.of([batch for i, batch in enumerate(batches) if i % HELD != HELD - 1])
    unseen = Sums.of(held) if held else None
    total = seen + unseen if unseen else seen
    if not (np.isfinite(total.inner).all() and np.isfinite(total.cross).all()):
        return np.full_like(plain, np.nan), np.full(plain.shape[:2], np.nan)
    ridge = _ridge(seen, unseen, plain, centred) if unseen else RIDGES[FIRST]
    if ridge is None:
        return plain, _left(total, plain)
    inner, cross = total.covariances(centred)
    solve, known = solver(inner, ridge), plain @ inner
    weight = plain + solve(cross - known)
    shift = _left(total, weight)
    windows = [batch.window() for batch in batches] if centred else []
    if not any(windows):
        return weight, shift
    for _ in range(SWEEPS):
        cross, mean = _passing(batches, windows, weight, shift, total)
        weight = plain + solve(cross - known)
        shift = mean - (weight @ total.x[:, :, None])[..., 0] / total.count
    return weight, shift


def _left(total: Sums, weight: np.ndarray) -> np.ndarray:
    return np.asarray((total.y - (weight @ total.x[:, :, None])[..., 0]) / total.count)


def _ridge(seen: Sums, unseen: Sums, plain: np.ndarray, centred: bool) -> float | None:
    """The ridge that does best on the batches left out; None when none does better than the weight at hand."""
    inner, cross = seen.covariances(centred)
    judge = unseen.covariances(centred)
    missing = cross - plain @ inner

    def loss(position: int) -> float:
        return _loss(plain + solver(inner, RIDGES[position])(missing), *judge)

    best, at = loss(FIRST), FIRST
    for way in (1, -1):  # the loss has one valley: go down whichever side it falls
        position = FIRST + way
        while 0 <= position < len(RIDGES) and (found := loss(position)) < best:
            best, at, position = found, position, position + way
        if at != FIRST:
            break
    return RIDGES[at] if best < _loss(plain, *judge) else None


def _loss(weight: np.ndarray, inner: np.ndarray, cross: np.ndarray) -> float:
    """Mean squared error of a weight, but for the targets' own variance."""
    return float(((weight @ inner) * weight).sum() - 2 * (weight * cross).sum())


def _passing(
    batches: Sequence[Batch],
    windows: Sequence[Window | None],
    weight: np.ndarray,
    shift: np.ndarray,
    total: Sums,
) -> tuple[np.ndarray, np.ndarray]:
    """Cov(t, x) and E[t] for the targets t that an activation lets through."""
    small, offset = weight.astype(np.float32), shift[:, :, None].astype(np.float32)
    cross, mean = np.zeros(weight.shape), np.zeros(shift.shape)
    for batch, window in zip(batches, windows, strict=True):
        targets = batch.met(window, small @ batch.x + offset) if window else batch.y
        cross += targets @ batch.x.swapaxes(1, 2)
        mean += targets @ np.ones(targets.shape[2], np.float32)
    mean /= total.count
    return cross / total.count - mean[:, :, None] * (total.x / total.count)[:, None], mean


def fitted_few(batches: Sequence[Batch], plain: np.ndarray, centred: bool) -> tuple[np.ndarray, np.ndarray]:
    """`fitted` for fewer vectors than inputs: the same answer by way of the vectors' products with each other."""
    x = np.concatenate([batch.x[0] for batch in batches], axis=1).astype(np.float64)
    y = np.concatenate([batch.y[0] for batch in batches], axis=1).astype(np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return np.full_like(plain, np.nan), np.full(plain.shape[:2], np.nan)
    middle, wanted = x.mean(axis=1, keepdims=True), y.mean(axis=1, keepdims=True)
    inputs = x - middle if centred else x
    missing = (y - wanted if centred else y) - plain[0] @ inputs
    products = inputs.T @ inputs
    ridge = RIDGES[FIRST + 1] * max(float(np.trace(products)) / len(x), _FLOOR)
    factor = cho_factor(products + ridge * np.eye(len(products)), check_finite=False)
    weight = plain[0] + cho_solve(factor, missing.T, check_finite=False).T @ inputs.T
    return weight[None], (wanted - weight @ middle)[:, 0][None]
