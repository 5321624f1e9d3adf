"""Allocation: how much the answer moves when one group is slimmed, and a budget shared out by it."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lwcore.analysis.cost import Cost
from lwcore.analysis.coupling import Coupling, Group, couple
from lwcore.analysis.statistics import Moments, feed
from lwcore.errors import SlimError
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.progress import Progress, silent
from lwcore.recipe import Budget
from lwcore.runtime import run, session
from lwcore.samples import SampleSet
from lwcore.slimming.compensate import Cut, gather_moments, one_shot
from lwcore.slimming.criteria import Evidence, scores
from lwcore.slimming.levels import Lever, levers, merged
from lwcore.slimming.pricing import price
from lwcore.slimming.rewrite import cut

AMOUNTS = (0.0, 0.25, 0.5, 0.75)
SAMPLES = 128  # the outputs' mean squared change settles long before accuracy does
CRITERION = "l2"  # which channels go matters less here than how many, and norms need no statistics of their own


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Measured harm of slimming each group alone.

    Attributes:
        harm: group name → mean squared change of the outputs, relative to their own power, at each of `AMOUNTS`.
        samples: how many calibration samples it was measured on.
    """

    harm: Mapping[str, tuple[float, ...]]
    samples: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"amounts": list(AMOUNTS), "harm": {k: list(v) for k, v in self.harm.items()}, "samples": self.samples}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Sensitivity:
        """Read what `to_json` wrote."""
        return cls(harm={k: tuple(v) for k, v in data["harm"].items()}, samples=int(data["samples"]))

    def at(self, group: str, amount: float) -> float:
        """Harm at any amount: linear between the measured ones, and on past the last; never falling."""
        measured = np.maximum.accumulate(self.harm[group])
        if amount > AMOUNTS[-1]:
            return float(measured[-1] * (1 + 8 * (amount - AMOUNTS[-1])))
        return float(np.interp(amount, AMOUNTS, measured))


def measure_sensitivity(model: Model, samples: SampleSet, progress: Progress = silent) -> Sensitivity:
    """Slim each group alone by each of `AMOUNTS`, with one-shot compensation, and measure how far the outputs move."""
    dense, coupling = Graph.view(model), couple(model)
    moments = gather_moments(model, samples)
    batches = list(feed(dense, samples.take(SAMPLES), model.card.input))
    reference = _outputs(model.data, batches)
    power = max(float(np.mean(reference**2)), 1e-30)
    evidence = Evidence(dense, coupling, {}, np.random.default_rng(0))
    harm: dict[str, tuple[float, ...]] = {}
    for done, group in enumerate(coupling.groups):
        order = group.units[np.argsort(scores(CRITERION, evidence, group), kind="stable")]
        found = [0.0]
        for amount in AMOUNTS[1:]:
            outputs = _outputs(_without(dense, coupling, moments, order[: _some(group, amount)]), batches)
            found.append(float(np.mean((outputs - reference) ** 2)) / power)
        harm[group.name] = tuple(found)
        progress((done + 1) / len(coupling.groups), "measuring sensitivity")
    return Sensitivity(harm=harm, samples=min(SAMPLES, len(samples)))


def _some(group: Group, amount: float) -> int:
    return min(group.channels - 1, max(1, round(amount * group.channels)))


def _without(dense: Graph, coupling: Coupling, moments: Mapping[str, Moments], units: np.ndarray) -> bytes:
    keep = np.ones(coupling.units, dtype=bool)
    keep[units] = False
    slim = cut(dense, coupling, keep)
    one_shot(Cut(dense, slim, coupling, keep), moments)
    return slim.serialize()


def _outputs(data: bytes, batches: list[np.ndarray]) -> np.ndarray:
    runner = session(data)
    return np.concatenate([run(runner, batch)[0].reshape(len(batch), -1) for batch in batches])


def share_out(model: Model, budget: Budget, align: int, sensitivity: Sensitivity) -> dict[str, int]:
    """Channels to remove from each group so that the model fits the budget with the least summed harm.

    Greedy: again and again the lever whose next stop costs least harm for what it saves. Savings are recomputed lazily,
    since slimming one group makes its neighbours cheaper. Then levers go back as long as the budget still holds.

    Raises:
        SlimError: even with every lever at its last stop the model does not fit.
    """
    choices = levers(couple(model), align)
    stops = [0] * len(choices)

    def left(at: list[int]) -> int:
        return _of(price(model, merged(choices, at)), budget)

    if not choices:
        raise SlimError("Expected a model with channels that can be removed to share out a budget, found none.")
    now = left(stops)
    limit = budget.keep * now
    queue = [(0.0, position, -1) for position in range(len(choices))]
    while now > limit and queue:
        _, position, seen = heapq.heappop(queue)
        if stops[position] + 1 >= len(choices[position].stops):
            continue
        trial = _moved(stops, position, 1)
        after = left(trial)
        rate = max(
            _harm(choices[position], trial[position], sensitivity)
            - _harm(choices[position], stops[position], sensitivity),
            1e-9,
        ) / max(now - after, 1)
        if seen != sum(stops) and queue and rate > queue[0][0]:
            heapq.heappush(queue, (rate, position, sum(stops)))
            continue
        stops, now = trial, after
        heapq.heappush(queue, (rate, position, -1))
    if now > limit and align > 1:  # layers too narrow for whole blocks
        return share_out(model, budget, 1, sensitivity)
    if now > limit:
        raise SlimError(
            f"budget.keep: expected a share that can be reached, found {budget.keep:g}; with every group at its "
            f"smallest, {now / left([0] * len(choices)):.2f} of the {budget.of} are left."
        )
    for position in sorted(range(len(choices)), key=lambda p: -_harm(choices[p], stops[p], sensitivity)):
        while stops[position] and left(_moved(stops, position, -1)) <= limit:
            stops = _moved(stops, position, -1)
    return merged(choices, stops)


def _moved(stops: list[int], position: int, by: int) -> list[int]:
    return [stop + by if i == position else stop for i, stop in enumerate(stops)]


def _harm(lever: Lever, stop: int, sensitivity: Sensitivity) -> float:
    return sum(sensitivity.at(g.name, lever.stops[stop][g.name] / g.channels) for g in lever.groups)


def _of(total: Cost, budget: Budget) -> int:
    return total.macs if budget.of == "macs" else total.params
