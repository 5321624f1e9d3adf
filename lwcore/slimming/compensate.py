"""Compensation without training: re-fit every layer that lost inputs, in closed form, from unlabelled samples.

After the channels K to keep are chosen, a linear consumer y = W x + b is re-fitted so that it gives from the channels
left what it gave from all of them. With x the channels of the dense model and x̂ those of the slimmed one, `B =
Cov(x, x̂) (Cov(x̂, x̂) + λI)⁻¹`, `W' = W B` at every kernel position, and the means' residual goes into the bias.

*One-shot* takes x̂ = x[K], so the dense model's statistics serve every amount. *Sequential* carries the activations
of both models through the graph level by level, so that each layer also corrects what the layers before it got wrong;
it costs about two forward passes. Sources: ThiNet (ICCV 2017), GRAIL (arXiv 2602.23795), OSSCAR (ICML 2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from lwcore.analysis.coupling import Coupling, couple
from lwcore.analysis.labels import Consumer
from lwcore.analysis.statistics import Moments, feed, moments, rows, stride
from lwcore.errors import SlimError
from lwcore.graph import Graph, reads
from lwcore.model import Model
from lwcore.progress import Progress, silent
from lwcore.runtime import session
from lwcore.samples import SampleSet
from lwcore.slimming.rewrite import Keep
from lwcore.slimming.weights import Weights

RIDGE = 1e-3  # λ as a share of the mean variance of the channels left
CALIBRATION = 512  # samples that statistics are taken from; more changes the result less than another draw does
WIDE = 2048  # a flattened picture with more features than this is fitted channel by channel, not feature by feature
_LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True)
class Fit:
    """What one re-fit needs of C dense and K slim channels.

    Attributes:
        cross: E[x x̂ᵀ], shape (C, K).
        inner: E[x̂ x̂ᵀ], shape (K, K).
        dense_mean, slim_mean: E[x], E[x̂].
        kept: which of the C channels the K are, bool.
    """

    cross: np.ndarray
    inner: np.ndarray
    dense_mean: np.ndarray
    slim_mean: np.ndarray
    kept: np.ndarray

    def weights(self, centred: bool) -> np.ndarray:
        """B, shape (C, K): x ≈ B x̂ (+ a constant when centred).

        The ridge pulls B towards plain removal (each channel left stands for itself), so that few or dull samples end
        in no compensation rather than in a wrong one.
        """
        cross, inner = self.cross, self.inner
        if centred:
            cross = cross - np.outer(self.dense_mean, self.slim_mean)
            inner = inner - np.outer(self.slim_mean, self.slim_mean)
        ridge = RIDGE * max(float(np.trace(inner)) / len(inner), 1e-12)
        plain = np.eye(len(self.kept))[:, self.kept]
        return np.linalg.solve(inner + ridge * np.eye(len(inner)), (cross + ridge * plain).T).T


@dataclass(frozen=True)
class Cut:
    """A dense graph, its slimmed copy (same nodes at the same indexes) and what lies between them."""

    dense: Graph
    slim: Graph
    coupling: Coupling
    keep: Keep

    @cached_property
    def full(self) -> Weights:
        """The dense graph's weights."""
        return Weights(self.dense)

    @cached_property
    def small(self) -> Weights:
        """The slimmed graph's weights."""
        return Weights(self.slim)

    @cached_property
    def readers(self) -> dict[str, list[int]]:
        """Tensor → nodes that read it; the wiring is the same in both graphs."""
        return self.dense.consumers()

    def lost(self, consumer: Consumer) -> bool:
        """True when the consumer lost inputs."""
        return not bool(self.keep[consumer.ids].all())

    def refittable(self) -> list[Consumer]:
        """Linear consumers whose weight is whole (one group) and read only once."""
        return [
            c
            for c in self.coupling.consumers
            if c.groups == 1
            and self.dense.nodes[c.node].op_type in _LINEAR
            and c.constant in self.full
            and len(self.readers[self.full.base(c.constant)]) == 1
        ]


def one_shot(cut: Cut, known: Mapping[str, Moments]) -> None:
    """Re-fit every consumer that lost inputs, in place, from the dense model's moments."""
    for consumer in cut.refittable():
        if cut.lost(consumer):
            stats, kept = known[consumer.tensor], cut.keep[consumer.ids][:: run_length(cut.dense, consumer)]
            _refit(
                cut,
                consumer,
                Fit(stats.gram[:, kept], stats.gram[np.ix_(kept, kept)], stats.mean, stats.mean[kept], kept),
            )


def run_length(graph: Graph, consumer: Consumer) -> int:
    """Features that one channel fills in a wide flattened input (H × W), else 1."""
    features = len(consumer.ids)
    if graph.nodes[consumer.node].op_type not in ("Gemm", "MatMul") or features <= WIDE:
        return 1
    changes = np.flatnonzero(np.diff(consumer.ids))
    first = int(changes[0]) + 1 if changes.size else features
    return first if features % first == 0 and not ((changes + 1) % first).any() else 1


