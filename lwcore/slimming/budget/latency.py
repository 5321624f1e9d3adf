"""Latency budgets: a rough clock to share them out by, and a real one that has the last word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lwcore.analysis.coupling import couple
from lwcore.answers import example
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.runtime import run, session
from lwcore.slimming.budget.levels import levers, merged
from lwcore.slimming.budget.pricing import prices
from lwcore.slimming.rewrite import cut, keep_any
from lwcore.timing import take_turns

LADDER = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # shares of the way to the last stops at which the clock is set
SECONDS = 1.0  # for setting the clock, and for each measurement


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Milliseconds of one run on this machine: fixed, for each multiply–accumulate, and for each number written."""

    fixed_ms: float
    mac_ms: float
    value_ms: float

    def of(self, macs: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Estimated milliseconds of one run."""
        total: np.ndarray = self.fixed_ms + self.mac_ms * macs + self.value_ms * values
        return total


def measure_pace(model: Model) -> Pace:
    """Time the model and narrower copies of it (weights do not matter to time) in turns, and fit the three numbers."""
    from scipy.optimize import nnls  # late: the web process never sets a clock

    known, choices = prices(model), levers(model, 8)
    rungs = [merged(choices, [round(share * (len(lever.stops) - 1)) for lever in choices]) for share in LADDER]
    times = np.array(_milliseconds(model, rungs))
    removed = np.array([known.removed(counts) for counts in rungs])
    parts = np.stack([np.ones(len(rungs)), known.macs.total(removed), known.values.total(removed)], axis=1)
    scale = np.maximum(parts.max(axis=0), 1.0)
    fixed, mac, value = nnls(parts / scale / times[:, None], np.ones(len(rungs)))[0] / scale
    return Pace(fixed_ms=float(fixed), mac_ms=float(mac), value_ms=float(value))


def share_of_time(model: Model, counts: Mapping[str, int]) -> float:
    """Measured time of the model without so many channels, as a share of the original's."""
    before, after = _milliseconds(model, [{}, counts])
    return after / before


def _milliseconds(model: Model, removals: Sequence[Mapping[str, int]]) -> list[float]:
    graph, coupling = Graph.view(model), couple(model)
    batch = example(graph)
    runners = []
    for counts in removals:
        full = {group.name: counts.get(group.name, 0) for group in coupling.groups}
        slim = cut(graph, coupling, keep_any(coupling, full))
        runners.append(session(slim.serialize()))
    turns = [lambda runner=runner: run(runner, batch) for runner in runners]
    return [found.low_ms for found in take_turns(turns, SECONDS)]  # of all percentiles other work disturbs it least
