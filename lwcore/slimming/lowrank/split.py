"""The low-rank step: which ranks to take, and the split graph, re-fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from lwcore.analysis.cost import constant_bytes, macs, values
from lwcore.answers import example
from lwcore.errors import SlimError
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.progress import Progress, part, silent
from lwcore.recipe import Budget, LowRank
from lwcore.runtime import run, session
from lwcore.samples import SampleSet
from lwcore.slimming.blocks import changed
from lwcore.slimming.budget.knapsack import Knapsack
from lwcore.slimming.lowrank.spectra import (
    Layers,
    Option,
    Spectra,
    all_rounds,
    measure_layers,
    quick_spectra,
    splittable,
    statistics,
    with_factors,
)
from lwcore.slimming.refit.calibration import draw
from lwcore.slimming.refit.judging import nearer
from lwcore.slimming.refit.sweep import refit
from lwcore.timing import take_turns

_SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.45, 0.4, 0.35, 0.3)  # of the MACs, tried in turn for a budget in time
_SECONDS = 1.0  # for timing each


def choose(graph: Graph, step: LowRank, spectra: Spectra) -> dict[str, Option]:
    """Layers to split, and how.

    Raises:
        SlimError: the budget cannot be met.
    """
    if step.budget is not None:
        timed = step.budget.of == "latency"
        return _within_time(graph, step.budget, spectra) if timed else _within(graph, step.budget, spectra)
    found = {}
    for name, options in spectra.layers.items():
        enough = [option for option in options if option.kept >= step.energy]
        if enough:
            found[name] = max(enough, key=lambda o: (o.macs, o.kept))
    return found


def _within(graph: Graph, budget: Budget, spectra: Spectra) -> dict[str, Option]:
    total, found = _total(graph, budget), dict[str, Option]()
    sizes = {node.name: _item(graph, node) for node in graph.nodes} if budget.of == "bytes" else {}
    choices = {name: _frontier(name, spectra, budget, sizes.get(name, 1)) for name in spectra.layers}
    choices = {name: stops for name, stops in choices.items() if len(stops) > 1}
    if not choices:
        raise SlimError("Low rank: expected layers that two thinner ones can stand for, found none in this model.")
    saved = [np.array([[stop.saved] for stop in stops]) for stops in choices.values()]
    harms = [np.array([stop.harm for stop in stops]) for stops in choices.values()]
    places = Knapsack(saved, harms, lambda removed: total - removed[..., 0], budget.keep * total).solve()
    if places is None:
        least = (total - sum(int(each.max()) for each in saved)) / max(total, 1)
        raise SlimError(
            f"budget.keep: expected a share that can be reached, found {budget.keep:g}; with every layer at its lowest "
            f"rank, {least:.2f} of the {budget.of} are left."
        )
    for (name, stops), place in zip(choices.items(), places, strict=True):
        option = stops[place].option
        if option is not None:
            found[name] = option
    return found


def _within_time(graph: Graph, budget: Budget, spectra: Spectra) -> dict[str, Option]:
    """The largest of a few budgets in MACs whose measured time, with factors of zeros, is within the share.

    Splitting a layer saves less time than MACs: two operators start instead of one, and the numbers between them are
    written and read. So nothing but a clock can tell.
    """
    least = np.inf
    for share in _SHARES:
        try:
            found = _within(graph, Budget(keep=share), spectra)
        except SlimError:
            break
        time = share_of_time(graph, with_factors(graph, found, None))
        if time <= budget.keep:
            return found
        least = min(least, time)
    measured = f"{least:.2f} is the best that was measured" if np.isfinite(least) else "no layer saves anything"
    raise SlimError(
        f"budget.keep: expected a share of the time that splitting layers can reach, found {budget.keep:g}; {measured}."
    )


@dataclass(frozen=True)
class _Stop:
    """One thing to do with a layer: what it saves of the budget and what it costs the network."""

    saved: int
    harm: float
    option: Option | None


def _frontier(name: str, spectra: Spectra, budget: Budget, size: int) -> list[_Stop]:
    """Leaving the layer alone, and the splits that no other beats, the smallest saving first."""
    stops = [
        _Stop(o.macs if budget.of == "macs" else o.params * size, spectra.harm(name, o), o)
        for o in spectra.layers[name]
    ]
    best, found = np.inf, list[_Stop]()
    for stop in sorted(stops, key=lambda s: (-s.saved, s.harm)):
        if stop.saved > 0 and stop.harm < best:
            best = stop.harm
            found.append(stop)
    return [_Stop(0, 0.0, None), *found[::-1]]


def _item(graph: Graph, node: NodeProto) -> int:
    """Bytes of one number of a node's widest constant."""
    return max((graph.constants[name].itemsize for name in node.input if name in graph.constants), default=1)


def _total(graph: Graph, budget: Budget) -> int:
    if budget.of == "macs":
        return sum(macs(node, graph.shapes) for node in graph.nodes)
    if budget.of == "params":
        return sum(values(graph).values())
    return sum(constant_bytes(graph, name) for name in graph.constants)


def share_of_time(before: Graph, after: Graph) -> float:
    """Measured time of one run of a graph as a share of another's."""
    batch = example(before)
    first, second = (session(graph.serialize()) for graph in (before, after))
    times = take_turns([lambda: run(first, batch), lambda: run(second, batch)], _SECONDS)
    return times[1].median_ms / times[0].median_ms


def split_layers(
    model: Model,
    step: LowRank,
    samples: SampleSet | None,
    layers: Layers | None = None,
    progress: Progress = silent,
) -> tuple[Graph, list[str]]:
    """The graph with layers split and what follows re-fitted, and notes.

    Args:
        samples: calibration samples; without them ranks are read off the weights alone.
        layers: as `measure_layers` gave them for this model and samples; measured here when None.

    Raises:
        SlimError: the weights are stored as integers, or a budget cannot be met.
    """
    dense = Graph.view(model)
    if not splittable(dense) and any("Dequantize" in n.op_type or "Integer" in n.op_type for n in dense.nodes):
        raise SlimError("Low rank: expected weights stored as floats, found integers; put this step before precision.")
    if samples is None:
        chosen = choose(dense, step, quick_spectra(dense, {}, 0))
        return with_factors(dense, chosen, {}), [_said(chosen), "No samples: ranks were read off the weights alone."]
    given = draw(model, samples)
    if layers is not None:
        known, measured = layers.known, layers.spectra
    elif step.budget:
        layers = measure_layers(model, samples, part(progress, 0.0, 0.5))
        known, measured = layers.known, layers.spectra
    else:  # one energy for all asks nobody's influence
        rounds = all_rounds(given)
        known = statistics(dense, rounds, part(progress, 0.0, 0.5))
        measured = quick_spectra(dense, known, rounds.samples)
    chosen = choose(dense, step, measured)
    if not chosen:
        return dense, [_said(chosen)]
    plain = with_factors(dense, chosen, known)
    fitted = plain.copy()
    refit(dense, fitted, changed(dense, fitted), given.fit, part(progress, 0.5, 1.0))
    best, said = nearer(dense, fitted, plain, given.check)
    return best, [_said(chosen), *said]


def _said(chosen: Mapping[str, Option]) -> str:
    if not chosen:
        return "No layer was split: nowhere would two thinner layers keep enough and save multiply–accumulates."
    return f"Layers split in two: {len(chosen)}."
