"""Which channels stay: the criterion's choice, made on a model that was brought into the basis where least is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lwcore.analysis.coupling import Coupling, couple
from lwcore.analysis.statistics import Moments
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.samples import SampleSet
from lwcore.slimming.pruning.basis import Basis, directions, streams
from lwcore.slimming.pruning.criteria import CRITERIA, Evidence, scores
from lwcore.slimming.refit.compensate import gather_moments
from lwcore.slimming.rewrite import Keep

Orders = dict[str, np.ndarray]  # group → scores of its channels by "gram", which serve every amount


@dataclass(frozen=True)
class Choice:
    """What to cut from what.

    Attributes:
        dense: the original, perhaps with some streams in another basis; it computes the same.
        moments: of its consumers' inputs.
        keep: which channels stay.
        turns: tensor → how it was brought into another basis.
    """

    dense: Graph
    moments: Mapping[str, Moments]
    keep: Keep
    turns: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Dense:
    """A graph that computes what the original does, and the moments of its consumers' inputs."""

    graph: Graph
    moments: Mapping[str, Moments]

    def turned(self, bases: Sequence[Basis]) -> Dense:
        """The same with some streams in other bases."""
        graph, moments = self.graph.copy(), dict(self.moments)
        for basis in bases:
            basis.stream.change(graph, moments, basis.forward, basis.backward)
        return Dense(graph, moments)


def choose(
    model: Model,
    counts: Mapping[str, int],
    criterion: str,
    samples: SampleSet | None,
    rng: np.random.Generator,
    turn: bool,
) -> Choice:
    """Choose the channels that go.

    Args:
        counts: channels that each group loses.
        samples: for the statistics; None where neither criterion nor compensation reads any.
        turn: streams may be written in another basis (compensation is on).
    """
    known, bases, orders = Dense(Graph.view(model), {}), list[Basis](), Orders()
    if samples is not None:
        known = Dense(known.graph, gather_moments(model, samples))
        if turn and CRITERIA[criterion].needs_samples:
            bases = [basis for basis in gather_bases(model, samples) if counts[basis.stream.group.name]]
        if turn and criterion == "gram":
            orders = gather_orders(model, samples)
    seen = known if orders else known.turned(bases)
    keep = keep_best(couple(model), counts, Evidence(seen.graph, couple(model), seen.moments, rng, orders), criterion)
    mixed = [basis.mixed(keep) for basis in bases]
    dense = known.turned(mixed)
    turns = {name: matrix for basis in mixed for name, matrix in basis.stream.turns(basis.forward).items()}
    return Choice(dense.graph, dense.moments, keep, turns)


def keep_best(coupling: Coupling, counts: Mapping[str, int], evidence: Evidence, criterion: str) -> Keep:
    """A keep-mask that removes the lowest scores of each group; ties go by position."""
    keep = np.ones(coupling.units, dtype=bool)
    for group in coupling.groups:
        if counts[group.name] or criterion == "random":  # the lot is drawn for every group, so amounts share one order
            order = np.argsort(scores(criterion, evidence, group), kind="stable")
            keep[group.units[order[: counts[group.name]]]] = False
    return keep


def gather_orders(model: Model, samples: SampleSet) -> Orders:
    """The order in which every group's channels go by "gram", remembered for the last few pairs."""
    key = samples.key(model)
    if key not in _ORDERS:
        coupling, dense = couple(model), Dense(Graph.view(model), gather_moments(model, samples))
        dense = dense.turned(gather_bases(model, samples))
        evidence = Evidence(dense.graph, coupling, dense.moments, np.random.default_rng(0))
        keep_orders(model, samples, {group.name: scores("gram", evidence, group) for group in coupling.groups})
    return _ORDERS[key]


def gather_bases(model: Model, samples: SampleSet) -> Sequence[Basis]:
    """The principal directions of every stream, which serve every amount; remembered for the last few pairs."""
    key = samples.key(model)
    if key not in _BASES:
        while len(_BASES) >= 4:
            _BASES.pop(next(iter(_BASES)))
        graph, moments = Graph.view(model), gather_moments(model, samples)
        _BASES[key] = tuple(Basis(stream, *directions(stream, graph, moments)) for stream in streams(model))
    return _BASES[key]


def keep_orders(model: Model, samples: SampleSet, known: Orders) -> None:
    """Remember orders that were worked out before, perhaps by another process; the last few pairs are kept."""
    while len(_ORDERS) >= 4:
        _ORDERS.pop(next(iter(_ORDERS)))
    _ORDERS[samples.key(model)] = known


_ORDERS: dict[tuple[str, str, str], Orders] = {}
_BASES: dict[tuple[str, str, str], tuple[Basis, ...]] = {}
