"""Spectra: what every layer that can be split keeps at every rank, measured on calibration samples.

A low-rank step's ranks and its exact price follow from them, whatever energy or budget is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from lwcore.analysis.cost import macs
from lwcore.answers import feed, fixed_batch
from lwcore.errors import SlimError
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.progress import Progress, part, silent
from lwcore.runtime import Feed
from lwcore.samples import SampleSet
from lwcore.similarity import change
from lwcore.slimming.lowrank.factors import Factors, Form, factorise, forms, from_outputs, kept, ranks, shares, split
from lwcore.slimming.refit.calibration import SAMPLES, Draw, answers, draw
from lwcore.slimming.refit.linear import Linear, linear_layers
from lwcore.slimming.refit.walk import Chunks, Walk
from lwcore.slimming.weights import Weights

WIDE = 1152  # inputs and kernel positions up to which the covariance of whole patches is affordable
_LEAST = 0.05  # influence that every layer has at least: it is measured on few samples
_NEAR = 0.95  # what a layer is to keep while its influence is measured
_INFLUENCE = 48  # samples for that, at most
_BUDGET = 5e11  # multiply–accumulates for that
_LOST = 1e-4  # error that a budget counts at least, so that among harmless splits the cheaper one wins


@dataclass(frozen=True)
class Option:
    """One way to split a layer.

    Attributes:
        form: kernel axes of the first factor.
        rank: channels between the factors.
        kept: share of the variance of the layer's outputs that stays.
        macs, params: saved.
    """

    form: Form
    rank: int
    kept: float
    macs: int
    params: int


@dataclass(frozen=True, kw_only=True)
class Spectra:
    """What every layer that can be split keeps at every rank; by the name of its operator.

    Attributes:
        influence: by how much the network's answer changes for what one layer loses, relative to the mean layer.
        samples: calibration samples that it was measured on, 0 when read off the weights alone.
    """

    layers: Mapping[str, tuple[Option, ...]]
    samples: int
    influence: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        rows = {n: [[list(o.form), o.rank, o.kept, o.macs, o.params] for o in v] for n, v in self.layers.items()}
        return {"layers": rows, "samples": self.samples, "influence": dict(self.influence)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Spectra:
        """Read what `to_json` wrote."""
        layers = {n: tuple(Option(tuple(row[0]), *row[1:]) for row in rows) for n, rows in data["layers"].items()}
        return cls(layers=layers, samples=int(data["samples"]), influence=dict(data["influence"]))

    def harm(self, name: str, option: Option) -> float:
        """What a split costs the network."""
        return (1 - option.kept) * (self.influence.get(name, 1.0) + _LEAST) + _LOST


@dataclass(frozen=True)
class Statistic:
    """What is known of one layer's vectors: the covariance of what it reads, or only of what it gives."""

    read: np.ndarray | None = None
    given: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Layers:
    """All that splitting the layers of one model rests on, whatever the energy or budget; from calibration samples.

    Attributes:
        known: statistics by the layer's result; the factors follow from them.
        spectra: what every layer keeps at every rank.
    """

    known: Mapping[str, Statistic]
    spectra: Spectra


@dataclass(frozen=True)
class Rounds:
    """Samples for `statistics`, as many at a time as memory holds: a covariance needs none of an earlier round.

    Attributes:
        samples: in all rounds together.
        reads: each reads the batches of one round, when its turn comes.
    """

    samples: int
    reads: Sequence[Callable[[], Sequence[Feed]]]


def splittable(graph: Graph) -> list[Linear]:
    """Layers with floating-point weights of which two thinner ones could take the place."""
    return [
        layer
        for layer in linear_layers(graph)
        if layer.weight in graph.constants and any(shares(graph, layer, form).most > 0 for form in forms(layer))
    ]


def measure_spectra(model: Model, samples: SampleSet | None, progress: Progress = silent) -> Spectra:
    """What every layer keeps at every rank, on calibration samples, or by its weights alone when there are none."""
    graph = Graph.view(model)
    if samples is None:
        return quick_spectra(graph, {}, 0)
    return measure_layers(model, samples, progress).spectra