def _refit(cut: Cut, consumer: Consumer, fit: Fit) -> None:
    slim = cut.slim
    home = _bias_home(cut, consumer.node)
    rebuild = fit.weights(centred=home is not None)
    weight = cut.full.read(consumer.constant)
    full = np.moveaxis(weight, consumer.axis, -1)[_alive_outputs(cut, consumer, weight.ndim)]
    run = len(consumer.ids) // len(fit.kept)
    if run > 1:  # a flattened picture: the same B at every position
        full = np.swapaxes(full.reshape(*full.shape[:-1], len(fit.kept), run), -1, -2)
    fitted = full @ rebuild
    if run > 1:
        fitted = np.swapaxes(fitted, -1, -2).reshape(*fitted.shape[:-2], -1)
    if not np.isfinite(fitted).all():
        raise SlimError(
            f"Layer {slim.nodes[consumer.node].name!r} could not be re-fitted: expected finite values on the "
            "calibration samples, found others. Use other samples or compensate 'none'."
        )
    bias = cut.small.read(home[0]) if home is not None else np.zeros(0)
    growth = cut.small.write(consumer.constant, np.moveaxis(fitted, -1, consumer.axis))
    if home is not None:
        shift = _per_output(full @ (fit.dense_mean - rebuild @ fit.slim_mean))
        cut.small.rescale(home[0], bias + home[1] * shift.reshape(bias.shape), growth)


def _alive_outputs(cut: Cut, consumer: Consumer, rank: int) -> tuple[np.ndarray, ...]:
    """Index of what the slimmed layer still computes, for a weight whose input axis was moved to the end."""
    base = cut.full.base(consumer.constant)
    shape = cut.dense.shape(base)
    index = []
    for axis in (*(a for a in range(rank) if a != consumer.axis), consumer.axis):
        classes = cut.coupling.cuts.get((base, axis)) if axis != consumer.axis else None
        index.append(np.arange(shape[axis]) if classes is None else np.flatnonzero(cut.keep[classes]))
    return np.ix_(*index)


def _per_output(shift: np.ndarray) -> np.ndarray:
    """Sum over kernel positions: what is left is one number an output channel (the first axis left is the output's)."""
    return shift.reshape(shift.shape[0], -1).sum(axis=1) if shift.ndim > 1 else shift


def _bias_home(cut: Cut, index: int) -> tuple[str, int] | None:
    """Where a constant shift of a layer's output can be written without adding a parameter: (constant, sign).

    Its own bias, or the running mean of the batch norm that alone reads it (with the opposite sign), or the constant of
    the Add that alone reads it.
    """
    slim, node = cut.slim, cut.slim.nodes[index]
    result = node.output[0]
    outputs = slim.shape(result)[-1 if node.op_type in ("MatMul", "Gemm") else 1]
    if node.op_type != "MatMul" and len(node.input) > 2 and node.input[2]:
        return _own(cut, node.input[2], outputs, 1)
    followers = cut.readers.get(result, [])
    if len(followers) != 1 or result in slim.outputs:
        return None
    follower = slim.nodes[followers[0]]
    if follower.op_type == "BatchNormalization":
        return _own(cut, follower.input[3], outputs, -1)
    if follower.op_type == "Add":
        return next((home for name in follower.input if (home := _own(cut, name, outputs, 1))), None)
    return None


def _own(cut: Cut, name: str, size: int, sign: int) -> tuple[str, int] | None:
    """The constant, if this layer alone uses it and it has one number an output."""
    if name not in cut.small or len(cut.readers[cut.small.base(name)]) != 1:
        return None
    return (name, sign) if cut.slim.constants[cut.small.base(name)].size == size else None


def keep_moments(model: Model, samples: SampleSet, known: dict[str, Moments]) -> None:
    """Remember moments that were gathered before, perhaps by another process; the last few pairs are kept."""
    while len(_MOMENTS) >= 4:
        _MOMENTS.pop(next(iter(_MOMENTS)))
    _MOMENTS[model.fingerprint, samples.fingerprint] = known


def gather_moments(model: Model, samples: SampleSet) -> dict[str, Moments]:
    """Moments of every consumer's input on the calibration samples, remembered for the last few pairs."""
    key = (model.fingerprint, samples.fingerprint)
    if key not in _MOMENTS:
        graph = Graph.view(model)
        count = min(len(samples), CALIBRATION)
        vectors = {
            c.tensor: partial(channel_vectors, graph, c, samples=count)
            for c in couple(model).consumers
            if c.groups == 1
        }
        keep_moments(model, samples, moments(graph, feed(graph, samples.take(count), model.card.input), vectors))
    return _MOMENTS[key]


_MOMENTS: dict[tuple[str, str], dict[str, Moments]] = {}


# -- sequential --------------------------------------------------------------------------------------------------------

Chunks = list[np.ndarray]  # a tensor's values, a batch at a time: never copied together, and warm in cache
Pair = tuple[Chunks, Chunks]  # in the dense and in the slimmed model


