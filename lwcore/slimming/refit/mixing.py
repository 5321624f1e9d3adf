"""Re-fit a layer through one matrix that rebuilds its dense inputs from those left: `x ≈ B x̂`, `W' = W B`.

The same B serves every kernel position, so it needs statistics of single channels only: those of the dense model serve
every amount (one-shot), and layers too wide to solve for whole are re-fitted this way too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from lwcore.analysis.coupling import Coupling
from lwcore.analysis.labels import Consumer
from lwcore.analysis.statistics import Moments, rows, stride
from lwcore.graph import Graph
from lwcore.slimming.refit.linear import Home, bias_home, linear_layers
from lwcore.slimming.refit.regression import RIDGES, Batch, fitted, solver
from lwcore.slimming.refit.sweep import Pair, refused
from lwcore.slimming.refit.targets import Take
from lwcore.slimming.refit.walk import Chunks
from lwcore.slimming.rewrite import Keep
from lwcore.slimming.weights import Weights

FLAT = 2048  # a flattened picture with more features than this is fitted channel by channel, not feature by feature
_ONE_SHOT = RIDGES[1]
_LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True)
class Reader:
    """A linear operator that reads removable channels: what a removal does not change of it.

    Attributes:
        consumer: which weight reads which channels.
        moments: under which name the moments of its input are kept.
        outputs: axis of the weight → class of each of its outputs.
        run: features that one channel fills in a flattened input (H × W), else 1.
        home: where a shift of its result is written.
    """

    consumer: Consumer
    moments: str
    outputs: dict[int, np.ndarray]
    run: int
    home: Home | None

    def after(self, keep: Keep) -> Mixing:
        """What it still reads and gives."""
        outputs = {axis: keep[classes] for axis, classes in self.outputs.items()}
        return Mixing(self.consumer, keep[self.consumer.ids][:: self.run], outputs, self.run, self.home)


def linear_readers(graph: Graph, coupling: Coupling) -> tuple[Reader, ...]:
    """All linear operators whose weight is whole and that read removable channels, in the order of the graph."""
    weights, wiring, found = Weights(graph), graph.consumers(), list[Reader]()
    layers = {layer.index: layer for layer in linear_layers(graph)}
    axes: dict[str, dict[int, np.ndarray]] = {}
    for (name, axis), classes in coupling.cuts.items():
        axes.setdefault(name, {})[axis] = classes
    for consumer in whole(graph, coupling):
        held = axes.get(weights.base(consumer.constant), {})
        outputs = {axis: classes for axis, classes in held.items() if axis != consumer.axis}
        layer = layers.get(consumer.node)
        home = bias_home(weights, wiring, layer) if layer else _own_bias(weights, wiring, consumer.node)
        found.append(Reader(consumer, moments_key(graph, consumer), outputs, run_length(graph, consumer), home))
    return tuple(found)


def _own_bias(weights: Weights, wiring: Mapping[str, Sequence[int]], index: int) -> Home | None:
    """Of a transposed convolution."""
    own = weights.graph.nodes[index].input[2:3]
    return Home(own[0], 1.0) if own and own[0] in weights and len(wiring[own[0]]) == 1 else None


@dataclass(frozen=True)
class Mixing:
    """A linear operator that lost inputs, read as vectors of its input channels.

    Attributes:
        consumer, run, home: as those of its `Reader`.
        kept: which of its C input channels are left, bool.
        outputs: axis of the weight → which outputs are left, bool.
    """

    consumer: Consumer
    kept: np.ndarray
    outputs: dict[int, np.ndarray]
    run: int
    home: Home | None

    def dense(self, pair: Pair) -> np.ndarray:
        """The dense weight of the outputs that are left, its channels alone along the consumer's axis, `run` behind."""
        name, axis = self.consumer.constant, self.consumer.axis
        weight = pair.dense.constants[name] if name in pair.dense.constants else pair.full.read(name)
        weight = weight.astype(np.result_type(weight, np.float32), copy=False)
        for other, mask in self.outputs.items():
            weight = np.compress(mask, weight, axis=other)
        return weight.reshape(*weight.shape[:axis], len(self.kept), self.run, *weight.shape[axis + 1 :])

    def write(self, pair: Pair, new: np.ndarray, shift: np.ndarray) -> None:
        """Put `W B` in the place of the weight, and what the means leave over into the bias.

        Args:
            new: W B, laid out as `dense`.
            shift: W E[x − B x̂], without the axis of the channels.
        """
        if not np.isfinite(new).all():
            raise refused(pair.slim, self.consumer.node)
        name, axis = self.consumer.constant, self.consumer.axis
        growth = pair.small.write(name, new.reshape(*new.shape[:axis], -1, *new.shape[axis + 2 :]))
        if self.home is not None:
            bias, left = pair.small.read(self.home.name), shift.sum(axis=axis)
            per_output = left.reshape(len(left), -1).sum(axis=1)  # over kernel positions
            pair.small.rescale(self.home.name, bias + self.home.factor * per_output.reshape(bias.shape), growth)

    def from_moments(self, pair: Pair, stats: Moments) -> None:
        """Re-fit from the dense model's statistics alone; only what is lost needs rebuilding."""
        kept, lost = np.flatnonzero(self.kept), np.flatnonzero(~self.kept)
        inner, cross = (stats.gram[rows[:, None], kept] for rows in (kept, lost))
        if self.home is not None:
            inner -= stats.mean[kept][:, None] * stats.mean[kept]
            cross -= stats.mean[lost][:, None] * stats.mean[kept]
        rebuild = solver(inner[None], _ONE_SHOT)(cross[None])[0]
        weight, axis = self.dense(pair), self.consumer.axis
        new, shift = mixed(np.take(weight, lost, axis), axis, rebuild, stats.mean[lost] - rebuild @ stats.mean[kept])
        self.write(pair, new + np.take(weight, kept, axis), shift)


