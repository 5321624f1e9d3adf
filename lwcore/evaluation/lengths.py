"""`by_length`: what a model that reads texts costs at several lengths, beside the model it was made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lwcore import runtime
from lwcore.analysis.cost import macs
from lwcore.answers import example
from lwcore.errors import EvaluationError, ModelError
from lwcore.graph import SEQUENCE, Graph
from lwcore.model import Model
from lwcore.progress import Progress, silent
from lwcore.sources.observe import observe
from lwcore.timing import take_turns

LENGTHS = (32, 128, 256)  # tokens
_SECONDS = 1.5  # for each length


@dataclass(frozen=True, kw_only=True)
class AtLength:
    """One text of so many tokens: multiply–accumulates, and milliseconds (median, 10th and 90th percentile).

    Attributes:
        reference_macs, reference_ms: of the model it was made from; None without one.
    """

    length: int
    macs: int
    latency_ms: float
    low_ms: float
    high_ms: float
    reference_macs: int | None = None
    reference_ms: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)


def is_elastic(model: Model) -> bool:
    """Whether a model takes texts of any length."""
    return any(SEQUENCE in axes.values() for name, axes in _free(model).items() if name in Graph.view(model).inputs)


def by_length(
    model: Model, against: Model | None = None, lengths: Sequence[int] = LENGTHS, progress: Progress = silent
) -> tuple[AtLength, ...]:
    """Count and time one text of each length; lengths beyond the model's positions are left out.

    Raises:
        EvaluationError: the model takes one length only.
    """
    if not is_elastic(model):
        raise EvaluationError(
            "Expected a model that takes texts of any length, found one that is built for one length."
        )
    models = [model] if against is None else [model, against]
    runners = [runtime.session(m.data) for m in models]
    found = []
    for done, length in enumerate(lengths):
        try:
            graphs = [_at(m, length) for m in models]
        except ModelError:
            continue  # longer than its table of positions
        runs = [_run(runner, graph) for runner, graph in zip(runners, graphs, strict=True)]
        times = take_turns(runs, _SECONDS)
        costs = [sum(macs(node, graph.shapes) for node in graph.nodes) for graph in graphs]
        found.append(
            AtLength(
                length=length,
                macs=costs[0],
                latency_ms=times[0].median_ms,
                low_ms=times[0].low_ms,
                high_ms=times[0].high_ms,
                reference_macs=costs[1] if against else None,
                reference_ms=times[1].median_ms if against else None,
            )
        )
        progress((done + 1) / len(lengths), f"Timing texts of {length} tokens")
    return tuple(found)


def _free(model: Model) -> Mapping[str, Mapping[int, str]]:
    return Graph.view(model).free


def _at(model: Model, length: int) -> Graph:
    """The graph with every shape as it is at that length."""
    proto = Graph.view(model).proto()
    del proto.graph.value_info[:]
    for info in proto.graph.input:
        for dim in info.type.tensor_type.shape.dim:
            if str(dim.dim_param).partition("=")[0] == SEQUENCE:
                dim.dim_param = f"{SEQUENCE}={length}"
    graph = Graph(proto)
    observe(graph)
    return graph


def _run(runner: Any, graph: Graph) -> Callable[[], object]:
    batch = {n: np.ones_like(a) if "mask" in n else a for n, a in example(graph).items()}
    return lambda: runtime.run(runner, batch)
