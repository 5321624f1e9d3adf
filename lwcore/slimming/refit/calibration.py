"""Calibration inputs in two parts: what layers are fitted to, and what the fit is checked on; and how to compare."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lwcore.analysis.statistics import affordable
from lwcore.answers import feeds, spread_out, stacked
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.runtime import Feed, run, shared_session
from lwcore.samples import SampleSet

SAMPLES = 512  # for fitting; more changes the result less than another draw does
CHECK = 128  # for checking, beyond those
BATCH = 32  # activations of so many small pictures stay in the cache: a third less time than for 64


@dataclass(frozen=True)
class Draw:
    """Inputs in batches: `fit` for fitting, `check` unseen by it (the same ones where there are too few samples)."""

    fit: list[Feed]
    check: list[Feed]


def draw(model: Model, samples: SampleSet, wanted: int = SAMPLES) -> Draw:
    """The first of the samples, up to a third of them held out."""
    graph = Graph.view(model)
    most = affordable(graph, min(wanted + min(CHECK, wanted // 2), len(samples)))
    share = max(3, 1 + wanted // max(1, min(CHECK, wanted // 2)))
    size = max(1, min(BATCH, most // (2 * share)))  # at least four to fit: the re-fit checks its ridge on some of them
    batches = list(feeds(model, samples.take(most), size))
    held = max(1, len(batches) // share)
    return Draw(batches[:-held], batches[-held:]) if len(batches) > 1 else Draw(batches, batches)


def answers(graph: Graph, inputs: list[Feed]) -> list[np.ndarray]:
    """Every output on inputs in batches, float64, one row a sample."""
    runner = shared_session(graph.serialize())
    pieces = zip(*(spread_out(graph, run(runner, chunk)) for chunk in inputs), strict=True)
    return [stacked(rows).astype(np.float64) for rows in pieces]
