"""What the calibration samples do to each consumer's input channels: means and Gram matrices, streamed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from lwcore.errors import SlimError
from lwcore.graph import Graph
from lwcore.runtime import BATCH, Feed, run, session

ROWS = 12_000  # vectors a Gram matrix is made of: far more than channels, few enough not to cost more than the network
_FLOATS = 60_000_000  # activations of all tensors asked for in one run (240 MB)
_HELD = 150_000_000  # of one tensor for all samples (600 MB): pictures decide, and a sweep holds a few tensors


@dataclass(frozen=True)
class Moments:
    """First and second moments of a tensor's channels over `count` vectors.

    Attributes:
        mean: E[x], shape (C,).
        gram: E[x xᵀ], shape (C, C), float64.
        count: number of vectors.
    """

    mean: np.ndarray
    gram: np.ndarray
    count: int


def rows(array: np.ndarray, axis: int, step: int = 1) -> np.ndarray:
    """Vectors of channels: shape (C, n) float32, every `step`-th position beside the batch and channel axes."""
    moved = np.moveaxis(array, axis, 0)
    if step > 1 and moved.ndim > 2:
        flat = moved.reshape(*moved.shape[:2], -1)[:, :, ::step]
        return np.ascontiguousarray(flat).reshape(moved.shape[0], -1)
    return np.ascontiguousarray(moved).reshape(moved.shape[0], -1)


def stride(shape: tuple[int, ...], axis: int, samples: int) -> int:
    """Step between positions so that about `ROWS` vectors remain; odd, so that it does not march along one column."""
    positions = math.prod(shape[1:]) // shape[axis]
    step = max(1, samples * positions // ROWS)
    while step > 1 and (step % 2 == 0 or math.gcd(step, shape[-1]) > 1):
        step -= 1
    return step


def affordable(graph: Graph, wanted: int) -> int:
    """How many of `wanted` samples the largest activation allows to hold in memory at once (at least 8)."""
    largest = max((math.prod(s) for n, s in graph.shapes.items() if n not in graph.constants), default=1)
    return max(8, min(wanted, _HELD // max(largest, 1)))


def batch_size(graph: Graph, names: Iterable[str]) -> int:
    """How many samples may run at once when these tensors are all asked for."""
    floats = sum(math.prod(graph.shape(name)) for name in names)
    return max(1, min(BATCH, _FLOATS // max(floats, 1)))


Vectors = Callable[[np.ndarray], np.ndarray]  # a tensor's values → its vectors of channels, shape (C, n)


def moments(graph: Graph, inputs: Iterable[Feed], vectors: Mapping[str, tuple[str, Vectors]]) -> dict[str, Moments]:
    """Moments in one streamed pass over batches of inputs, accumulated in float64.

    Args:
        vectors: what to call the moments → (tensor, how it becomes vectors).
    """
    if not vectors:
        return {}
    computed = sorted({name for name, _ in vectors.values() if name not in graph.inputs})
    proto = graph.proto()
    listed = {o.name for o in proto.graph.output}
    proto.graph.output.extend(graph.value_info(n) for n in computed if n not in listed)
    runner = session(proto.SerializeToString())
    sums: dict[str, tuple[np.ndarray, np.ndarray, int]] = {}
    for batch in inputs:
        values = dict(zip(computed, run(runner, batch, computed), strict=True)) if computed else {}
        values |= batch
        for key, (name, taken) in sorted(vectors.items()):
            columns = taken(values[name])
            mean, gram, count = sums.get(key, (0.0, 0.0, 0))
            sums[key] = (
                mean + columns.sum(axis=1, dtype=np.float64),
                gram + (columns @ columns.T).astype(np.float64),
                count + columns.shape[1],
            )
    for name, (mean, gram, _) in sums.items():
        if not (np.isfinite(mean).all() and np.isfinite(gram).all()):
            raise SlimError(f"Expected finite values in {name!r} on the calibration samples, found others.")
    return {n: Moments(mean / count, gram / count, count) for n, (mean, gram, count) in sums.items()}