def sequential(cut: Cut, inputs: Chunks, progress: Progress = silent) -> None:
    """Re-fit every consumer behind the first removed channel, in place and in topological order.

    Args:
        cut: the graphs; `cut.slim` is changed.
        inputs: calibration inputs in batches.
        progress: told the share done after each level.
    """
    wanted = cut.refittable()
    lost = {c.node for c in wanted if cut.lost(c)}
    if not lost:
        return
    reached, _ = _levels(cut.dense, lost)
    wanted = [c for c in wanted if reached[c.node] > 0]
    levels, last = _levels(cut.dense, {c.node for c in wanted})
    live = {cut.dense.inputs[0]: (inputs, inputs)}
    for level in range(last + 1):
        fits: dict[tuple[str, int], Fit] = {}  # layers side by side often read the same tensor
        for consumer in (c for c in wanted if levels[c.node] == level):
            key = (consumer.tensor, channel_axis(cut.dense, consumer))
            if key not in fits:
                fits[key] = _measured(cut, consumer, *live[consumer.tensor])
            _refit(cut, consumer, fits[key])
        if level < last:
            live = _advance(cut, levels, level, live)
        progress((level + 1) / (last + 1), "compensating")


def _levels(graph: Graph, marked: set[int]) -> tuple[list[int], int]:
    """Depth of every node counted in marked nodes, and the deepest marked level."""
    depth: dict[str, int] = {}
    levels = []
    for index, node in enumerate(graph.nodes):
        level = max((depth.get(name, 0) for name in reads(node)), default=0) + (index in marked)
        levels.append(level)
        depth.update((name, level) for name in node.output)
    readers = graph.consumers()
    for index, node in enumerate(graph.nodes):
        if all(
            name in graph.constants for name in reads(node)
        ):  # dequantizes a weight: after the re-fit, with its reader
            levels[index] = min((levels[i] for name in node.output for i in readers.get(name, ())), default=0)
    return levels, max(levels[i] for i in marked)


def _advance(cut: Cut, levels: list[int], level: int, live: dict[str, Pair]) -> dict[str, Pair]:
    """Run one level of both models and keep the tensors that later levels read."""
    nodes = cut.dense.nodes
    part = [i for i, depth in enumerate(levels) if depth == level]
    later = {name for i, node in enumerate(nodes) if levels[i] > level for name in reads(node)}
    here = {name for i in part for name in reads(nodes[i])}
    made = [name for i in part for name in nodes[i].output if name in later]
    fed = [name for name in live if name in here]
    kept = {name: pair for name, pair in live.items() if name in later}
    if not made:
        return kept
    dense = _run_part(cut.dense, part, fed, made, [live[n][0] for n in fed])
    if all(live[n][0] is live[n][1] for n in fed) and not _changed(cut, part):
        return kept | {name: (a, a) for name, a in zip(made, dense, strict=True)}
    slim = _run_part(cut.slim, part, fed, made, [live[n][1] for n in fed])
    return kept | {name: (a, b) for name, a, b in zip(made, dense, slim, strict=True)}


def _changed(cut: Cut, part: list[int]) -> bool:
    """True when the slimmed model computes these nodes with other constants."""
    names = {name for i in part for name in reads(cut.slim.nodes[i]) if name in cut.slim.constants}
    return any(cut.slim.constants[n] is not cut.dense.constants.get(n) for n in names)


def _run_part(graph: Graph, part: list[int], fed: list[str], made: list[str], values: list[Chunks]) -> list[Chunks]:
    runner = session(graph.subgraph(part, fed, made))
    pieces = [runner.run(made, dict(zip(fed, chunk, strict=True))) for chunk in zip(*values, strict=True)]
    return [list(column) for column in zip(*pieces, strict=True)]


def _measured(cut: Cut, consumer: Consumer, dense: Chunks, slim: Chunks) -> Fit:
    samples = sum(len(chunk) for chunk in dense)
    cross, inner, dense_sum, slim_sum, count = 0.0, 0.0, 0.0, 0.0, 0
    for full, small in zip(dense, slim, strict=True):
        x = channel_vectors(cut.dense, consumer, full, samples)
        y = x if small is full else channel_vectors(cut.dense, consumer, small, samples)
        cross, inner = cross + (x @ y.T).astype(np.float64), inner + (y @ y.T).astype(np.float64)
        dense_sum = dense_sum + x.sum(axis=1, dtype=np.float64)
        slim_sum = slim_sum + y.sum(axis=1, dtype=np.float64)
        count += x.shape[1]
    kept = cut.keep[consumer.ids][:: run_length(cut.dense, consumer)]
    return Fit(
        np.asarray(cross) / count,
        np.asarray(inner) / count,
        np.asarray(dense_sum) / count,
        np.asarray(slim_sum) / count,
        kept,
    )


def channel_vectors(graph: Graph, consumer: Consumer, array: np.ndarray, samples: int) -> np.ndarray:
    """The consumer's input as vectors of channels, shape (C, n); `samples` are spread over about `ROWS` vectors."""
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
