"""Re-fit linear layers one after another to what the dense model computed, in closed form, from unlabelled samples.

Both graphs are walked side by side; each layer's weight and bias become those that best give, from what the layer now
reads, what it gave in the dense model. So each layer also corrects what those before it got wrong. Where a layer writes
into a residual stream its target makes the *sum* right, so it also makes up for what the shortcut has lost.
Sources: ThiNet (ICCV 2017), Zhang et al. (TPAMI 2016: asymmetric reconstruction), GRAIL (arXiv 2602.23795).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from lwcore.errors import SlimError
from lwcore.graph import Graph, attributes, reads
from lwcore.progress import Progress, silent
from lwcore.runtime import Feed, count
from lwcore.slimming.refit.linear import Linear, along, bias_home, linear_layers
from lwcore.slimming.refit.path import Path, path
from lwcore.slimming.refit.regression import Batch, fitted, fitted_few
from lwcore.slimming.refit.targets import MOST, Take, Targets, first, sample, step_of
from lwcore.slimming.refit.walk import Chunks, Walk
from lwcore.slimming.weights import Weights

WIDE = 1536  # longer input vectors cost seconds to solve for
Kept = Callable[[str], Mapping[int, np.ndarray]]  # a dense tensor → axis → which indexes the slim one still has


class Step(Protocol):
    """One re-fit: which tensors it asks for, and what it does with them.

    Attributes:
        result: what the layer gives; it must not be computed before the re-fit.
        original: vectors of a tensor of the dense graph.
        now: tensors of the slim graph.
    """

    result: str
    original: Take
    now: tuple[str, ...]

    def refit(self, original: Chunks, now: Sequence[Chunks]) -> None:
        """Re-fit the layer in place from those vectors and the values of those tensors."""


@dataclass
class Pair:
    """A dense graph and its slim copy, in which tensors that mean the same have the same name.

    Attributes:
        kept: along which axes dense tensors were cut; nothing where both graphs have all channels.
        rows: the most vectors that a layer is fitted to.
        origin: gives the same answers as `dense`, some of its tensors in another basis; None when it is the same.
        turns: tensor of `dense` → the matrix that brings the channels of the origin's into its basis.
    """

    dense: Graph
    slim: Graph
    kept: Kept = field(default=lambda name: {})
    rows: int = MOST
    origin: Graph | None = None
    turns: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def source(self) -> Graph:
        """The graph whose tensors are asked for."""
        return self.origin or self.dense

    def trims(self, name: str, spare: int) -> dict[int, np.ndarray]:
        """Which indexes the slim graph still has of a dense tensor, along all axes that lost some but one."""
        return {axis: mask for axis, mask in self.kept(name).items() if axis != spare}

    def turned(self, name: str, rows: np.ndarray, kept: np.ndarray | None = None) -> np.ndarray:
        """Vectors of the origin's tensor in the basis of the dense graph; of the channels that are kept."""
        turn = self.turns.get(name)
        if turn is None:
            return rows if kept is None else rows[kept]
        return np.asarray((turn if kept is None else turn[kept]).astype(np.float32) @ rows)

    @cached_property
    def full(self) -> Weights:
        """The dense graph's weights."""
        return Weights(self.dense)

    @cached_property
    def small(self) -> Weights:
        """The slim graph's weights."""
        return Weights(self.slim)

    @cached_property
    def readers(self) -> dict[str, list[int]]:
        """Tensor → nodes of the slim graph that read it."""
        return self.slim.consumers()

    @cached_property
    def whole(self) -> dict[str, Linear]:
        """The dense graph's linear layers by their result."""
        return {layer.result: layer for layer in linear_layers(self.dense)}

    @cached_property
    def layers(self) -> list[Linear]:
        """The slim graph's linear layers."""
        return linear_layers(self.slim)


def refit(
    dense: Graph,
    slim: Graph,
    names: Sequence[str],
    inputs: Sequence[Feed],
    progress: Progress = silent,
    rows: int = MOST,
) -> None:
    """Re-fit layers of `slim` in place.

    Args:
        dense: the original; its tensors are the targets, by name.
        names: results of the layers to re-fit; those that the dense graph does not have are left out.
        inputs: calibration inputs in batches; every fourth checks the ridge.
        progress: told the share done after each layer.
        rows: vectors that each layer is fitted to.
    """
    pair = Pair(dense, slim, rows=rows)
    wanted = set(names) & set(dense.producers())
    layers = [layer for layer in pair.layers if layer.result in wanted and affordable(layer)]
    sweep(pair, direct(pair, layers, wanted, sum(map(count, inputs))), inputs, progress)


def affordable(layer: Linear) -> bool:
    """True when a layer's whole weight can be solved for at once."""
    return layer.width <= WIDE or not layer.kernel


def direct(pair: Pair, layers: Sequence[Linear], refitted: set[str], samples: int) -> list[Step]:
    """Steps that re-fit whole weights.

    Args:
        refitted: results of all the layers that the sweep changes.
        samples: how many they are fitted to.
    """
    paths = {layer.result: path(pair.dense, pair.slim, pair.readers, layer) for layer in layers}
    depth = depths(pair.slim, refitted)
    steps: list[Step] = []
    for layer in layers:
        way = paths[layer.result]
        if way and way.other and depth.get(way.other, 0) >= depth[layer.result]:
            way = None  # the other side of the sum is yet to be re-fitted: that layer will make the sum right
        steps.append(Direct(pair, layer, way, samples))
    return steps


