"""When a search ends, and how much of its time measuring sensitivity may take."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

FINISH = 2.0  # seconds that the end takes
PATIENCE = 60.0  # seconds after which a search ends even if nothing was measured
BESIDE, ALONE = 0.5, 0.25  # share of the time left that sensitivity may take: beside trials, and in their stead


@dataclass(frozen=True, kw_only=True)
class Plan:
    """When to stop: by the clock, by count, or by whichever comes first."""

    started: float
    seconds: float | None
    trials: int | None

    def share(self, done: int) -> float:
        """How much of the search is over, 0–1."""
        shares = [0.0]
        if self.seconds is not None:
            shares.append((time.monotonic() - self.started) / self.seconds)
        if self.trials is not None:
            shares.append(done / self.trials)
        return min(1.0, max(shares))

    def over(self, asked: int, reserve: float, late: bool) -> bool:
        """Whether no further trial may be asked for; `reserve` seconds are kept for the end."""
        return (self.trials is not None and asked >= self.trials) or self.left(late) < reserve

    def left(self, late: bool = False) -> float:
        """Seconds until trials end; without end where only trials are counted.

        Args:
            late: nothing has been measured yet: rather than end without, a search may take twice its time, or a minute.
        """
        if self.seconds is None:
            return math.inf
        end = max(2 * self.seconds, PATIENCE) if late else self.seconds - FINISH
        return end - (time.monotonic() - self.started)

    def to_learn(self, workers: int) -> float | None:
        """Seconds that measuring sensitivity may take from now on; None for any number."""
        if self.seconds is None:
            return None
        return max(0.0, self.left()) * (BESIDE if workers > 1 else ALONE)
