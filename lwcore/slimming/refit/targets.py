"""What the dense model gives at the positions that layers are fitted at: the targets of every re-fit.

They depend on the model and the samples alone, so they are gathered in one run and serve every amount, as long as they
fit into the memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.runtime import Feed, count
from lwcore.samples import SampleSet
from lwcore.slimming.refit.linear import Linear, along, linear_layers
from lwcore.slimming.refit.path import path
from lwcore.slimming.refit.walk import Chunks, Walk

ENOUGH, FEWEST, MOST = 30, 2500, 3000  # vectors: for each weight of an output, and in all; 5000 were not better
AHEAD = 30_000_000  # values held ahead of their use (120 MB)
GOLDEN = 0.618034

Key = tuple[str, int, int]  # a tensor, the axis of its channels, the step between positions
Targets = Mapping[Key, Chunks]


@dataclass(frozen=True)
class Take:
    """What a re-fit asks of the dense graph: one tensor's vectors of channels at every `step`-th position.

    Attributes:
        trim: axis → which of its indexes are left, for axes other than the channels'; cut before positions are counted.
        vectors: how a batch becomes vectors, where it is not position by position.
    """

    name: str
    axis: int
    step: int
    trim: Mapping[int, np.ndarray] = field(default_factory=dict)
    vectors: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def key(self) -> Key | None:
        """Under which it is remembered; None when it belongs to one removal only."""
        return None if self.trim or self.vectors else (self.name, self.axis, self.step)

    def rows(self, values: np.ndarray, place: int) -> np.ndarray:
        """Of batch number `place`: shape (channels, n), float32."""
        for axis, mask in self.trim.items():
            values = np.compress(mask, values, axis=axis)
        if self.vectors:
            return self.vectors(values)
        positions = math.prod(values.shape[1:]) // values.shape[self.axis]
        return along(values, self.axis, self.step, first(place, self.step, positions))


def first(place: int, step: int, positions: int) -> int:
    """Where batch number `place` begins: batches look at different positions."""
    return int(GOLDEN * place * step) % min(step, positions)


def step_of(layer: Linear, samples: int, most: int = MOST) -> int:
    """Between the positions of a dense layer's result; a weight with few inputs needs few vectors."""
    return layer.step(samples, min(most, max(ENOUGH * layer.width, FEWEST)))


def sample(graph: Graph, wanted: Sequence[Sequence[Take]], inputs: Sequence[Feed]) -> Iterator[list[Chunks]]:
    """What each of some steps asks of a graph, computed for as many steps at once as `AHEAD` allows.

    Few long runs cost half of many short ones: the runtime fuses operators and keeps its own layout between them.
    """
    walk, start = Walk(graph, inputs), 0
    while start < len(wanted):
        stop, size = start, 0.0
        while stop < len(wanted) and (stop == start or size <= AHEAD):
            size += sum(_held(graph, take, inputs) for take in wanted[stop])
            stop += 1
        takes = [take for asked in wanted[start:stop] for take in asked]
        names, later = dict.fromkeys(t.name for t in takes), [t.name for asked in wanted[stop:] for t in asked]
        found: list[Chunks] = [[] for _ in takes]
        for place, values in enumerate(walk.visit(list(names), later)):
            for chunks, take in zip(found, takes, strict=True):
                chunks.append(take.rows(values[take.name], place))
        each = iter(found)
        yield from ([next(each) for _ in asked] for asked in wanted[start:stop])
        start = stop


def _held(graph: Graph, take: Take, inputs: Sequence[Feed]) -> float:
    """Values that a take holds: the whole tensor of one batch, and its vectors of all of them."""
    whole = sum(map(count, inputs)) * math.prod(graph.shape(take.name))
    return whole / len(inputs) + whole / take.step


# -- remembered --------------------------------------------------------------------------------------------------------


def gather_targets(model: Model, samples: SampleSet, inputs: Sequence[Feed]) -> Targets:
    """The targets of all of a model's layers on the first of its samples, remembered for the last few pairs.

    Nothing where they are more than `AHEAD` values: each re-fit then asks for its own.
    """
    used = sum(map(count, inputs))
    key = (*samples.key(model), used)
    if key not in _TARGETS:
        graph = Graph.view(model)
        takes = _listed(graph, used)
        fits = sum(used * math.prod(graph.shape(take.name)) / take.step for take in takes) <= AHEAD
        found = list(sample(graph, [[take] for take in takes], inputs)) if fits else []
        keep_targets(
            model, samples, used, {t.key: vectors for t, (vectors,) in zip(takes, found, strict=False) if t.key}
        )
    return _TARGETS[key]


def keep_targets(model: Model, samples: SampleSet, used: int, known: Targets) -> None:
    """Remember targets on the first `used` samples, gathered before, perhaps by another process."""
    while len(_TARGETS) >= 3:
        _TARGETS.pop(next(iter(_TARGETS)))
    _TARGETS[*samples.key(model), used] = known


def pack(used: int, known: Targets) -> dict[str, np.ndarray]:
    """Targets on the first `used` samples as a few arrays; `unpack` reads them back."""
    about = [[*key, len(chunks[0]), [chunk.shape[1] for chunk in chunks]] for key, chunks in known.items()]
    values = [chunk.reshape(-1) for chunks in known.values() for chunk in chunks]
    return {
        "about": np.frombuffer(json.dumps([used, about]).encode(), np.uint8),
        "values": np.concatenate(values) if values else np.zeros(0, np.float32),
    }


def unpack(arrays: Mapping[str, np.ndarray]) -> tuple[int, Targets]:
    """The inverse of `pack`."""
    (used, about), values, start = json.loads(arrays["about"].tobytes()), arrays["values"], 0
    known: dict[Key, Chunks] = {}
    for name, axis, step, channels, lengths in about:
        chunks = known.setdefault((name, axis, step), [])
        for length in lengths:
            chunks.append(values[start : start + channels * length].reshape(channels, length))
            start += channels * length
    return used, known


def _listed(graph: Graph, samples: int) -> list[Take]:
    """Of every layer the result, and the sum with a shortcut that it goes into."""
    readers, found = graph.consumers(), list[Take]()
    for layer in linear_layers(graph):
        way = path(graph, graph, readers, layer)
        for name in (layer.result, *([way.total] if way and way.total else [])):
            found.append(Take(name, layer.axis % len(graph.shape(name)), step_of(layer, samples)))
    return list({take.key: take for take in found}.values())


_TARGETS: dict[tuple[str, str, str, int], Targets] = {}
