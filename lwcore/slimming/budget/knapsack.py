"""Knapsack: one stop for every lever, so that a budget holds exactly and the summed harm is least.

What is left of a layer is a product of what is left of its neighbours, so the cost is no sum over levers and the
textbook's dynamic programme does not apply. Instead the Lagrangian is minimised lever by lever with the others held,
every stop priced exactly; bisection finds the multiplier that just meets the limit; and moves of one or two levers
then use up what the multiplier left over. Few levers are tried in every combination
instead. Sources: Everett 1963 (generalised Lagrange multipliers); AMC and NetAdapt share out by search, with far more
trials.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Costs = Callable[[np.ndarray], np.ndarray]  # channels removed of each group, shape (…, groups) → cost, shape (…)

_BISECTIONS = 14  # halvings of the multiplier's exponent: the moves afterwards are finer than one more halving
_REACH = 3  # stops by which a move may shift a lever
_MOVES = 400  # single moves that are paired, of those that gain and of those that pay
_PAIRS = 20_000  # moves tried, the most useful first
_CHUNK = 2_000  # of them priced at once
_FEW = 4_096  # combinations that are simply all tried
_ROUNDS = 60  # of moves; far more than ever ran


@dataclass(frozen=True)
class Knapsack:
    """The problem.

    Attributes:
        removed: for each lever, channels of every group that each stop removes, shape (stops, groups); nothing first.
        harms: for each lever, the harm of each stop, shape (stops,), never falling.
        costs: prices removals, exactly.
        limit: the cost that may not be exceeded.
    """

    removed: Sequence[np.ndarray]
    harms: Sequence[np.ndarray]
    costs: Costs
    limit: float

    def solve(self) -> list[int] | None:
        """Stops within the limit with the least summed harm found; None when even the last stops exceed it."""
        first, last = [0] * len(self.removed), [len(stops) - 1 for stops in self.removed]
        if self._cost(first) <= self.limit:
            return first
        if self._cost(last) > self.limit:
            return None
        if math.prod(len(stops) for stops in self.removed) <= _FEW:
            return self._exhausted()
        return self._improved(self._relaxed(last))

    def _exhausted(self) -> list[int]:
        """The best of all combinations within the limit."""
        every = np.indices([len(stops) for stops in self.removed]).reshape(len(self.removed), -1)
        harms = np.sum([harms[stops] for harms, stops in zip(self.harms, every, strict=True)], axis=0)
        removed = np.sum([rows[stops] for rows, stops in zip(self.removed, every, strict=True)], axis=0)
        harms = np.where(self.costs(removed) <= self.limit, harms, np.inf)
        return [int(stop) for stop in every[:, int(np.argmin(harms))]]

    def harm(self, stops: Sequence[int]) -> float:
        """Summed harm."""
        return float(sum(harms[stop] for harms, stop in zip(self.harms, stops, strict=True)))

    def _cost(self, stops: Sequence[int]) -> float:
        return float(self.costs(self._sum(stops)))

    def _sum(self, stops: Sequence[int]) -> np.ndarray:
        total: np.ndarray = np.sum([rows[stop] for rows, stop in zip(self.removed, stops, strict=True)], axis=0)
        return total

    def _relaxed(self, feasible: list[int]) -> list[int]:
        """Bisect the multiplier's exponent; `feasible` is the answer at its upper end."""
        start = self._cost([0] * len(self.removed))
        scale = max(self.harm(feasible), 1e-30) / start
        low, high, best = -30.0, 10.0, feasible
        stops = [0] * len(self.removed)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            stops = self._descended(stops, scale * 2.0**middle)
            if self._cost(stops) <= self.limit:
                high, best = middle, stops
            else:
                low = middle
        return best

    def _descended(self, stops: Sequence[int], multiplier: float) -> list[int]:
        """Lever by lever, the stop with the least harm + multiplier × cost, until none changes."""
        found, total = list(stops), self._sum(stops)
        for _ in range(_ROUNDS):
            before = list(found)
            for lever, rows in enumerate(self.removed):
                rest = total - rows[found[lever]]
                found[lever] = int(np.argmin(self.harms[lever] + multiplier * self.costs(rest + rows)))
                total = rest + rows[found[lever]]
            if found == before:
                break
        return found

    def _improved(self, stops: list[int]) -> list[int]:
        """Shift one lever, or one and another against it, as long as that lowers the harm within the limit."""
        for _ in range(_ROUNDS):
            moved = self._best_move(stops)
            if moved is None:
                break
            stops = moved
        return stops

    def _best_move(self, stops: Sequence[int]) -> list[int] | None:
        moves = [
            (lever, stop + by)
            for lever, stop in enumerate(stops)
            for by in range(-_REACH, _REACH + 1)
            if by and 0 <= stop + by < len(self.harms[lever])
        ]
        gains = np.array([self.harms[lever][stops[lever]] - self.harms[lever][stop] for lever, stop in moves])
        ranked = np.argsort(-gains, kind="stable")
        few = np.concatenate([ranked[gains[ranked] > 0][:_MOVES], ranked[gains[ranked] <= 0][:_MOVES]])
        moves, gains = [moves[i] for i in few], gains[few]
        levers, to = np.array(moves).T
        shifts = np.array([self.removed[lever][stop] - self.removed[lever][stops[lever]] for lever, stop in moves])
        nothing = len(moves)  # the partner of a move made alone
        levers, gains = np.append(levers, -1), np.append(gains, 0.0)
        shifts = np.vstack([shifts, np.zeros_like(shifts[:1])])
        one, other = np.nonzero((gains[:, None] > 0) & (levers[:, None] != levers[None]))
        total = gains[one] + gains[other]
        order = np.argsort(-total, kind="stable")
        order = order[total[order] > 1e-9 * abs(self.harm(stops))]
        now = self._sum(stops)
        for start in range(0, min(len(order), _PAIRS), _CHUNK):
            tried = order[start : start + _CHUNK]
            fits = self.costs(now + shifts[one[tried]] + shifts[other[tried]]) <= self.limit
            if fits.any():
                chosen = tried[int(np.argmax(fits))]
                found = list(stops)
                for move in (one[chosen], other[chosen]):
                    if move != nothing:
                        found[levers[move]] = int(to[move])
                return found
        return None
