"""Re-fit linear layers one after another to what the dense model computed, in closed form, from unlabelled samples.

Both graphs are walked side by side; each layer's weight and bias become those that best give, from what the layer now
reads, what it gave in the dense model. So each layer also corrects what those before it got wrong. Where a layer writes
into a residual stream its target makes the *sum* right, so it also makes up for what the shortcut has lost.
Sources: ThiNet (ICCV 2017), Zhang et al. (TPAMI 2016: asymmetric reconstruction), GRAIL (arXiv 2602.23795).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from lwcore.errors import SlimError
from lwcore.graph import Graph, attributes, reads
from lwcore.progress import Progress, silent
from lwcore.runtime import Feed, count
from lwcore.slimming.refit.linear import ROWS, Linear, bias_home, linear_layers
from lwcore.slimming.refit.path import Path, path
from lwcore.slimming.refit.regression import Batch, fitted, fitted_few
from lwcore.slimming.refit.walk import Chunks, Walk
from lwcore.slimming.weights import Weights

WIDE = 1536  # longer input vectors cost seconds to solve for
ENOUGH = 40  # vectors for each weight of an output: more change the fit less than another draw of samples does
FEWEST = 4000
GOLDEN = 0.618034
AHEAD = 30_000_000  # values of the dense graph computed ahead of their use (120 MB)
Kept = Callable[[str], Mapping[int, np.ndarray]]  # a dense tensor → axis → which indexes the slim one still has


class Step(Protocol):
    """One re-fit: which tensors it asks for, and what it does with them.

    Attributes:
        result: what the layer gives; it must not be computed before the re-fit.
        original: tensors of the dense graph.
        now: tensors of the slim graph.
    """

    result: str
    original: tuple[str, ...]
    now: tuple[str, ...]

    def refit(self, original: Sequence[Chunks], now: Sequence[Chunks]) -> None:
        """Re-fit the layer in place from the values of those tensors."""


@dataclass
class Pair:
    """A dense graph and its slim copy, in which tensors that mean the same have the same name.

    Attributes:
        kept: along which axes dense tensors were cut; nothing where both graphs have all channels.
        rows: the most vectors that a layer is fitted to.
    """

    dense: Graph
    slim: Graph
    kept: Kept = field(default=lambda name: {})
    rows: int = ROWS

    def trimmed(self, name: str, values: np.ndarray, spare: int) -> np.ndarray:
        """A dense tensor's values where the slim one still has any; along the axis to spare, all of them."""
        for axis, mask in self.kept(name).items():
            if axis != spare:
                values = np.compress(mask, values, axis=axis)
        return values

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
    def layers(self) -> list[Linear]:
        """The slim graph's linear layers."""
        return linear_layers(self.slim)


