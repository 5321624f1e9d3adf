"""Criteria: which channels of a group matter least; each is a function from a group to a score a channel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from lwcore.analysis.coupling import Coupling, Group
from lwcore.analysis.statistics import Moments
from lwcore.graph import Graph
from lwcore.registry import Registry
from lwcore.slimming.pruning.rebuild import Reader, elimination
from lwcore.slimming.refit.mixing import moments_key
from lwcore.slimming.weights import Weights


@dataclass(frozen=True)
class Evidence:
    """What a criterion may look at.

    Attributes:
        graph: the model before the cut.
        coupling: its groups.
        moments: tensor → moments on the calibration samples; empty unless the criterion `needs_samples`.
        rng: seeded from the recipe.
        orders: group → scores by "gram" that were worked out before.
    """

    graph: Graph
    coupling: Coupling
    moments: Mapping[str, Moments]
    rng: np.random.Generator
    orders: Mapping[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def weights(self) -> Weights:
        """The graph's weights as floats."""
        return Weights(self.graph)


Score = Callable[[Evidence, Group], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One entry of the drop-down: `score` maps a group of n channels to n numbers, small = removed first."""

    name: str
    title: str
    description: str
    reference: str
    score: Score
    needs_samples: bool = False


CRITERIA: Registry[Criterion] = Registry("criterion")
BEST = "best"
CANDIDATES = ("gram", "energy", "l2")  # what "best" tries


def scores(criterion: str, evidence: Evidence, group: Group) -> np.ndarray:
    """Scores of a group's channels, float64, in the order of `group.units`."""
    return CRITERIA[criterion].score(evidence, group)


def _made_by(evidence: Evidence, group: Group) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For every weight that makes channels of the group: filters as rows, and each row's position in the group."""
    place = np.full(evidence.coupling.units, -1)
    place[group.units] = np.arange(group.channels)
    for constant, axis in sorted(evidence.coupling.producers):
        owner = place[evidence.coupling.cuts[constant, axis]]
        if (owner >= 0).any():
            weight = np.moveaxis(evidence.weights.read_base(constant), axis, 0)
            filters = weight.reshape(weight.shape[0], -1)
            yield filters[owner >= 0], owner[owner >= 0]


def _norm(power: int) -> Score:
    def score(evidence: Evidence, group: Group) -> np.ndarray:
        total = np.zeros(group.channels)
        for filters, owner in _made_by(evidence, group):
            np.add.at(total, owner, (np.abs(filters) ** power).sum(axis=1))
        return total

    return score


def _geometric_median(evidence: Evidence, group: Group) -> np.ndarray:
    total = np.zeros(group.channels)
    for filters, owner in _made_by(evidence, group):
        square = (filters**2).sum(axis=1)
        distance = np.sqrt(np.maximum(square[:, None] + square[None] - 2 * filters @ filters.T, 0))
        np.add.at(total, owner, distance.sum(axis=1))
    return total


def _read_by(evidence: Evidence, group: Group) -> Iterator[tuple[np.ndarray, np.ndarray, Moments]]:
    """For every consumer: position in the group of each input channel (−1 elsewhere), its weight by input channel as a
    matrix of shape (anything, channels), and its moments."""
    place = np.full(evidence.coupling.units, -1)
    place[group.units] = np.arange(group.channels)
    for consumer in evidence.coupling.consumers:
        moments = evidence.moments.get(moments_key(evidence.graph, consumer))
        if (place[consumer.ids] < 0).all() or moments is None or consumer.constant not in evidence.weights:
            continue
        weight = np.moveaxis(evidence.weights.read(consumer.constant), consumer.axis, -1)
        channels = len(moments.mean)
        run = len(consumer.ids) // channels  # features that one channel fills in a flattened picture
        by_channel = np.moveaxis(weight.reshape(-1, channels, run), 1, 2).reshape(-1, channels)
        yield place[consumer.ids[::run]], by_channel, moments


def _energy(evidence: Evidence, group: Group) -> np.ndarray:
    total = np.zeros(group.channels)
    for owner, weight, moments in _read_by(evidence, group):
        value = (weight**2).sum(axis=0) * np.diagonal(moments.gram)
        np.add.at(total, owner[owner >= 0], (value / max(value.sum(), 1e-30))[owner >= 0])
    return total


def _gram(evidence: Evidence, group: Group) -> np.ndarray:
    known = evidence.orders.get(group.name)
    if known is not None:
        return known
    return elimination((Reader.of(*found) for found in _read_by(evidence, group)), group.channels)


def _random(evidence: Evidence, group: Group) -> np.ndarray:
    return evidence.rng.random(group.channels)


for _criterion in (
    Criterion(
        name="l2",
        title="L2 norm",
        score=_norm(2),
        description="Removes the filters with the smallest weights (sum of squares).",
        reference="Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017",
    ),
    Criterion(
        name="l1",
        title="L1 norm",
        score=_norm(1),
        description="Removes the filters with the smallest weights (sum of magnitudes).",
        reference="Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017",
    ),
    Criterion(
        name="geometric-median",
        title="Geometric median",
        score=_geometric_median,
        description="Removes the filters that are most like the others, so that the others can stand in for them.",
        reference="He et al., Filter Pruning via Geometric Median, CVPR 2019",
    ),
    Criterion(
        name="energy",
        title="Activation energy",
        score=_energy,
        needs_samples=True,
        description="Removes the channels whose signal contributes least to the next layers on real samples.",
        reference="Luo et al., ThiNet, ICCV 2017; Sun et al., Wanda, ICLR 2024",
    ),
    Criterion(
        name="gram",
        title="What cannot be rebuilt (Gram)",
        score=_gram,
        needs_samples=True,
        description="Removes one by one the channels that the remaining ones can best rebuild on real samples.",
        reference="Frantar and Alistarh, Optimal Brain Compression, NeurIPS 2022; Meng et al., OSSCAR, ICML 2024",
    ),
    Criterion(
        name=BEST,
        title="Best on your samples",
        score=_gram,
        needs_samples=True,
        description="Tries several criteria, each with its re-fit, and keeps the one whose answers stay nearest.",
        reference="measured on calibration samples that took no part in the re-fit",
    ),
    Criterion(
        name="random",
        title="Random",
        score=_random,
        description="Removes channels by lot: the control that every other criterion must beat.",
        reference="control arm",
    ),
):
    CRITERIA.add(_criterion.name, _criterion)
