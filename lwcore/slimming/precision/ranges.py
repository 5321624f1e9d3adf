"""The range of every activation on calibration samples, streamed in small batches so that memory stays bounded.

onnxruntime's own calibrators keep every inner tensor of every sample until the end (microsoft/onnxruntime#10503: 123 GB
for 32 samples), and with its default of as many bins as levels, its entropy search has a single candidate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto

from lwcore import runtime
from lwcore.answers import feed, per_run
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.samples import SampleSet

Range = tuple[float, float]
Histogram = tuple[np.ndarray, Range]  # counts of BINS equal bins, and the range that they share out

BATCH_MB = 64  # of activations held at once
BINS = 2048
FLOAT_STEP = 1e-6  # relative distance of neighbouring float32 values, generously: bins must not be narrower
LEVELS = 256  # values that 8 bits can tell apart; half of them are magnitudes where both signs occur
OUTSIDE = 1e-4  # share of the values that the percentile method leaves outside, both ends together
SMALLEST, SHRINKS = 0.3, 71  # the mse method tries so many shares of the full range, from this one up
MOST_OUTSIDE = 1e-3  # share that entropy may: flat backgrounds make spikes that draw its divergence far too low


def activation_ranges(model: Model, samples: SampleSet, method: str) -> dict[str, Range]:
    """Lowest and highest value to represent, for the input and every inner float tensor; see `range_sets`."""
    return range_sets(model, samples, (method,))[method]


def range_sets(model: Model, samples: SampleSet, methods: Sequence[str]) -> dict[str, dict[str, Range]]:
    """Lowest and highest value to represent, for the input and every inner float tensor, by each method.

    Args:
        model: a float32 model as `lwcore.load` leaves it.
        samples: calibration samples; labels are not used.
        methods: of `minmax`, `percentile` (0.01 % of the values are cut off), `mse` (the smallest mean squared error of
            rounding and cutting off together) and `entropy` (up to 0.1 % are cut off, where that loses the least
            information: Migacz, "8-bit inference with TensorRT", GTC 2017).
    """
    widest: dict[str, Range] = {}
    for name, values in _activations(model, samples):
        low, high = widest.get(name, (math.inf, -math.inf))
        widest[name] = (min(low, float(values.min())), max(high, float(values.max())))
    found = {"minmax": widest}
    if set(methods) > {"minmax"} or "minmax" not in methods:
        histograms = _histograms(model, samples, widest)
        for method in methods:
            if method != "minmax":
                choose = _METHODS[method]
                found[method] = {name: choose(*histogram) for name, histogram in histograms.items()}
    return {method: found[method] for method in methods}


def _histograms(model: Model, samples: SampleSet, ranges: Mapping[str, Range]) -> dict[str, Histogram]:
    counts = {name: np.zeros(BINS, np.int64) for name in ranges}
    for name, values in _activations(model, samples):
        low, high = ranges[name]
        if high - low > BINS * FLOAT_STEP * max(abs(low), abs(high)):
            counts[name] += np.histogram(values, BINS, (low, high))[0]
    return {name: (count, ranges[name]) for name, count in counts.items()}


def _activations(model: Model, samples: SampleSet) -> Iterator[tuple[str, np.ndarray]]:
    graph = Graph.view(model)
    names = [name for node in graph.nodes for name in node.output if graph.types.get(name) == TensorProto.FLOAT]
    names = [name for name in names if math.prod(graph.shapes[name])]
    proto = graph.proto()
    listed = {o.name for o in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in listed)
    runner = runtime.session(proto.SerializeToString(), optimise=False)
    megabytes = sum(math.prod(graph.shapes[name]) for name in names) * 4 / 1e6
    size = per_run(model) or max(1, min(runtime.BATCH, int(BATCH_MB / max(megabytes, 1e-6))))
    for start, stop in runtime.batches(len(samples), size):
        batch = feed(model, samples, start, stop)
        yield from ((name, array) for name, array in batch.items() if array.dtype == np.float32)
        yield from zip(names, runtime.run(runner, batch, names), strict=True)


def _percentile(counts: np.ndarray, values: Range) -> Range:
    if not counts.any():  # (almost) the same value everywhere
        return values
    low, high = values
    share = np.cumsum(counts) / counts.sum()
    edges = np.linspace(low, high, BINS + 1)
    first = int(np.searchsorted(share, OUTSIDE / 2, side="right"))
    last = int(np.searchsorted(share, 1 - OUTSIDE / 2))
    return float(edges[first]), float(edges[min(last + 1, BINS)])


def _entropy(counts: np.ndarray, values: Range) -> Range:
    if not counts.any():
        return values
    low, high = values
    most = max(abs(low), abs(high))
    centres = np.linspace(low, high, BINS, endpoint=False) + (high - low) / (2 * BINS)
    folded = np.histogram(np.abs(centres), BINS, (0.0, most), weights=counts)[0]
    fewest = int(np.searchsorted(np.cumsum(folded), (1 - MOST_OUTSIDE) * folded.sum())) + 1
    folded[0] = folded[1]  # the zeros of a ReLU are exact at any range and would drown everything else
    levels = LEVELS // 2 if low < 0 < high else LEVELS
    tried = range(max(fewest, levels), BINS + 1, 8)
    best = min(tried, key=lambda bins: _divergence(folded, bins, levels), default=BINS)
    limit = most * best / BINS
    return max(low, -limit), min(high, limit)


def _divergence(counts: np.ndarray, bins: int, levels: int) -> float:
    """Kullback–Leibler divergence between the values clipped at `bins`, and those after rounding to `levels` steps."""
    kept = counts[:bins]
    if not kept.any():
        return math.inf
    clipped = kept.copy()
    clipped[-1] += counts[bins:].sum()
    level = np.arange(bins) * levels // bins
    filled = kept > 0
    sums = np.bincount(level, weights=kept, minlength=levels)
    members = np.bincount(level, weights=filled, minlength=levels)
    rounded = np.where(filled, sums[level] / np.maximum(members[level], 1), 0.0)
    p, q = clipped / clipped.sum(), np.maximum(rounded / kept.sum(), 1e-9)
    used = p > 0
    return float((p[used] * np.log(p[used] / q[used])).sum())


def _mse(counts: np.ndarray, values: Range) -> Range:
    if not counts.any():
        return values
    low, high = min(values[0], 0.0), max(values[1], 0.0)
    centres = np.linspace(*values, BINS, endpoint=False) + (values[1] - values[0]) / (2 * BINS)
    shrunk = np.linspace(SMALLEST, 1.0, SHRINKS)
    errors = [float((counts * _squared_error(centres, low * share, high * share)).sum()) for share in shrunk]
    best = float(shrunk[int(np.argmin(errors))])
    return low * best, high * best


def _squared_error(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Inside the range the rounding error is uniform over a step; outside it is the distance to the range."""
    step = (high - low) / (LEVELS - 1)
    return np.asarray(
        (values - np.clip(values, low, high)) ** 2 + (step**2 / 12) * ((values >= low) & (values <= high))
    )


_METHODS: Mapping[str, Callable[[np.ndarray, Range], Range]] = {
    "percentile": _percentile,
    "mse": _mse,
    "entropy": _entropy,
}
