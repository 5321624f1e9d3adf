"""A model's answers on a sample set: batched runs of the exact bytes, for everything that compares two models."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from lwcore import runtime
from lwcore.errors import EvaluationError
from lwcore.model import Model
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
    size = feed_size(runner, samples)
    parts: list[np.ndarray] = []
    for start, stop in runtime.batches(len(samples), size):
        output = runtime.run(runner, feed(runner, model, samples, start, stop))[0]
        parts.append(_rows(output, size if _fixed(runner) else stop - start)[: stop - start])
        if progress:
            progress(stop / len(samples))
    return np.concatenate(parts)


def feed_size(runner: onnxruntime.InferenceSession, samples: SampleSet, most: int = runtime.BATCH) -> int:
    """How many samples go into one run: the file's own batch size, or `most` unless the pictures are large."""
    floats = max(1, int(np.prod(samples.pixels.shape[1:])))
    return runtime.batch_size(runner, max(1, min(most, (FEED_MB << 18) // floats)))


def feed(runner: onnxruntime.InferenceSession, model: Model, samples: SampleSet, start: int, stop: int) -> np.ndarray:
    """Samples `start:stop` as the model reads them; filled up to the batch size when the file fixes one."""
    array = samples.inputs(model.card.input, start, stop)
    missing = runtime.batch_size(runner, len(array)) - len(array)
    if missing > 0:
        array = np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
    return array.astype(np.float16) if runner.get_inputs()[0].type == "tensor(float16)" else array


def _fixed(runner: onnxruntime.InferenceSession) -> bool:
    return runtime.batch_size(runner, 0) > 0


def _rows(output: np.ndarray, count: int) -> np.ndarray:
    if output.ndim < 2 or len(output) != count or not np.issubdtype(output.dtype, np.number):
        raise EvaluationError(
            f"Expected one row of class scores a sample from the model's first output; found {output.dtype} of shape "
            f"{output.shape} for {count} samples. Only classifiers can be measured on samples."
        )
    return output.reshape(count, -1).astype(np.float32)