def refit(
    dense: Graph,
    slim: Graph,
    names: Sequence[str],
    inputs: Sequence[Feed],
    progress: Progress = silent,
    rows: int = ROWS,
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
    sweep(pair, direct(pair, layers, wanted), inputs, progress)


def affordable(layer: Linear) -> bool:
    """True when a layer's whole weight can be solved for at once."""
    return layer.width <= WIDE or not layer.kernel


def direct(pair: Pair, layers: Sequence[Linear], refitted: set[str]) -> list[Step]:
    """Steps that re-fit whole weights.

    Args:
        refitted: results of all the layers that the sweep changes.
    """
    paths = {layer.result: path(pair.dense, pair.slim, pair.readers, layer) for layer in layers}
    depth = depths(pair.slim, refitted)
    steps: list[Step] = []
    for layer in layers:
        way = paths[layer.result]
        if way and way.other and depth.get(way.other, 0) >= depth[layer.result]:
            way = None  # the other side of the sum is yet to be re-fitted: that layer will make the sum right
        steps.append(Direct(pair, layer, way))
    return steps


def sweep(pair: Pair, steps: Sequence[Step], inputs: Sequence[Feed], progress: Progress = silent) -> None:
    """Carry out steps, those nearest to the input first, running each operator of either graph once."""
    depth = depths(pair.slim, {step.result for step in steps})
    steps = sorted(steps, key=lambda step: depth[step.result])
    now, targets = Walk(pair.slim, inputs), _targets(pair.dense, steps, inputs)
    for done, (step, found) in enumerate(zip(steps, targets, strict=True)):
        step.refit(found, now.reach(step.now, [name for other in steps[done + 1 :] for name in other.now]))
        progress((done + 1) / len(steps), "compensating")


def _targets(dense: Graph, steps: Sequence[Step], inputs: Sequence[Feed]) -> Iterator[list[Chunks]]:
    """What each step asks of the dense graph, computed for as many steps at once as `AHEAD` allows.

    Few long runs cost half of many short ones: the runtime fuses operators and keeps its own layout between them.
    """
    walk, samples, start = Walk(dense, inputs), sum(map(count, inputs)), 0
    while start < len(steps):
        stop, size = start, 0
        while stop < len(steps) and (stop == start or size <= AHEAD):
            size += samples * sum(math.prod(dense.shape(name)) for name in steps[stop].original)
            stop += 1
        names = list(dict.fromkeys(name for step in steps[start:stop] for name in step.original))
        found = dict(zip(names, walk.reach(names, [n for s in steps[stop:] for n in s.original]), strict=True))
        for step in steps[start:stop]:
            yield [found[name] for name in step.original]
        start = stop


def depths(graph: Graph, marked: set[str]) -> dict[str, int]:
    """Of every tensor: how many marked tensors lie on the longest way to it, itself included."""
    depth: dict[str, int] = {}
    for node in graph.nodes:
        above = max((depth.get(name, 0) for name in reads(node)), default=0)
        depth.update((name, above + (name in marked)) for name in node.output)
    return depth


class Direct:
    """Re-fits a layer's whole weight, every kernel position by itself."""

    def __init__(self, pair: Pair, layer: Linear, way: Path | None) -> None:
        self._pair, self._layer, self._path = pair, layer, way
        self.result = layer.result
        self.original: tuple[str, ...] = (way.total or layer.result,) if way else (layer.result,)
        self.now: tuple[str, ...] = (layer.data, way.other) if way and way.other else (layer.data,)

    def refit(self, original: Sequence[Chunks], now: Sequence[Chunks]) -> None:
        """Solve, and write the weight and the shift of its result."""
        layer, pair = self._layer, self._pair
        plain = layer.matrix(pair.small.read(layer.weight))
        home = bias_home(pair.small, pair.readers, layer)
        batches = self._batches(original, now)
        few = not layer.kernel and sum(batch.x.shape[2] for batch in batches) <= layer.width
        weight, shift = (fitted_few if few else fitted)(batches, plain, home is not None)
        if not np.isfinite(weight).all():
            raise refused(pair.slim, layer.index)
        growth = pair.small.write(layer.weight, layer.stored(weight))
        if home is not None:
            bias = pair.small.read(home.name)
            pair.small.rescale(home.name, bias + home.factor * shift.reshape(bias.shape), growth)

    def _batches(self, original: Sequence[Chunks], now: Sequence[Chunks]) -> list[Batch]:
        layer, way = self._layer, self._path
        step = layer.step(sum(map(len, now[0])), self._rows())
        fixed = self._fixed()
        found = []
        for place, x in enumerate(now[0]):
            start = int(GOLDEN * place * step) % min(step, layer.positions)  # batches look at different positions
            y = self._taken(original[0][place], (step, start), self.original[0])
            beside = self._taken(now[1][place], (step, start)) if way and len(now) > 1 else np.zeros((1, 1), np.float32)
            low: np.ndarray | float = -np.inf
            high: np.ndarray | float = np.inf
            if way:
                y = way.wanted(y, beside) if way.other else y
                low, high = (self._grouped(edge - fixed) for edge in way.bounds(beside)) if way.clips else (low, high)
            found.append(Batch(layer.vectors(x, step, start), self._grouped(y - fixed), low, high))
        return found

    def _rows(self) -> int:
        """Vectors to fit to: a weight with few inputs needs few."""
        width = self._layer.width
        if not self._layer.kernel and width > WIDE:
            return WIDE
        return min(self._pair.rows, max(ENOUGH * width, FEWEST))

    def _taken(self, values: np.ndarray, at: tuple[int, int], dense: str | None = None) -> np.ndarray:
        """A tensor like the layer's result as vectors of its channels, shape (outputs, n); a dense one is cut first."""
        axis = self._layer.axis % values.ndim
        if dense is not None:
            values = self._pair.trimmed(dense, values, spare=axis)
        rows = replace(self._layer, groups=1).targets(values, *at)[0]
        mask = None if dense is None else self._pair.kept(dense).get(axis)
        taken: np.ndarray = rows if mask is None else rows[mask]
        return taken

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
