"""How like the original's the outputs of a model are that is no classifier: cosine similarity and relative error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from lwcore.answers import numeric
from lwcore.errors import EvaluationError
from lwcore.evaluation.result import OutputRow
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.similarity import Likeness, fitted, likeness, relative_error

_Z95 = 1.96
_WHOLE = frozenset({TensorProto.BOOL, TensorProto.INT64, TensorProto.INT32, TensorProto.INT8, TensorProto.UINT8})


def compared(model: Model, after: Sequence[np.ndarray], before: Sequence[np.ndarray]) -> dict[str, Any]:
    """Fields of an `Evaluation` that compare outputs as numbers.

    Args:
        model: whose outputs they are.
        after, before: one array (N, width) an output.

    Raises:
        EvaluationError: the two models have other outputs.
    """
    graph = Graph.view(model)
    names = numeric(graph)
    if len(after) != len(before) or len(after) != len(names):
        raise EvaluationError(
            f"Expected two models with the same outputs, found {len(before)} and {len(after)}. Compare a model with "
            "the one it was made from."
        )
    rows, alike = [], []
    for name, one, two in zip(names, after, before, strict=True):
        agreement, whole = _agreement(graph, name, one, two), graph.types[name] in _WHOLE
        same = agreement if whole and agreement is not None else None  # numbers of classes have no size to compare
        alike.append(likeness(one, two) if same is None else Likeness(value=same, error=0.0))
        rows.append(
            OutputRow(
                name=name,
                shape=graph.shape(name),
                similarity=alike[-1].value,
                error=relative_error(one, two) if same is None else 1 - same,
                agreement=agreement,
            )
        )
    mean = float(np.mean([each.value for each in alike]))
    spread = _Z95 * float(np.mean([each.error for each in alike]))  # outputs of one sample err together
    return {
        "outputs": tuple(rows),
        "similarity": mean,
        "similarity_low": max(-1.0, mean - spread),
        "similarity_high": min(1.0, mean + spread),
        "relative_error": float(np.sqrt(np.mean([row.error**2 for row in rows]))),
    }


def _agreement(graph: Graph, name: str, after: np.ndarray, before: np.ndarray) -> float | None:
    """Share of equal whole numbers, or of rows whose largest value lies at the same place; None elsewhere."""
    one, two = fitted(after, before)
    if graph.types[name] in _WHOLE:
        return float((one == two).mean())
    if len(graph.shape(name)) == 2 and one.shape[1] > 1:
        return float((one.argmax(axis=1) == two.argmax(axis=1)).mean())
    return None
