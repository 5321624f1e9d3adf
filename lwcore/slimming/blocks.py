"""Residual blocks: find them, drop them, and re-fit what comes after.

A residual block adds what it computes to its own input (the shortcut); it can go whole, because the sum then still has
its shape. Sources: Veit et al. (NeurIPS 2016: residual networks behave like ensembles of shallow ones), ShortGPT
(arXiv 2403.03853: the least changing layers go first).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto
from threadpoolctl import threadpool_limits

from lwcore.analysis.cost import macs
from lwcore.errors import SlimError
from lwcore.graph import Graph, reads, with_input
from lwcore.model import Model
from lwcore.progress import Progress, part, silent
from lwcore.recipe import Blocks
from lwcore.samples import SampleSet
from lwcore.similarity import change
from lwcore.slimming.refit.calibration import Draw, answers, draw
from lwcore.slimming.refit.judging import nearer
from lwcore.slimming.refit.linear import linear_layers
from lwcore.slimming.refit.sweep import refit

NEXT = 3  # layers in a row behind a dropped block that are re-fitted while blocks are compared
_SUMS = frozenset({"Add", "Sum"})
_ROWS = 3000  # vectors for that: the order of the blocks needs less than their weights
_MOST = 96  # samples for that
_BUDGET = 8e11  # multiply–accumulates that comparing the blocks of one model may take


@dataclass(frozen=True, kw_only=True)
class Block:
    """A residual block.

    Attributes:
        name: of the operator that adds it to the shortcut.
        shortcut: the block's input, which takes the place of its sum.
        total: the sum.
        macs: that go with the block, for batch 1.
        layers: names of its operators with multiply–accumulates.
    """

    name: str
    shortcut: str
    total: str
    macs: int
    layers: tuple[str, ...]


def blocks(model: Model) -> tuple[Block, ...]:
    """The residual blocks of a model that can be dropped, in the order of its graph."""
    wiring = _Wiring(Graph.view(model))
    found = (wiring.block(node) for node in wiring.graph.nodes if node.op_type in _SUMS)
    return tuple(block for block in found if block is not None)


class _Wiring:
    """Who makes and who reads each tensor of a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.made, self.readers = graph.producers(), graph.consumers()
        fed = set(graph.inputs)
        for node in graph.nodes:
            if not fed.isdisjoint(reads(node)):
                fed.update(node.output)
        self.fed = fed

    def block(self, node: NodeProto) -> Block | None:
        """The block that an operator adds to its shortcut, if it does."""
        if node.op_type not in _SUMS or len(node.input) != 2 or node.input[0] == node.input[1]:
            return None
        first, second = node.input
        for shortcut, branch in ((first, second), (second, first)):
            inside = self._branch(branch, shortcut)
            if inside and self.graph.shapes.get(shortcut) == self.graph.shapes.get(node.output[0]):
                return self._named(node, shortcut, inside)
        return None

    def _named(self, node: NodeProto, shortcut: str, inside: set[int]) -> Block | None:
        nodes, shapes = self.graph.nodes, self.graph.shapes
        costs = {nodes[i].name: cost for i in self._only_for(inside, node) if (cost := macs(nodes[i], shapes))}
        if not costs:
            return None
        return Block(
            name=node.name,
            shortcut=shortcut,
            total=node.output[0],
            macs=sum(costs.values()),
            layers=tuple(costs),
        )

    def _branch(self, branch: str, shortcut: str) -> set[int]:
        """Operators between the shortcut and the branch; empty where the branch also depends on something else."""
        start = self.made.get(shortcut, -1)
        inside, stack, reached = set[int](), [branch], False
        while stack:
            name = stack.pop()
            if name == shortcut:
                reached = True
            elif name in self.fed:
                index = self.made.get(name, -1)
                if index <= start:  # computed before the shortcut, so not from it
                    return set()
                if index not in inside:
                    inside.add(index)
                    stack += reads(self.graph.nodes[index])
        return inside if reached else set()

    def _only_for(self, inside: set[int], adder: NodeProto) -> list[int]:
        """Operators of the branch that nothing but the sum needs, in the order of the graph."""
        gone = {self.made[adder.output[0]]}
        for index in sorted(inside, reverse=True):
            outputs = [name for name in self.graph.nodes[index].output if name]
            if not any(name in self.graph.outputs or set(self.readers.get(name, ())) - gone for name in outputs):
                gone.add(index)
        return sorted(gone & inside)


def without(graph: Graph, names: Sequence[str]) -> Graph:
    """A copy without these blocks: whoever read a sum reads the shortcut; what nobody reads any more is gone."""
    slim = graph.copy()
    for name in names:
        adder = next((node for node in slim.nodes if node.name == name), None)
        block = _Wiring(slim).block(adder) if adder is not None else None
        if block is None:  # it was part of a larger block that went before it
            continue
        _bypass(slim, block)
        slim.drop_unused()
    return slim


def _bypass(slim: Graph, block: Block) -> None:
    bodies = [n for n in slim.nodes if block.total in set(reads(n)) - set(n.input)]
    if block.total in slim.outputs or bodies:  # names that cannot be changed: the sum stays, as a copy
        index = slim.producers()[block.total]
        twin = slim.nodes[index].__class__()
        twin.CopyFrom(slim.nodes[index])
        twin.op_type = "Identity"
        del twin.input[:]
        twin.input.append(block.shortcut)
        slim.nodes[index] = twin
        return
    for index, node in enumerate(slim.nodes):
        for position, name in enumerate(node.input):
            if name == block.total:
                node = with_input(node, position, block.shortcut)
        slim.nodes[index] = node