def mixed(weight: np.ndarray, axis: int, rebuild: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis of a weight, `W B` as one product and `W left`, in the weight's precision."""
    last = np.ascontiguousarray(np.moveaxis(weight, axis, -1))
    flat = last.reshape(-1, last.shape[-1]) @ rebuild.astype(weight.dtype)
    return np.moveaxis(flat.reshape(*last.shape[:-1], -1), -1, axis), last @ left


class Rebuilt:
    """A step of a sweep: rebuilds a layer's dense inputs from what it reads in the slim graph."""

    def __init__(self, pair: Pair, found: Mixing, samples: int) -> None:
        self._pair, self._mixing, self._samples = pair, found, samples
        self.result = pair.slim.nodes[found.consumer.node].output[0]
        dense, consumer = pair.dense, found.consumer
        axis = channel_axis(dense, consumer)
        vectors = partial(channel_vectors, dense, consumer, samples=samples)
        step = stride((1, *dense.shape(consumer.tensor)[1:]), axis, samples)
        self.original = Take(consumer.tensor, axis, step, pair.trims(consumer.tensor, axis), vectors)
        self.now: tuple[str, ...] = (consumer.tensor,)

    def refit(self, original: Chunks, now: Sequence[Chunks]) -> None:
        """Solve for B and write the layer's weight."""
        found, name = self._mixing, self.original.name
        batches = []
        for x, y in zip(now[0], original, strict=True):
            inputs = channel_vectors(self._pair.dense, found.consumer, x, self._samples)
            batches.append(Batch(inputs[None], self._pair.turned(name, y)[None]))
        plain = np.eye(len(found.kept))[None, :, found.kept]
        rebuild, left = fitted(batches, plain, found.home is not None)
        found.write(self._pair, *mixed(found.dense(self._pair), found.consumer.axis, rebuild[0], left[0]))


def whole(graph: Graph, coupling: Coupling) -> list[Consumer]:
    """Linear consumers whose weight is whole (one group) and read only once."""
    weights, readers = Weights(graph), graph.consumers()
    return [
        c
        for c in coupling.consumers
        if c.groups == 1
        and graph.nodes[c.node].op_type in _LINEAR
        and c.constant in weights
        and len(readers[weights.base(c.constant)]) == 1
    ]


def run_length(graph: Graph, consumer: Consumer) -> int:
    """Features that one channel fills in a wide flattened input (H × W), else 1."""
    features = len(consumer.ids)
    if graph.nodes[consumer.node].op_type not in ("Gemm", "MatMul") or features <= FLAT:
        return 1
    changes = np.flatnonzero(np.diff(consumer.ids))
    first = int(changes[0]) + 1 if changes.size else features
    return first if features % first == 0 and not ((changes + 1) % first).any() else 1


def channel_vectors(graph: Graph, consumer: Consumer, array: np.ndarray, samples: int) -> np.ndarray:
    """The consumer's input as vectors of channels, shape (C, n); `samples` are spread over some thousand vectors."""
    axis, run = channel_axis(graph, consumer), run_length(graph, consumer)
    if run > 1:
        array = array.reshape(len(array), -1, run)
    return rows(array, axis, stride((1, *array.shape[1:]), axis, samples))


def channel_axis(graph: Graph, consumer: Consumer) -> int:
    """Axis of the consumer's input that holds the channels it sums over."""
    node = graph.nodes[consumer.node]
    if node.op_type != "MatMul":
        return 1
    rank = len(graph.shape(consumer.tensor))
    return rank - 1 if node.input[0] == consumer.tensor else rank - 2


def moments_key(graph: Graph, consumer: Consumer) -> str:
    """Under which name the moments of a consumer's input are kept: one tensor may be read along several axes."""
    return f"{consumer.tensor}@{channel_axis(graph, consumer)}"
