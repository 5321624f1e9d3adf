"""Compensation without training: re-fit every layer that lost inputs, in closed form, from unlabelled samples.

*One-shot* rebuilds each layer's dense inputs from the channels left, so the dense model's statistics serve every
amount. *Sequential* carries the activations of both models through the graph, so that each layer also corrects what
the layers before it got wrong. Sources: ThiNet (ICCV 2017), GRAIL (arXiv
2602.23795), OSSCAR (ICML 2024).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np

from lwcore.analysis.cost import cost
from lwcore.analysis.coupling import Coupling, couple
from lwcore.analysis.labels import Consumer
from lwcore.analysis.statistics import Moments, batch_size, moments
from lwcore.answers import feeds
from lwcore.graph import Graph, per_model, reads
from lwcore.model import Model
from lwcore.progress import Progress, silent
from lwcore.runtime import Feed, count
from lwcore.samples import SampleSet
from lwcore.slimming.refit.mixing import Reader, Rebuilt, channel_vectors, linear_readers, moments_key, whole
from lwcore.slimming.refit.sweep import Pair, Step, affordable, direct, sweep
from lwcore.slimming.refit.targets import Targets
from lwcore.slimming.rewrite import Keep

CALIBRATION = 512  # samples that statistics are taken from; more changes the result less than another draw does
WORK = 10**12  # multiply–accumulates that gathering statistics may take: some seconds
FEWEST = 64  # samples that statistics are taken from however large the model


@dataclass(frozen=True)
class Cut:
    """A dense graph, its slimmed copy (same nodes at the same indexes) and what lies between them.

    Attributes:
        origin, turns: as those of `Pair`.
    """

    dense: Graph
    slim: Graph
    coupling: Coupling
    keep: Keep
    origin: Graph | None = None
    turns: Mapping[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def pair(self) -> Pair:
        """Both graphs, and how dense tensors become slim ones."""
        return Pair(self.dense, self.slim, self.kept, origin=self.origin, turns=self.turns)

    def kept(self, name: str) -> dict[int, np.ndarray]:
        """Axis → which indexes of a dense tensor the slim one still has, where it lost some."""
        held = {axis: self.keep[classes] for axis, classes in self.coupling.tensors.get(name, {}).items()}
        return {axis: mask for axis, mask in held.items() if not mask.all()}

    def lost(self, consumer: Consumer) -> bool:
        """True when the consumer lost inputs."""
        return not bool(self.keep[consumer.ids].all())


@per_model(maxsize=24)
def readers(model: Model) -> tuple[Reader, ...]:
    """The model's linear readers of removable channels; remembered, for every removal asks for them."""
    return linear_readers(Graph.view(model), couple(model))


def one_shot(cut: Cut, all_readers: Sequence[Reader], known: Mapping[str, Moments]) -> None:
    """Re-fit every reader that lost inputs, in place, from the dense model's moments."""
    for reader in all_readers:
        if cut.lost(reader.consumer):
            reader.after(cut.keep).from_moments(cut.pair, known[reader.moments])


def sequential(
    cut: Cut,
    inputs: Sequence[Feed],
    progress: Progress = silent,
    known: Targets | None = None,
) -> None:
    """Re-fit every layer behind the first removed channel, in place and in topological order.

    Args:
        cut: the graphs; `cut.slim` is changed.
        inputs: calibration inputs in batches; every fourth checks the ridge.
        progress: told the share done after each layer.
        known: targets on the same inputs, gathered before.
    """
    lost = {c.node for c in cut.coupling.consumers if cut.lost(c)}
    reached = _reached(cut.slim, lost)
    wanted = [layer for layer in cut.pair.layers if layer.index in reached]
    at_once = [layer for layer in wanted if affordable(layer)]
    done = {layer.index for layer in at_once}
    left = {c.node for c in whole(cut.dense, cut.coupling)} & reached - done
    rest = [r for r in linear_readers(cut.dense, cut.coupling) if r.consumer.node in left] if left else []
    results = {layer.result for layer in wanted} | {cut.slim.nodes[r.consumer.node].output[0] for r in rest}
    samples = sum(map(count, inputs))
    rebuilt = [Rebuilt(cut.pair, reader.after(cut.keep), samples) for reader in rest]
    steps: list[Step] = [*direct(cut.pair, at_once, results, samples), *rebuilt]
    sweep(cut.pair, steps, inputs, progress, known)


def _reached(graph: Graph, first: set[int]) -> set[int]:
    """Nodes that compute something else than before: the first ones and whatever reads a changed tensor."""
    changed: set[str] = set()
    reached: set[int] = set()
    for index, node in enumerate(graph.nodes):
        if index in first or not changed.isdisjoint(reads(node)):
            reached.add(index)
            changed.update(node.output)
    return reached


def keep_moments(model: Model, samples: SampleSet, known: dict[str, Moments]) -> None:
    """Remember moments that were gathered before, perhaps by another process; the last few pairs are kept."""
    while len(_MOMENTS) >= 4:
        _MOMENTS.pop(next(iter(_MOMENTS)))
    _MOMENTS[samples.key(model)] = known


def gather_moments(model: Model, samples: SampleSet) -> dict[str, Moments]:
    """Moments of every consumer's input on the calibration samples, remembered for the last few pairs."""
    key = samples.key(model)
    if key not in _MOMENTS:
        graph = Graph.view(model)
        most = min(len(samples), CALIBRATION, max(FEWEST, WORK // max(cost(model).macs, 1)))
        read = {moments_key(graph, c): c for c in whole(graph, couple(model))}
        vectors = {key: (c.tensor, partial(channel_vectors, graph, c, samples=most)) for key, c in read.items()}
        size = batch_size(graph, {name for name, _ in vectors.values()})
        batches = feeds(model, samples.take(most), size)
        keep_moments(model, samples, moments(graph, batches, vectors))
    return _MOMENTS[key]


_MOMENTS: dict[tuple[str, str, str], dict[str, Moments]] = {}
