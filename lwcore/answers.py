"""A model's answers on a sample set: batched runs of the exact bytes, for everything that compares two models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from lwcore import runtime
from lwcore.domains import domain
from lwcore.errors import EvaluationError, SampleError
from lwcore.graph import BATCH, Graph
from lwcore.model import Model
from lwcore.runtime import Feed
from lwcore.samples import SampleSet

if TYPE_CHECKING:
    import onnxruntime

WIDEST = 65_536  # values of one output of one sample that are looked at
FEED_MB = 64  # of input floats in one run; keeps large pictures from filling the memory


def logits(
    runner: onnxruntime.InferenceSession,
    model: Model,
    samples: SampleSet,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """A classifier's first output on every sample.

    A model whose file fixes the batch size gets full batches; the last one is filled up with its own last sample, and
    those extra answers are dropped.

    Returns:
        float32, shape (N, classes); trailing dimensions are flattened.

    Raises:
        EvaluationError: the output is no table of one row a sample.
        ModelError: the run fails.
    """
    parts: list[np.ndarray] = []
    for batch, wanted in _runs(model, samples, progress):
        parts.append(_rows(runtime.run(runner, batch)[0], runtime.count(batch))[:wanted])
    return np.concatenate(parts)


def outputs(
    runner: onnxruntime.InferenceSession,
    model: Model,
    samples: SampleSet,
    progress: Callable[[float], None] | None = None,
) -> list[np.ndarray]:
    """What a model says of every sample: a classifier's scores, or all outputs of any other model.

    Returns:
        One float32 array (N, width) an output, trailing dimensions flattened. Very wide outputs are thinned to every
        so-manieth value; rows of an output whose length follows the data are filled up with zeros.
    """
    if domain(model).classes:
        return [logits(runner, model, samples, progress)]
    graph, found = Graph.view(model), list[list[np.ndarray]]()
    for batch, wanted in _runs(model, samples, progress):
        rows = spread_out(graph, runtime.run(runner, batch))
        found.append([array[:wanted] for array in rows])
    return [stacked(pieces) for pieces in zip(*found, strict=True)]


def numeric(graph: Graph) -> list[str]:
    """The outputs that are arrays of numbers."""
    return [name for name in graph.outputs if graph.types.get(name, TensorProto.STRING) != TensorProto.STRING]


def spread_out(graph: Graph, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The numeric outputs of one run as float32 rows, one a sample where samples can be told apart, else one."""
    found, known = [], set(numeric(graph))
    for name, array in zip(graph.outputs, arrays, strict=True):
        if name not in known:
            continue
        axis = _batch_axis(graph, name)
        first = array[None] if axis is None else np.moveaxis(array, axis, 0)
        rows = first.reshape(len(first), -1).astype(np.float32)
        found.append(rows[:, :: max(1, -(-rows.shape[1] // WIDEST))])
    return found


def stacked(pieces: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of several runs below each other, shorter ones filled up with zeros."""
    width = max(piece.shape[1] for piece in pieces)
    return np.concatenate([np.pad(piece, ((0, 0), (0, width - piece.shape[1]))) for piece in pieces])


def _runs(model: Model, samples: SampleSet, progress: Callable[[float], None] | None) -> Iterator[tuple[Feed, int]]:
    """Batches over all samples, and how many rows of each count: the last may be filled up."""
    for start, stop in runtime.batches(len(samples), feed_size(model, samples)):
        yield feed(model, samples, start, stop), stop - start
        if progress:
            progress(stop / len(samples))


def fixed_batch(graph: Graph) -> int | None:
    """The number of samples that the file demands in every run; None where it is free."""
    if all(0 in graph.free.get(name, ()) for name in graph.inputs):
        return None
    return next(iter(graph.shape(graph.inputs[0])), 1)


def per_run(model: Model) -> int | None:
    """How many samples the model demands in every run; None where any number will do."""
    graph = Graph.view(model)
    fixed = fixed_batch(graph)
    if domain(model).alone and (fixed or any(_batch_axis(graph, name) is None for name in graph.outputs)):
        return 1
    return fixed


def _batch_axis(graph: Graph, name: str) -> int | None:
    """Where an output has its samples; None where it does not tell them apart."""
    return next((axis for axis, follows in graph.free.get(name, {}).items() if follows == BATCH), None)


def feed_size(model: Model, samples: SampleSet, most: int = runtime.BATCH) -> int:
    """How many samples go into one run: the file's own batch size, or `most` unless the samples are large."""
    floats = max(1, sum(math.prod(array.shape[1:]) for array in samples.arrays.values()))
    return per_run(model) or max(1, min(most, (FEED_MB << 18) // floats))


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
    return (feed(model, samples, start, stop) for start, stop in spans(model, len(samples), size))


def spans(model: Model, total: int, size: int = runtime.BATCH) -> list[tuple[int, int]]:
    """Where each of the batches of so many samples starts and stops.

    Raises:
        SampleError: there is not one whole batch.
    """
    fixed = per_run(model)
    if total < (fixed or 1):
        raise SampleError(
            f"Expected at least {fixed or 1} calibration samples, one batch of the size that the file fixes, found "
            f"{total}. Give more, or export the model with a free batch."
        )
    every = runtime.batches(total, fixed or size)
    return [(start, stop) for start, stop in every if fixed is None or stop - start == fixed]


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
