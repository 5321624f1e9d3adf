"""Weights as a palette: each layer's weights are replaced by few values, found by k-means.

The file stores float32 as before; what shrinks is the gzipped download, because few values repeat (Han, Mao and Dally,
"Deep Compression", ICLR 2016, whose linear spacing of the first centres is used here: it keeps large weights apart).
"""

from __future__ import annotations

import numpy as np

from lwcore.errors import SlimError
from lwcore.graph import Graph
from lwcore.model import Model

SWEEPS = 50  # k-means on a line settles long before
_WEIGHTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def to_palette(model: Model, bits: int) -> tuple[bytes, tuple[str, ...]]:
    """Replace the weights of each layer by at most 2^bits values; zeros stay zero.

    Raises:
        SlimError: the model has no float32 weight with more values than that.
    """
    graph, done = Graph.of(model), 0
    names = {node.input[1] for node in graph.nodes if node.op_type in _WEIGHTS and len(node.input) > 1}
    for name in sorted(names & set(graph.constants)):
        weight = graph.constants[name]
        if weight.dtype == np.float32 and weight.size > 2**bits:
            graph.constants[name] = clustered(weight, 2**bits)
            done += 1
    if not done:
        raise SlimError(
            f"Precision palette: expected layers with more than {2**bits} float32 weights, found none. "
            "Choose fewer bits."
        )
    return graph.serialize(), (
        f"Each layer has at most {2**bits} different weights. The file stores them as before; only the gzipped "
        "download shrinks, and the run is as fast as it was.",
    )


def clustered(weight: np.ndarray, count: int) -> np.ndarray:
    """The weight with each value replaced by the nearest of at most `count` centres, float32.

    Zeros, where there are any that a pruning step left, are a centre of their own and stay exactly zero.
    """
    values = np.sort(weight[weight != 0].astype(np.float64), axis=None)
    free = count - bool(values.size < weight.size)
    if not values.size or not free:
        return weight if free else np.zeros_like(weight)
    centres = np.linspace(values[0], values[-1], free)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    for _ in range(SWEEPS):
        edges = np.searchsorted(values, (centres[1:] + centres[:-1]) / 2)
        bounds = np.concatenate([[0], edges, [values.size]])
        sizes = np.diff(bounds)
        means = np.where(sizes > 0, np.diff(sums[bounds]) / np.maximum(sizes, 1), centres)
        if np.array_equal(means, centres):
            break
        centres = means
    nearest = centres[np.searchsorted((centres[1:] + centres[:-1]) / 2, weight.astype(np.float64))]
    return np.asarray(np.where(weight == 0, 0.0, nearest), np.float32)