def drop(
    model: Model,
    step: Blocks,
    samples: SampleSet | None,
    order: Sequence[str] | None = None,
    progress: Progress = silent,
) -> tuple[Graph, list[str]]:
    """The graph without the chosen blocks, what is left re-fitted, and notes.

    Args:
        samples: calibration samples; None only when blocks are named.
        order: as `dropping_order` gave it for this model and samples; measured here when None.

    Raises:
        SlimError: a name is no block, or samples are needed and missing.
    """
    if step.amount and not step.names and samples is None:
        raise SlimError("Blocks are chosen by what they change on calibration samples; give some, or name the blocks.")
    if order is None and samples is not None and step.amount and not step.names:
        order = dropping_order(model, samples, count_of(model, step), part(progress, 0.0, 0.7))
        progress = part(progress, 0.7, 1.0)
    names = chosen(model, step, order)
    dense = Graph.view(model)
    if not names:
        none = step.amount and not blocks(model)
        return dense, ["Nothing could be dropped: this model has no residual block."] if none else []
    plain = without(dense, names)
    notes = [f"Dropped whole: {', '.join(names)}."]
    if samples is None:
        return plain, [*notes, "No samples: what the dropped blocks did is simply lost."]
    given, fitted = draw(model, samples), plain.copy()
    refit(dense, fitted, changed(dense, fitted), given.fit, progress)
    best, said = nearer(dense, fitted, plain, given.check)
    return best, [*notes, *said]


def changed(dense: Graph, slim: Graph) -> list[str]:
    """Results of the linear layers of `slim` that no longer read what the dense model has there."""
    old = {node.output[0]: node.SerializeToString() for node in dense.nodes}
    layers = {layer.result for layer in linear_layers(slim)}
    after, found = set[str](), list[str]()
    for node in slim.nodes:
        if old.get(node.output[0]) == node.SerializeToString() and after.isdisjoint(reads(node)):
            continue
        after.update(node.output)
        if node.output[0] in layers:
            found.append(node.output[0])
    return found


# -- which ones --------------------------------------------------------------------------------------------------------


def count_of(model: Model, step: Blocks) -> int:
    """How many blocks the amount stands for."""
    return int(len(blocks(model)) * step.amount + 0.5 - 1e-9)


def chosen(model: Model, step: Blocks, order: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the blocks that go, in the order of the graph; without a measured order the smallest amount is a guess.

    Raises:
        SlimError: a name is no block of this model.
    """
    known = [block.name for block in blocks(model)]
    for name in step.names:
        if name not in known:
            raise SlimError(
                f"names: expected residual blocks of this model ({', '.join(known) or 'it has none'}), found {name!r}."
            )
    if step.names:
        return tuple(name for name in known if name in step.names)
    first = set((order if order is not None else guessed(model))[: count_of(model, step)])
    return tuple(name for name in known if name in first)


def guessed(model: Model) -> list[str]:
    """An order without samples, for a price before anything is measured: blocks of middling size first."""
    found = blocks(model)
    middle = float(np.median([b.macs for b in found])) if found else 0.0
    return [b.name for b in sorted(found, key=lambda b: abs(b.macs - middle))]


def dropping_order(
    model: Model, samples: SampleSet, count: int | None = None, progress: Progress = silent
) -> tuple[str, ...]:
    """Blocks in the order in which they are dropped, the least missed first.

    Greedy: again and again the block without which, the next layers re-fitted, the outputs move least. A block's loss
    only grows while others go, nearly always, so only those that still look best are measured again.

    Args:
        count: how many to drop; nearly all when None. A smaller count gives the beginning of the same order.
    """
    dense, names = Graph.view(model), [block.name for block in blocks(model)]
    count = min(len(names), count if count is not None else round(0.95 * len(names)))
    if not count:
        return ()
    with threadpool_limits(limits=1, user_api="blas"):  # the same order wherever it is asked for; see `apply`
        return tuple(_ordered(dense, names, count, draw(model, samples, _affordable(dense, len(names))), progress))


def _ordered(dense: Graph, names: Sequence[str], count: int, given: Draw, progress: Progress) -> list[str]:
    truth = answers(dense, given.check)
    base, gone = dense, list[str]()
    queue = [(0.0, position, -1) for position in range(len(names))]
    while len(gone) < count:
        _, position, seen = heapq.heappop(queue)
        if seen == len(gone):
            gone.append(names[position])
            base = without(base, names[position : position + 1])
            refit(dense, base, changed(dense, base), given.fit, rows=_ROWS)
            progress(len(gone) / count, "comparing blocks")
            continue
        slim = without(base, names[position : position + 1])
        refit(dense, slim, changed(base, slim)[:NEXT], given.fit, rows=_ROWS)
        heapq.heappush(queue, (change(answers(slim, given.check), truth), position, len(gone)))
    return gone


def _affordable(graph: Graph, candidates: int) -> int:
    """Samples on which that many blocks can be compared about three times over."""
    once = sum(macs(node, graph.shapes) for node in graph.nodes)
    return int(min(_MOST, max(8, _BUDGET / max(1, 6 * candidates * once))))
