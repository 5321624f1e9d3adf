"""Calibration inputs in two parts: what layers are fitted to, and what the fit is checked on; and how to compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lwcore.analysis.statistics import affordable
from lwcore.answers import feed, spans, spread_out, stacked
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.runtime import Feed, run, shared_session
from lwcore.samples import SampleSet

SAMPLES = 512  # for fitting; more changes the result less than another draw does
CHECK = 128  # for checking, beyond those
BATCH = 32  # activations of so many small pictures stay in the cache: a third less time than for 64


@dataclass(frozen=True)
class Draw:
    """Samples in batches, from where to where: those to fit to, and those to check on, read when they are asked for."""

    model: Model
    samples: SampleSet
    fitting: Sequence[tuple[int, int]]
    checking: Sequence[tuple[int, int]]

    @cached_property
    def fit(self) -> list[Feed]:
        """Inputs for fitting."""
        return [feed(self.model, self.samples, *span) for span in self.fitting]

    @cached_property
    def check(self) -> list[Feed]:
        """Inputs unseen by the fit (the same ones where there are too few samples)."""
        return [feed(self.model, self.samples, *span) for span in self.checking]


def draw(model: Model, samples: SampleSet, wanted: int = SAMPLES) -> Draw:
    """The first of the samples, up to a third of them held out."""
    graph = Graph.view(model)
    most = affordable(graph, min(wanted + min(CHECK, wanted // 2), len(samples)))
    share = max(3, 1 + wanted // max(1, min(CHECK, wanted // 2)))
    size = max(1, min(BATCH, most // (2 * share)))  # at least four to fit: the re-fit checks its ridge on some of them
    batches = spans(model, min(most, len(samples)), size)
    held = max(1, len(batches) // share)
    fitting, checking = (batches[:-held], batches[-held:]) if len(batches) > 1 else (batches, batches)
    return Draw(model, samples, fitting, checking)


def answers(graph: Graph, inputs: list[Feed], data: bytes | None = None) -> list[np.ndarray]:
    """Every output on inputs in batches, float64, one row a sample.

    Args:
        data: the graph's file where it is at hand, or that of another graph with the same outputs.
    """
    runner = shared_session(graph.serialize() if data is None else data)
    pieces = zip(*(spread_out(graph, run(runner, chunk)) for chunk in inputs), strict=True)
    return [stacked(rows).astype(np.float64) for rows in pieces]
