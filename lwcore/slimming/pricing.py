"""Pricing: exact parameters and MACs after a removal, from counts alone, fast enough to try hundreds of removals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from lwcore.analysis.cost import Cost, macs, parameters
from lwcore.analysis.coupling import couple
from lwcore.graph import Graph, Shape, per_model
from lwcore.model import Model


@dataclass(frozen=True)
class Prices:
    """What pricing needs of a model, gathered once.

    Units of one group sit in the same places, so the size of every place is linear in the counts: `size − times @
    removed`.

    Attributes:
        places: (tensor or constant, axis), one a row of `times`.
        times: indexes that one channel of each group takes in each place, shape (places, groups).
        shapes: of the tensors and constants that are counted, before the removal.
        nodes: operators with MACs.
        parameters: constants with trained values.
        items: constant → bytes of one element.
    """

    groups: tuple[str, ...]
    places: tuple[tuple[str, int], ...]
    times: np.ndarray
    shapes: Mapping[str, Shape]
    nodes: tuple[NodeProto, ...]
    parameters: tuple[str, ...]
    items: Mapping[str, int]

    def after(self, counts: Mapping[str, int]) -> dict[str, Shape]:
        """Shapes once so many channels of each group are gone."""
        gone = self.times @ np.array([counts.get(name, 0) for name in self.groups], dtype=np.int64)
        shapes = dict(self.shapes)
        for row in np.flatnonzero(gone):
            name, axis = self.places[row]
            shape = shapes[name]
            shapes[name] = (*shape[:axis], shape[axis] - int(gone[row]), *shape[axis + 1 :])
        return shapes


def price(model: Model, counts: Mapping[str, int], size_bytes: int = 0) -> Cost:
    """Cost after removing so many channels of each group; exact but for the file size.

    Args:
        size_bytes: of the file before; the estimate after is less by the bytes of the removed weights.
    """
    prices = _prices(model)
    shapes = prices.after(counts)
    stored = sum(math.prod(prices.shapes[n]) * item for n, item in prices.items.items())
    left = sum(math.prod(shapes[n]) * item for n, item in prices.items.items())
    return Cost(
        params=sum(math.prod(shapes[n]) for n in prices.parameters),
        macs=sum(macs(node, shapes) for node in prices.nodes),
        weight_bytes=left,
        size_bytes=max(0, size_bytes - stored + left),
    )


def shapes_without(model: Model, counts: Mapping[str, int]) -> dict[str, Shape]:
    """Shapes of the model's constants, and of the tensors its MACs depend on, after removing so many channels."""
    return _prices(model).after(counts)


@per_model(maxsize=24)
def _prices(model: Model) -> Prices:
    graph, coupling = Graph.view(model), couple(model)
    nodes = tuple(node for node in graph.nodes if macs(node, graph.shapes))
    counted = {name for node in nodes for name in (*node.input, *node.output)} | graph.constants.keys()
    owner = np.full(coupling.units, len(coupling.groups))
    for number, group in enumerate(coupling.groups):
        owner[group.units] = number
    sizes = np.array([g.channels for g in coupling.groups], dtype=np.int64)
    held = [((name, axis), classes) for name, axis, classes in coupling.places() if name in counted]
    times = np.zeros((len(held), len(sizes)), dtype=np.int64)
    for row, (_, classes) in enumerate(held):
        times[row] = np.bincount(owner[classes], minlength=len(sizes) + 1)[:-1] // np.maximum(sizes, 1)
    return Prices(
        groups=tuple(g.name for g in coupling.groups),
        places=tuple(place for place, _ in held),
        times=times,
        shapes={n: s for n, s in graph.shapes.items() if n in counted},
        nodes=nodes,
        parameters=tuple(parameters(graph)),
        items={n: a.itemsize for n, a in graph.constants.items()},
    )
