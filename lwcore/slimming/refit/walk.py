"""Run a graph piece by piece over calibration samples, holding only what the rest of it still reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lwcore.graph import Graph, reads
from lwcore.runtime import Feed, run, session

Chunks = list[np.ndarray]  # a tensor's values, a batch at a time


class Walk:
    """One run through a graph that stops wherever it is asked to.

    A constant may be changed as long as the operators that read it have not run.
    """

    def __init__(self, graph: Graph, inputs: Sequence[Feed]) -> None:
        self._graph = graph
        self._live: dict[str, Chunks] = {name: [batch[name] for batch in inputs] for name in graph.inputs}
        self._batches = len(inputs)
        self._waiting = dict.fromkeys(range(len(graph.nodes)))
        self._made_by = graph.producers()
        self._reads = [tuple(reads(node)) for node in graph.nodes]

    def reach(self, names: Sequence[str], keep: Sequence[str] = ()) -> list[Chunks]:
        """Values of some tensors; only the operators that they need are run.

        Args:
            keep: tensors that a later call asks for, though no operator that waits reads them.
        """
        pieces = list(self.visit(names, keep))
        return [[piece[name] for piece in pieces] for name in names]

    def visit(self, names: Sequence[str], keep: Sequence[str] = ()) -> Iterator[Feed]:
        """The same, a batch at a time: what is not kept for later is held no longer than its batch.

        To be read to its end.
        """
        part = self._needed(names)
        for index in part:
            del self._waiting[index]
        nodes, live = self._graph.nodes, self._live
        later = {name for index in self._waiting for name in self._reads[index]} | {*keep}
        made = [name for index in part for name in nodes[index].output if name in later or name in names]
        here = {name for index in part for name in self._reads[index]}
        fed = [name for name in live if name in here]
        runner = session(self._graph.subgraph(part, fed, made)) if made else None
        self._live = {name: chunks for name, chunks in live.items() if name in later}
        self._live |= {name: [] for name in made if name in later}
        for place in range(self._batches):
            values = {name: chunks[place] for name, chunks in live.items()}
            if runner:
                found = run(runner, {name: values[name] for name in fed}, made)
                values |= zip(made, found, strict=True)
            for name in made:
                if name in later:
                    self._live[name].append(values[name])
            yield {name: values[name] for name in names}

    def _needed(self, names: Sequence[str]) -> list[int]:
        """Operators that wait and that these tensors depend on, in the order of the graph."""
        found, stack = set[int](), list(names)
        while stack:
            index = self._made_by.get(stack.pop(), -1)
            if index in self._waiting and index not in found:
                found.add(index)
                stack += self._reads[index]
        return sorted(found)
