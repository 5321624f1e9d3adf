"""A model's answers on a sample set: batched runs of the exact bytes, for everything that compares two models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from onnx import helper

from lwcore import runtime
from lwcore.domains import domain
from lwcore.errors import EvaluationError, SampleError
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.runtime import Feed
from lwcore.samples import SampleSet

if TYPE_CHECKING:
    import onnxruntime

FEED_MB = 64  # of input floats in one run; keeps large pictures from filling the memory


def logits(
    runner: onnxruntime.InferenceSession,
    model: Model,
    samples: SampleSet,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """The first output on every sample.

    A model whose file fixes the batch size gets full batches; the last one is filled up with its own last sample, and
    those extra answers are dropped.

    Returns:
        float32, shape (N, classes); trailing dimensions are flattened.

    Raises:
        EvaluationError: the output is no table of one row a sample.
        ModelError: the run fails.
    """
    size = feed_size(model, samples)
    parts: list[np.ndarray] = []
    for start, stop in runtime.batches(len(samples), size):
        batch = feed(model, samples, start, stop)
        parts.append(_rows(runtime.run(runner, batch)[0], runtime.count(batch))[: stop - start])
        if progress:
            progress(stop / len(samples))
    return np.concatenate(parts)


def fixed_batch(graph: Graph) -> int | None:
    """The number of samples that the file demands in every run; None where it is free."""
    first = graph.inputs[0]
    return None if 0 in graph.free.get(first, ()) or not graph.shape(first) else graph.shape(first)[0]


def feed_size(model: Model, samples: SampleSet, most: int = runtime.BATCH) -> int:
    """How many samples go into one run: the file's own batch size, or `most` unless the samples are large."""
    floats = max(1, sum(math.prod(array.shape[1:]) for array in samples.arrays.values()))
    return fixed_batch(Graph.view(model)) or max(1, min(most, (FEED_MB << 18) // floats))


def feed(model: Model, samples: SampleSet, start: int = 0, stop: int | None = None) -> Feed:
    """Samples `start:stop` as the model reads them; filled up to the batch size when the file fixes one."""
    graph = Graph.view(model)
    stop = len(samples) if stop is None else min(stop, len(samples))
    batch = domain(model).feed(samples, model, start, stop)
    missing = (fixed_batch(graph) or 0) - runtime.count(batch)
    if missing > 0:
        batch = {n: np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) for n, array in batch.items()}
    kinds = {name: helper.tensor_dtype_to_np_dtype(graph.types[name]) for name in batch}
    return {name: array.astype(kinds[name], copy=False) for name, array in batch.items()}


def feeds(model: Model, samples: SampleSet, size: int = runtime.BATCH) -> Iterator[Feed]:
    """The samples in batches, or in the batch size that the file fixes (an incomplete last batch is left out).

    Raises:
        SampleError: there is not one whole batch.
    """
    fixed = fixed_batch(Graph.view(model))
    if len(samples) < (fixed or 1):
        raise SampleError(
            f"Expected at least {fixed or 1} calibration samples, one batch of the size that the file fixes, found "
            f"{len(samples)}. Give more, or export the model with a free batch."
        )
    for start, stop in runtime.batches(len(samples), fixed or size):
        if fixed is None or stop - start == fixed:
            yield feed(model, samples, start, stop)


def example(graph: Graph, seed: int | None = None) -> Feed:
    """One made-up input of the declared shapes: zeros, or normal noise for floats where there is a seed."""
    kinds = {name: helper.tensor_dtype_to_np_dtype(graph.types[name]) for name in graph.inputs}
    if seed is None:
        return {name: np.zeros(graph.shape(name), kind) for name, kind in kinds.items()}
    rng = np.random.default_rng(seed)
    scale = {name: float(np.issubdtype(kind, np.floating)) for name, kind in kinds.items()}
    return {name: (scale[name] * rng.standard_normal(graph.shape(name))).astype(kind) for name, kind in kinds.items()}


def _rows(output: np.ndarray, count: int) -> np.ndarray:
    if output.ndim < 2 or len(output) != count or not np.issubdtype(output.dtype, np.number):
        raise EvaluationError(
            f"Expected one row of class scores a sample from the model's first output; found {output.dtype} of shape "
            f"{output.shape} for {count} samples. Only classifiers can be measured on samples."
        )
    return output.reshape(count, -1).astype(np.float32)
