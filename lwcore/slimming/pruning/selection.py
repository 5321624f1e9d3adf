"""Which channels stay: the criterion's choice, made on a model that was brought into the basis where least is lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lwcore.analysis.coupling import Coupling, couple
from lwcore.analysis.statistics import Moments
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.samples import SampleSet
from lwcore.slimming.pruning.basis import directions, spread, streams
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
    dense, coupling = Graph.of(model), couple(model)
    moments = dict(gather_moments(model, samples)) if samples is not None else {}
    looks = CRITERIA[criterion].needs_samples
    turned = [s for s in streams(model) if counts[s.group.name]] if turn and looks else []
    bases = [directions(stream, dense, moments) for stream in turned]
    for stream, basis in zip(turned, bases, strict=True):
        stream.change(dense, moments, *basis)
    orders = gather_orders(model, samples) if criterion == "gram" and turn and samples is not None else {}
    keep = keep_best(coupling, counts, Evidence(dense, coupling, moments, rng, orders), criterion)
    turns = dict[str, np.ndarray]()
    for stream, basis in zip(turned, bases, strict=True):
        mixed = spread(stream, keep)
        stream.change(dense, moments, *mixed)
        turns |= stream.turns(mixed[0] @ basis[0])
    return Choice(dense, moments, keep, turns)


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
        dense, coupling, moments = Graph.of(model), couple(model), dict(gather_moments(model, samples))
        for stream in streams(model):
            stream.change(dense, moments, *directions(stream, dense, moments))
        evidence = Evidence(dense, coupling, moments, np.random.default_rng(0))
        keep_orders(model, samples, {group.name: scores("gram", evidence, group) for group in coupling.groups})
    return _ORDERS[key]


def keep_orders(model: Model, samples: SampleSet, known: Orders) -> None:
    """Remember orders that were worked out before, perhaps by another process; the last few pairs are kept."""
    while len(_ORDERS) >= 4:
        _ORDERS.pop(next(iter(_ORDERS)))
    _ORDERS[samples.key(model)] = known


_ORDERS: dict[tuple[str, str, str], Orders] = {}
