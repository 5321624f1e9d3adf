"""Latency of several models, taken in turns in one process, so that whatever slows the machine slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

FEWEST_ROUNDS = 5
MOST_ROUNDS = 200


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds a run: the median, and the spread from the 10th to the 90th percentile."""

    median_ms: float
    low_ms: float
    high_ms: float
    rounds: int


def take_turns(runs: Sequence[Callable[[], object]], seconds: float = 0.4) -> list[Latency]:
    """Time each callable, one after the other, round after round, within about `seconds` in all.

    The order turns round every round, so that no model always runs in the warm cache of the same neighbour. The first
    (warm-up) round is not counted; at least five rounds are, unless one round alone takes longer than `seconds`.

    Args:
        runs: what to time, one callable a model.
        seconds: the time box for all of them together, warm-up included.

    Returns:
        One `Latency` a callable, in the order given.
    """
    started = time.perf_counter()
    for run in runs:
        run()
    warm_up = time.perf_counter() - started
    fewest = FEWEST_ROUNDS if warm_up < seconds else 2
    times: list[list[float]] = [[] for _ in runs]
    for done in range(MOST_ROUNDS):
        if done >= fewest and time.perf_counter() - started > seconds:
            break
        for index in range(len(runs))[:: 1 if done % 2 else -1]:
            before = time.perf_counter()
            runs[index]()
            times[index].append(time.perf_counter() - before)
    return [_summary(taken) for taken in times]


def _summary(seconds: Sequence[float]) -> Latency:
    low, median, high = np.percentile(np.asarray(seconds) * 1000.0, (10, 50, 90))
    return Latency(median_ms=float(median), low_ms=float(low), high_ms=float(high), rounds=len(seconds))