def sweep(
    pair: Pair, steps: Sequence[Step], inputs: Sequence[Feed], progress: Progress = silent, known: Targets | None = None
) -> None:
    """Carry out steps, those nearest to the input first, running each operator of either graph at most once.

    Args:
        known: targets on the same inputs, gathered before.
    """
    depth = depths(pair.slim, {step.result for step in steps})
    steps = sorted(steps, key=lambda step: depth[step.result])
    now, targets = Walk(pair.slim, inputs), _targets(pair.source, steps, inputs, known or {})
    for done, (step, found) in enumerate(zip(steps, targets, strict=True)):
        step.refit(found, now.reach(step.now, [name for other in steps[done + 1 :] for name in other.now]))
        progress((done + 1) / len(steps), "compensating")


def _targets(source: Graph, steps: Sequence[Step], inputs: Sequence[Feed], known: Targets) -> Iterator[Chunks]:
    """What each step asks of the dense graph, known before or computed now."""
    keys = [step.original.key for step in steps]
    missing = [[step.original] for step, key in zip(steps, keys, strict=True) if key not in known]
    computed = sample(source, missing, inputs)
    for key in keys:
        if key is not None and key in known:
            yield known[key]
        else:
            yield next(computed)[0]


def depths(graph: Graph, marked: set[str]) -> dict[str, int]:
    """Of every tensor: how many marked tensors lie on the longest way to it, itself included."""
    depth: dict[str, int] = {}
    for node in graph.nodes:
        above = max((depth.get(name, 0) for name in reads(node)), default=0)
        depth.update((name, above + (name in marked)) for name in node.output)
    return depth


class Direct:
    """Re-fits a layer's whole weight, every kernel position by itself."""

    def __init__(self, pair: Pair, layer: Linear, way: Path | None, samples: int) -> None:
        self._pair, self._layer, self._path = pair, layer, way
        self.result = layer.result
        name = (way.total if way else None) or layer.result
        self._axis = layer.axis % len(pair.dense.shape(name))
        self._step = step_of(pair.whole.get(layer.result, layer), samples, pair.rows)
        self.original = Take(name, self._axis, self._step, pair.trims(name, self._axis))
        self.now: tuple[str, ...] = (layer.data, way.other) if way and way.other else (layer.data,)

    def refit(self, original: Chunks, now: Sequence[Chunks]) -> None:
        """Solve, and write the weight and the shift of its result."""
        layer, pair = self._layer, self._pair
        plain = layer.matrix(pair.small.read(layer.weight))
        home = bias_home(pair.small, pair.readers, layer)
        batches = self._batches(original, now)
        vectors = sum(batch.x.shape[2] for batch in batches)
        if not layer.kernel and layer.width > WIDE and vectors > WIDE:
            batches, vectors = [batch.thinned(-(-vectors // WIDE)) for batch in batches], WIDE
        few = not layer.kernel and vectors <= layer.width
        weight, shift = (fitted_few if few else fitted)(batches, plain, home is not None)
        if not np.isfinite(weight).all():
            raise refused(pair.slim, layer.index)
        growth = pair.small.write(layer.weight, layer.stored(weight))
        if home is not None:
            bias = pair.small.read(home.name)
            pair.small.rescale(home.name, bias + home.factor * shift.reshape(bias.shape), growth)

    def _batches(self, original: Chunks, now: Sequence[Chunks]) -> list[Batch]:
        layer, step, name, fixed = self._layer, self._step, self.original.name, self._fixed()
        way = self._path and self._path.beyond(fixed)
        kept = self._pair.kept(name).get(self._axis)
        edges = way.bounds() if way else (-np.inf, np.inf)
        found = []
        for place, x in enumerate(now[0]):
            start = first(place, step, layer.positions)
            y = self._pair.turned(name, original[place], kept)
            if way and way.other:
                beside = along(now[1][place], layer.axis, step, start)
                y, edges = way.wanted(y, beside), way.bounds(beside)
            else:
                y = y - fixed
            low, high = (self._grouped(edge) if isinstance(edge, np.ndarray) else edge for edge in edges)
            found.append(Batch(layer.vectors(x, step, start), self._grouped(y), low, high))
        return found

    def _grouped(self, rows: np.ndarray) -> np.ndarray:
        grouped: np.ndarray = rows.reshape(self._layer.groups, -1, rows.shape[-1])
        return grouped

    def _fixed(self) -> np.ndarray:
        """What the layer itself adds to its product, float32, shape (outputs, 1)."""
        layer, node = self._layer, self._layer.node
        if node.op_type == "MatMul" or len(node.input) < 3 or not node.input[2]:
            return np.zeros((layer.outputs, 1), np.float32)
        beta = float(attributes(node).get("beta", 1.0)) if node.op_type == "Gemm" else 1.0  # type: ignore[arg-type]
        bias = (beta * self._pair.small.read(node.input[2])).astype(np.float32)
        return np.broadcast_to(bias.reshape(-1), (layer.outputs,)).reshape(-1, 1)


def refused(graph: Graph, index: int) -> SlimError:
    """The error for values that are not finite."""
    return SlimError(
        f"Layer {graph.nodes[index].name!r} could not be re-fitted: expected finite values on the calibration samples, "
        "found others. Use other samples or compensate 'none'."
    )