def measure_layers(model: Model, samples: SampleSet, progress: Progress = silent) -> Layers:
    """Statistics of every layer that can be split, what it keeps at every rank and what it matters."""
    graph, given = Graph.view(model), draw(model, samples)
    rounds = all_rounds(given)
    with threadpool_limits(limits=1, user_api="blas"):  # the same numbers wherever they are asked for; see `apply`
        known = statistics(graph, rounds, part(progress, 0.0, 0.6))
        spectra = quick_spectra(graph, known, rounds.samples)
        influence = _influence(graph, spectra, known, given.check, part(progress, 0.6, 1.0))
    return Layers(known=known, spectra=replace(spectra, influence=influence))


def _influence(
    graph: Graph, spectra: Spectra, known: Mapping[str, Statistic], inputs: list[Feed], progress: Progress
) -> dict[str, float]:
    """Split each layer alone and see how far the answer moves; nothing where that would take too long."""
    once = sum(macs(node, graph.shapes) for node in graph.nodes) * len(spectra.layers)
    most = int(min(_INFLUENCE, _BUDGET // max(once, 1)))
    if most < 2:
        return {}
    few = inputs[:1] if fixed_batch(graph) else [{name: array[:most] for name, array in inputs[0].items()}]
    truth, found = answers(graph, few), dict[str, float]()
    for done, (name, options) in enumerate(spectra.layers.items()):
        option = min(options, key=lambda o: abs(o.kept - _NEAR))
        moved = change(answers(with_factors(graph, {name: option}, known), few), truth)
        found[name] = moved / (1 - option.kept + 1e-6)
        progress((done + 1) / len(spectra.layers), "measuring what each layer matters")
    mean = sum(found.values()) / max(len(found), 1)
    return {name: value / mean for name, value in found.items()} if mean > 0 else {}


def quick_spectra(graph: Graph, known: Mapping[str, Statistic], samples: int) -> Spectra:
    """What each layer keeps, without its influence on the answer; without statistics by the weights alone."""
    weights = Weights(graph)
    found = {}
    for layer in splittable(graph):
        options = [
            option for form in forms(layer) for option in _options(graph, weights, layer, form, known.get(layer.result))
        ]
        found[layer.node.name] = tuple(options)
    return Spectra(layers={name: options for name, options in found.items() if options}, samples=samples)


def _options(graph: Graph, weights: Weights, layer: Linear, form: Form, known: Statistic | None) -> list[Option]:
    each = shares(graph, layer, form)
    factors = _factors(weights, layer, form, known)
    at = [rank for rank in ranks(each.most) if factors is not None and rank <= len(factors.first)]
    if factors is None or not at:
        return []
    weight = layer.matrix(weights.read(layer.weight))[0]
    stays = kept(layer, form, factors, weight, known.read if known else None, at)
    whole = layer.outputs * layer.width
    return [
        Option(form, r, share, whole * layer.total - r * each.macs, whole - r * each.params)
        for r, share in zip(at, stays, strict=True)
    ]


def _factors(weights: Weights, layer: Linear, form: Form, known: Statistic | None) -> Factors | None:
    """Both factors; None for a form that the statistics at hand do not tell about."""
    weight = layer.matrix(weights.read(layer.weight))[0]
    if known is None or known.read is not None:
        return factorise(layer, form, weight, known.read if known else None)
    if known.given is None or len(form) < len(layer.kernel):
        return None
    return from_outputs(weight, known.given)


def statistics(graph: Graph, rounds: Rounds, progress: Progress) -> dict[str, Statistic]:
    """One pass over the samples, layer after layer."""
    layers = splittable(graph)
    reads = {layer.result: layer.width <= max(WIDE, layer.outputs) for layer in layers}
    wanted = [layer.data if reads[layer.result] else layer.result for layer in layers]
    sums = [_Sums(layer, reads[layer.result], layer.step(rounds.samples)) for layer in layers]
    for turn, read in enumerate(rounds.reads):
        walk = Walk(graph, list(read()))
        for done, each in enumerate(sums):
            (values,) = walk.reach([wanted[done]], wanted[done:])
            each.add(values)
            progress((turn + (done + 1) / len(sums)) / len(rounds.reads), "measuring what each rank keeps")
    found = {each.layer.result: each.covariance() for each in sums}
    return {name: Statistic(read=array) if reads[name] else Statistic(given=array) for name, array in found.items()}


def all_rounds(given: Draw) -> Rounds:
    """The samples to fit to, then those behind the ones held out, as many at a time."""
    size, fitted = given.fitting[0][1] - given.fitting[0][0], given.fitting[-1][1]
    behind = max(fitted, given.checking[-1][1])
    last = min(len(given.samples), behind + SAMPLES - fitted)
    spans = [(start, start + size) for start in range(behind, last - size + 1, size)]
    some, total = len(given.fitting), sum(stop - start for start, stop in (*given.fitting, *spans))
    further = [partial(_read, given, spans[at : at + some]) for at in range(0, len(spans), some)]
    return Rounds(total, [lambda: given.fit, *further])


def _read(given: Draw, spans: Sequence[tuple[int, int]]) -> list[Feed]:
    return [feed(given.model, given.samples, *span) for span in spans]


class _Sums:
    """Sums over a layer's vectors, a few samples at a time."""

    def __init__(self, layer: Linear, own: bool, step: int) -> None:
        size = layer.width if own else layer.outputs
        self.layer, self._vectors, self._step = layer, layer.vectors if own else layer.targets, step
        self._gram, self._mean = np.zeros((size, size)), np.zeros(size)
        self._total, self._squares, self._batches = 0, 0.0, 0

    def add(self, values: Chunks) -> None:
        """Batches of what the layer reads, or of what it gives."""
        for chunk in values:
            columns = self._vectors(chunk, self._step)[0]
            part = (columns @ columns.T).astype(np.float64)
            self._gram += part
            self._mean += columns.sum(axis=1, dtype=np.float64)
            self._total += columns.shape[1]
            self._squares += float((part**2).sum()) / columns.shape[1]
        self._batches += len(values)

    def covariance(self) -> np.ndarray:
        """Of the vectors, shrunk towards equal variances by as much as it differs from batch to batch.

        A few pictures span few directions, and would seem to need no others. How unsure the covariance is, is read off
        whole batches, because the positions of one picture are alike. Source: Ledoit and Wolf (J. Multivar. Anal.,
        2004).
        """
        gram, mean, size = self._gram / self._total, self._mean / self._total, len(self._mean)
        unsure = (self._squares / self._total - float((gram**2).sum())) / max(1, self._batches - 1)
        covariance = gram - np.outer(mean, mean)
        even = np.eye(size) * np.trace(covariance) / size
        apart = float(((covariance - even) ** 2).sum())
        share = min(1.0, max(0.0, unsure) / apart) if apart > 0 else 0.0
        return np.asarray((1 - share) * covariance + share * even)


def with_factors(graph: Graph, chosen: Mapping[str, Option], known: Mapping[str, Statistic] | None) -> Graph:
    """A copy with layers split.

    Args:
        known: statistics by result; {} to go by the weights alone, None for factors of zeros (a price needs no more).
    """
    slim, weights = graph.copy(), Weights(graph)
    pairs = {}
    for layer in splittable(graph):
        option = chosen.get(layer.node.name)
        if option is None:
            continue
        if known is None:
            taps = [layer.kernel[axis] for axis in option.form]
            width = layer.inputs * int(np.prod(taps, dtype=int))
            first = np.zeros((option.rank, width))
            second = np.zeros((layer.outputs * layer.width // width, option.rank))
        else:
            factors = _factors(weights, layer, option.form, known.get(layer.result))
            if factors is None:
                raise SlimError(f"Layer {layer.node.name!r}: its spectrum was measured with other settings.")
            first, second = factors.first[: option.rank], factors.second[:, : option.rank]
        pairs[layer.index] = split(slim, layer, option.form, first, second)
    slim.nodes = [new for index, node in enumerate(graph.nodes) for new in pairs.get(index, [node])]
    slim.drop_unused()
    return slim
