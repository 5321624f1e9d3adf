"""Whole attention heads: find them, drop those that add least, and re-fit what reads the others.

A head of 64 numbers that goes whole leaves matrices of usual shapes and one attention map less to compute, where
thinner heads (`Channels`) leave as many maps. Source: Michel et al. (NeurIPS 2019, arXiv 1905.10650).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lwcore.analysis.coupling import Coupling, couple_heads
from lwcore.analysis.labels import Consumer
from lwcore.analysis.statistics import Moments, moments, rows
from lwcore.errors import SlimError
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.progress import Progress, part, silent
from lwcore.recipe import Heads
from lwcore.samples import SampleSet
from lwcore.slimming.refit.calibration import draw
from lwcore.slimming.refit.compensate import Cut, sequential
from lwcore.slimming.refit.judging import nearer
from lwcore.slimming.rewrite import Keep, cut


@dataclass(frozen=True, kw_only=True)
class Attention:
    """The heads of one attention layer.

    Attributes:
        name: of the operator that makes its weights (the softmax).
        units: one unit a head, in the coupling of whole heads.
        reader: the linear layer that puts the heads' results together.
    """

    name: str
    units: np.ndarray
    reader: Consumer


def attentions(model: Model) -> tuple[Attention, ...]:
    """The attention layers whose heads can go whole, in the order of the graph."""
    graph, coupling = Graph.view(model), couple_heads(model)
    found = []
    for node in graph.nodes:
        if node.op_type != "Softmax":
            continue
        for ids in coupling.tensors.get(node.output[0], {}).values():
            units = np.unique(ids)
            reader = next((c for c in coupling.consumers if np.isin(units, c.ids).all()), None)
            if units[0] and len(units) > 1 and len(units) == len(ids) and reader is not None:
                found.append(Attention(name=node.name, units=ids, reader=reader))
    return tuple(found)


def count_of(model: Model, step: Heads) -> int:
    """How many heads the amount stands for; every attention layer keeps one."""
    found = attentions(model)
    total = sum(len(a.units) for a in found)
    return min(int(total * step.amount + 0.5 - 1e-9), total - len(found))


def drop_heads(
    model: Model, step: Heads, samples: SampleSet | None, progress: Progress = silent
) -> tuple[Graph, list[str]]:
    """The graph without the heads that add least to what their layer writes, what is left re-fitted, and notes.

    Raises:
        SlimError: there are no calibration samples.
    """
    dense = Graph.view(model)
    if not step.amount:
        return dense, []
    if samples is None:
        raise SlimError("Heads are chosen by what they add on calibration samples; give some.")
    found, count = attentions(model), count_of(model, step)
    if not count:
        return dense, [] if found else ["No heads could be dropped: this model has no attention layer with several."]
    given = draw(model, samples)
    progress(0.1, "weighing heads")
    measured = {a.name: share for a, share in zip(found, _shares(dense, found, given.fit), strict=True)}
    gone = _least(found, measured, count)
    coupling = couple_heads(model)
    keep = _without(coupling, gone)
    plain = cut(dense, coupling, keep)
    listed = ", ".join(f"{len(units)} of {name}" for name, units in gone.items() if len(units))
    notes = [f"Attention heads dropped: {listed}."]
    both = Cut(dense, plain.copy(), coupling, keep)
    sequential(both, given.fit, part(progress, 0.2, 0.95))
    best, said = nearer(dense, both.slim, plain, given.check)
    return best, [*notes, *said]


def _without(coupling: Coupling, gone: Mapping[str, np.ndarray]) -> Keep:
    """What is kept when these units go."""
    keep = np.ones(coupling.units, dtype=bool)
    for units in gone.values():
        keep[units] = False
    return keep


def any_heads(model: Model, step: Heads) -> Graph:
    """The structure that the step leaves: heads of one layer cost the same, so any of them will do for a price."""
    found = attentions(model)
    equal = {a.name: np.arange(len(a.units), dtype=float) + 1 for a in found}
    coupling = couple_heads(model)
    return cut(Graph.view(model), coupling, _without(coupling, _least(found, equal, count_of(model, step))))


def _shares(graph: Graph, found: tuple[Attention, ...], inputs: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
    """What each head adds to the energy of its layer's result: shares, one a head."""
    last = {a.name: len(graph.shape(a.reader.tensor)) - 1 for a in found}
    wanted = {a.name: (a.reader.tensor, lambda v, axis=last[a.name]: rows(v, axis)) for a in found}
    measured = moments(graph, inputs, wanted)
    return [_energies(graph, a, measured[a.name]) for a in found]


def _energies(graph: Graph, attention: Attention, found: Moments) -> np.ndarray:
    weight = np.asarray(graph.constants[attention.reader.constant], np.float64)
    matrix = weight if attention.reader.axis == 0 else weight.T
    energies = []
    for unit in attention.units:
        mine = np.flatnonzero(attention.reader.ids == unit)
        energies.append(float(np.sum(matrix[mine] * (found.gram[np.ix_(mine, mine)] @ matrix[mine]))))
    return np.asarray(energies) / max(sum(energies), 1e-30)


def _least(found: tuple[Attention, ...], shares: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """The heads that add least over the whole model, never the last of a layer: its name → units."""
    ranked = sorted((share, a, h) for a, layer in enumerate(found) for h, share in enumerate(shares[layer.name]))
    gone: dict[str, list[int]] = {layer.name: [] for layer in found}
    left = count
    for _, a, head in ranked:
        layer = found[a]
        if left and len(gone[layer.name]) < len(layer.units) - 1:
            gone[layer.name].append(int(layer.units[head]))
            left -= 1
    return {name: np.array(units, dtype=np.int64) for name, units in gone.items()}
