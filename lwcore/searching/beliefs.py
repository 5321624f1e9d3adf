"""From trials to what to try next: constrained expected improvement over estimates of every number that matters.

What a recipe is worth trying for is how much better than the best so far it is expected to be, times the probability
that it keeps every limit. Source: Gardner et al., "Bayesian Optimization with Inequality Constraints", ICML 2014.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from lwcore.searching.devices import fitted
from lwcore.searching.estimates import Estimate, Estimator
from lwcore.searching.targets import Limit, Target, limits
from lwcore.searching.trials import Trial

SAME = 0.01  # noise of numbers that are counted, relative
TIMING = 0.1  # of numbers that are timed, relative
CHANGED = 0.04  # share of answers that a worthwhile slimming changes: what the noise of a measured drop comes from

# The number on the scale on which it is estimated, by the limit that looks at it.
_SCALE: Mapping[str, str] = {
    "drop": "drop",
    "size_bytes": "size",
    "flash_bytes": "size",
    "macs": "macs",
    "ram_bytes": "ram",
    "device_ms": "device",
    "latency_ms": "time",
    "speedup": "time",
}
_COUNTED: Mapping[str, str] = {"size": "size_bytes", "macs": "macs", "ram": "ram_bytes", "device": "device_ms"}
_OBJECTIVE: Mapping[str, str] = {"size": "size", "macs": "macs", "speed": "time", "accuracy": "drop"}


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A target for one model: its limits on raw numbers, and what to make small on the scale of the estimates."""

    target: Target
    limits: tuple[Limit, ...]

    @classmethod
    def of(cls, target: Target, original_macs: int) -> Goal:
        """The goal of a target for a model with so many MACs."""
        return cls(target=target, limits=limits(target, original_macs))

    @property
    def objective(self) -> str:
        """What to make small within the limits."""
        if self.target.wanted == "speed" and self.target.device is not None and self.target.speedup is None:
            return "device"
        return _OBJECTIVE[self.target.wanted]

    @property
    def scales(self) -> tuple[str, ...]:
        """Every number that matters, each once."""
        return tuple(dict.fromkeys((self.objective, *(_SCALE[limit.name] for limit in self.limits))))

    def raw(self, trial: Trial) -> dict[str, float]:
        """The numbers that the limits look at, as they were measured (the drop on the half that chooses)."""
        if trial.cost is None or trial.choice is None or trial.footprint is None:
            return {}
        found = {
            "drop": trial.choice.drop,
            "size_bytes": float(trial.cost.size_bytes),
            "flash_bytes": float(trial.cost.size_bytes),
            "macs": float(trial.cost.macs),
            "ram_bytes": float(trial.footprint.ram_bytes),
        }
        if trial.latency_ms is not None and trial.speedup is not None:
            found |= {"latency_ms": trial.latency_ms, "speedup": trial.speedup}
        elif not trial.recipe.steps:
            found["speedup"] = 1.0  # the original
        if self.target.device is not None:
            found["device_ms"] = fitted(trial.footprint, self.target.device).latency_ms
        return found

    def misses(self, trial: Trial) -> float:
        """How far a trial is from keeping every limit: 0 when it does; a tenth of a limit weighs as much as a point."""
        raw = self.raw(trial)
        if not {limit.name for limit in self.limits} <= raw.keys():  # not measured
            return math.inf
        return sum(limit.beyond(raw[limit.name]) * (0.1 if limit.name == "drop" else 1) for limit in self.limits)


def scaled(name: str, raw: Mapping[str, float]) -> float:
    """A measured number on the scale of its estimate: counts as logarithms, points nearly so beyond the first."""
    if name == "drop":
        return math.asinh(raw["drop"])
    if name == "time":
        return -math.log(max(raw["speedup"], 1e-9))
    return math.log(max(raw[_COUNTED[name]], 1e-9))


def drop_noise(samples: int) -> float:
    """Standard deviation of a measured drop, in points."""
    return 100 * math.sqrt(CHANGED / samples)


class Beliefs:
    """Estimates from the trials so far.

    Args:
        goal: limits and objective.
        trials: those that could be carried out, at least two.
        features: of their recipes, shape (n, d).
        margin: points by which the drop should stay below its limit.
    """

    def __init__(self, goal: Goal, trials: Sequence[Trial], features: np.ndarray, margin: float = 0.0) -> None:
        self._goal = goal
        self._margin = margin
        self._raw = [goal.raw(trial) for trial in trials]
        samples = max(trial.choice.n if trial.choice else 1 for trial in trials)
        noise = {"drop": drop_noise(samples), "time": TIMING}
        self._estimators = {
            name: Estimator(features, np.array([scaled(name, raw) for raw in self._raw]), noise.get(name, SAME))
            for name in goal.scales
        }
        self._known = self.estimates(features)
        self._bounds = {limit: self._bound(limit) for limit in goal.limits}

    def estimates(self, features: np.ndarray) -> dict[str, Estimate]:
        """Every number that matters, by the name of its scale."""
        return {name: estimator.at(features) for name, estimator in self._estimators.items()}

    def _bound(self, limit: Limit) -> float:
        """A limit on the scale of its estimate."""
        if limit.name == "latency_ms":  # relative to the original, whose time was taken beside every trial
            references = [raw["latency_ms"] * raw["speedup"] for raw in self._raw]
            return math.log(limit.value / float(np.median(references)))
        raw = {limit.name: limit.value - (self._margin if limit.name == "drop" else 0.0)}
        if limit.name == "flash_bytes":
            raw = {"size_bytes": limit.value}
        return scaled(_SCALE[limit.name], raw)

    def order(self) -> list[int]:
        """Indexes of the trials, the best estimated objective first, those not estimated to keep the limits last."""
        value = self._known[self._goal.objective].mean
        return sorted(range(len(value)), key=lambda i: (not self._keeps()[i], value[i], i))

    def _keeps(self) -> np.ndarray:
        keeps = np.ones(len(self._raw), dtype=bool)
        for limit, bound in self._bounds.items():
            keeps &= self._known[_SCALE[limit.name]].mean <= bound + 1e-9
        return keeps

    def worth(self, features: np.ndarray) -> np.ndarray:
        """How much each recipe is worth trying, shape (N,); only the order matters."""
        found = self.estimates(features)
        chance = np.ones(len(features))
        for limit, bound in self._bounds.items():
            estimate = found[_SCALE[limit.name]]
            chance *= ndtr((bound - estimate.mean) / estimate.std)
        objective = found[self._goal.objective]
        keeps = self._keeps()
        if not keeps.any():  # first of all find one that keeps the limits
            return chance + 1e-6 * _shortfall(found, self._bounds)
        best = float(self._known[self._goal.objective].mean[keeps].min())
        gap = (best - objective.mean) / objective.std
        density = np.exp(-0.5 * gap**2) / math.sqrt(2 * math.pi)
        return np.asarray(chance * objective.std * (gap * ndtr(gap) + density))


def _shortfall(found: Mapping[str, Estimate], bounds: Mapping[Limit, float]) -> np.ndarray:
    """How little is estimated to be missing (0 where nothing): a direction where every chance rounds to nothing."""
    missing = [np.maximum(found[_SCALE[limit.name]].mean - bound, 0.0) for limit, bound in bounds.items()]
    return np.asarray(-np.sum(missing, axis=0))
