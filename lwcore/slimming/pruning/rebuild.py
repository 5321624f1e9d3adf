"""Which channels the others can rebuild: backward elimination on the joint objective of all layers that read a group.

Removing channel j from those left costs `S_jj / P_jj`, with P the inverse covariance of the channels left and S the
Gram matrix of the re-fitted weights; both follow from those before by a rank-one update, so the weights are never
touched. The order serves every amount. Sources: Optimal Brain Surgeon (Hassibi and Stork, 1993), Optimal Brain
Compression (Frantar and Alistarh, NeurIPS 2022), OSSCAR (Meng et al., ICML 2024).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lwcore.analysis.statistics import Moments

RIDGE = 1e-3  # share of the mean variance added to a covariance before it is inverted
_ALONE = 256  # up to so many channels go one by one, more in small shares
_SHARE = 12


@dataclass(frozen=True)
class Reader:
    """A layer that reads channels of a group, by input channel.

    Attributes:
        owner: position in the group, −1 for channels of other groups (they stay and help).
        weight: Gram matrix of the weights, shape (C, C).
        covariance: of the inputs, shape (C, C).
    """

    owner: np.ndarray
    weight: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, owner: np.ndarray, weight: np.ndarray, moments: Moments) -> Reader:
        """From the weight as a matrix, shape (anything, C)."""
        return cls(owner, weight.T @ weight, moments.gram - np.outer(moments.mean, moments.mean))


class _State:
    """What is left of one reader."""

    def __init__(self, reader: Reader) -> None:
        size = len(reader.owner)
        power = float((reader.weight * reader.covariance).sum())
        ridge = RIDGE * max(float(np.trace(reader.covariance)) / size, 1e-12)
        self.owner = reader.owner
        self._inverse = np.linalg.inv(reader.covariance + ridge * np.eye(size))
        self._weight = reader.weight / max(power, 1e-30)

    def harm(self, channels: int) -> np.ndarray:
        """Share of the reader's output power that removing each channel of the group alone would cost."""
        total = np.zeros(channels)
        mine = self.owner >= 0
        np.add.at(total, self.owner[mine], (np.diagonal(self._weight) / np.diagonal(self._inverse))[mine])
        return total

    def remove(self, gone: np.ndarray) -> None:
        """Take channels of the group away and re-fit the weights of the others."""
        out = np.isin(self.owner, gone)
        if not out.any():
            return
        left = ~out
        cross = self._inverse[np.ix_(out, left)]
        step = np.linalg.solve(self._inverse[np.ix_(out, out)], cross)
        mixed = self._weight[np.ix_(left, out)] @ step
        self._weight = (
            self._weight[np.ix_(left, left)] - mixed - mixed.T + step.T @ self._weight[np.ix_(out, out)] @ step
        )
        self._inverse = self._inverse[np.ix_(left, left)] - cross.T @ step
        self.owner = self.owner[left]


def elimination(readers: Iterable[Reader], channels: int) -> np.ndarray:
    """Rank of each channel of a group, 0 for the one that goes first."""
    states = [_State(reader) for reader in readers]
    rank, left = np.zeros(channels), np.arange(channels)
    while len(left) > 1:
        harm = _harm(states, channels)[left]
        count = 1 if len(left) <= _ALONE else len(left) // _SHARE
        first = np.argsort(harm, kind="stable")[:count]
        rank[left[first]] = channels - len(left) + np.arange(count)
        for state in states:
            state.remove(left[first])
        left = np.delete(left, first)
    rank[left] = channels
    return rank


def _harm(states: Sequence[_State], channels: int) -> np.ndarray:
    return np.asarray(sum((state.harm(channels) for state in states), np.zeros(channels)))
