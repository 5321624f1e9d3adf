"""What trials so far say about recipes not yet tried: a Gaussian process for each measured number.

Its prior is a straight line (each method adds its own share, so what two methods do together is expected before it was
tried) plus a smooth departure from it. Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

LENGTHS = (0.5, 1.0, 2.0)  # of the departures, in units of the features
BENDS = (0.1, 0.3, 1.0)  # their standard deviation, as a share of that of the observations
LINE = 2.0  # standard deviation of the line's slopes, in the same units
JITTER = 1e-8


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Mean and standard deviation of a number for each of several recipes, shape (N,)."""

    mean: np.ndarray
    std: np.ndarray


class Estimator:
    """A Gaussian process fitted to observations.

    Args:
        features: shape (n, d), in units in which a difference of one is large.
        values: shape (n,).
        noise: standard deviation of a single measurement, in units of the values.
    """

    def __init__(self, features: np.ndarray, values: np.ndarray, noise: float) -> None:
        self._features = features
        self._centre = float(values.mean())
        self._scale = max(float(values.std()), noise, 1e-9)
        observed = (values - self._centre) / self._scale
        noise_share = noise / self._scale
        fits = [
            _fitted(features, observed, noise_share, *setting) for setting in itertools.product(LENGTHS, BENDS)
        ]  # the setting under which the observations are likeliest
        self._likelihood, self._setting, self._factor, self._weights = max(fits, key=lambda fit: fit[0])

    def at(self, features: np.ndarray) -> Estimate:
        """Estimates for rows of features, shape (N, d); the deviation is that of the truth, not of a measurement."""
        across = _kernel(features, self._features, *self._setting)
        mean = self._centre + self._scale * (across @ self._weights)
        solved = np.linalg.solve(self._factor, across.T)
        own = _own(features, self._setting[1])
        std = self._scale * np.sqrt(np.maximum(own - (solved**2).sum(axis=0), 1e-12))
        return Estimate(mean=mean, std=std)


_Fit = tuple[float, tuple[float, float], np.ndarray, np.ndarray]


def _fitted(features: np.ndarray, values: np.ndarray, noise: float, length: float, bend: float) -> _Fit:
    """Log marginal likelihood, the setting, the Cholesky factor and the weights."""
    inner = _kernel(features, features, length, bend) + (noise**2 + JITTER) * np.eye(len(values))
    factor = np.linalg.cholesky(inner)
    half = np.linalg.solve(factor, values)
    weights = np.linalg.solve(factor.T, half)
    likelihood = -0.5 * float(half @ half) - float(np.log(np.diag(factor)).sum())
    return likelihood, (length, bend), factor, weights


def _kernel(a: np.ndarray, b: np.ndarray, length: float, bend: float) -> np.ndarray:
    apart = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2 * a @ b.T
    smooth = bend**2 * np.exp(-0.5 * np.maximum(apart, 0.0) / length**2)
    line = LINE**2 * (1 + a @ b.T)
    return np.asarray(line + smooth)


def _own(features: np.ndarray, bend: float) -> np.ndarray:
    return np.asarray(LINE**2 * (1 + (features**2).sum(axis=1)) + bend**2)
