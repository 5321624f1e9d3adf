"""Pricing: exact parameters, MACs and bytes after a removal, from counts alone, thousands of removals in milliseconds.

Every number priced here is a sum of products of sizes (a convolution's MACs are channels in × channels out ×
positions × kernel), and units of one group sit in the same places, so each size is linear in the counts.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto
from scipy.sparse import coo_array, csr_array

from lwcore.analysis.cost import Cost, Product, constant_bytes, products, values
from lwcore.analysis.coupling import Coupling, couple
from lwcore.graph import Graph, Shape, per_model
from lwcore.model import Model

Place = tuple[str, int]  # a tensor or constant, and an axis of it


@dataclass(frozen=True)
class Products:
    """A sum of products whose factors are linear in the channels removed.

    Attributes:
        constant: what no removal changes.
        scales: fixed factor of each product, shape (products,).
        starts: where each product's factors begin, shape (products,).
        sizes: of the factors before the removal, shape (factors,).
        times: by how much each factor falls with one channel of each group, int64, shape (factors, groups); sparse,
            because a factor follows few groups, and a network may have thousands.
    """

    constant: int
    scales: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    times: csr_array

    def each(self, removed: np.ndarray) -> np.ndarray:
        """Every product after removing so many channels of each group: shape (…, groups) → (…, products)."""
        if not len(self.starts):
            return np.zeros((*removed.shape[:-1], 0), dtype=np.int64)
        rows = removed.reshape(-1, removed.shape[-1]).astype(np.int64)
        factors = self.sizes - np.ascontiguousarray((self.times @ rows.T).T).reshape(*removed.shape[:-1], -1)
        products: np.ndarray = np.multiply.reduceat(factors, self.starts, axis=-1) * self.scales
        return products

    def total(self, removed: np.ndarray) -> np.ndarray:
        """The sum, shape (…, groups) → (…)."""
        total: np.ndarray = self.constant + self.each(removed).sum(axis=-1)
        return total


@dataclass(frozen=True)
class Prices:
    """What pricing needs of a model, gathered once.

    Attributes:
        groups: names, in the order of every `removed` array.
        places: (tensor or constant, axis), one a row of `times`.
        times: indexes that one channel of each group takes in each place, int64, shape (places, groups).
        shapes: of the tensors and constants, before the removal.
        macs, params, bytes: each as a sum of products.
        values: numbers that the operators write, for batch 1.
    """

    groups: tuple[str, ...]
    places: tuple[Place, ...]
    times: csr_array
    shapes: Mapping[str, Shape]
    macs: Products
    params: Products
    bytes: Products
    values: Products

    def removed(self, counts: Mapping[str, int]) -> np.ndarray:
        """Counts by name as an array."""
        return np.array([counts.get(name, 0) for name in self.groups], dtype=np.int64)

    def after(self, counts: Mapping[str, int]) -> dict[str, Shape]:
        """Shapes once so many channels of each group are gone."""
        gone = self.times @ self.removed(counts)
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
    known = prices(model)
    removed = known.removed(counts)
    stored, left = int(known.bytes.total(np.zeros_like(removed))), int(known.bytes.total(removed))
    return Cost(
        params=int(known.params.total(removed)),
        macs=int(known.macs.total(removed)),
        weight_bytes=left,
        size_bytes=max(0, size_bytes - stored + left),
    )


def shapes_without(model: Model, counts: Mapping[str, int]) -> dict[str, Shape]:
    """Shapes of the model's tensors and constants after removing so many channels."""
    return prices(model).after(counts)


@per_model(maxsize=24)
def prices(model: Model) -> Prices:
    """Everything pricing needs; remembered by fingerprint."""
    graph, coupling = Graph.view(model), couple(model)
    work = [(node, product) for node in graph.nodes for product in products(node) if product(node, graph.shapes)]
    shapes = dict(graph.shapes)
    places, times = _places(coupling, shapes)
    row = {place: number for number, place in enumerate(places)}
    whole = {name: _axes(row, name, shapes) for name in shapes}
    written = [name for node in graph.nodes for name in node.output if name in shapes]
    return Prices(
        groups=tuple(g.name for g in coupling.groups),
        places=places,
        times=times,
        shapes=shapes,
        macs=_products(
            ((product(node, shapes), _mac_factors(node, product, shapes, row)) for node, product in work),
            places,
            times,
            shapes,
        ),
        params=_products(((count, whole[n]) for n, count in values(graph).items()), places, times, shapes),
        bytes=_products(((constant_bytes(graph, n), whole[n]) for n in graph.constants), places, times, shapes),
        values=_products(((math.prod(shapes[n]), whole[n]) for n in written), places, times, shapes),
    )


def _places(coupling: Coupling, counted: Mapping[str, Shape]) -> tuple[tuple[Place, ...], csr_array]:
    owner = np.full(coupling.units, len(coupling.groups))
    for number, group in enumerate(coupling.groups):
        owner[group.units] = number
    sizes = np.array([g.channels for g in coupling.groups], dtype=np.int64)
    held = [((name, axis), classes) for name, axis, classes in coupling.places() if name in counted]
    lengths = [len(classes) for _, classes in held]
    rows, columns = np.repeat(np.arange(len(held)), lengths), owner[np.concatenate([*(c for _, c in held), sizes[:0]])]
    free = columns < len(sizes)
    found = (np.ones(int(free.sum()), np.int64), (rows[free], columns[free]))
    times = csr_array(coo_array(found, shape=(len(held), len(sizes))))  # adds up what lies in one place
    times.data //= sizes[times.indices]
    times.eliminate_zeros()
    return tuple(place for place, _ in held), times


def _axes(row: Mapping[Place, int], name: str, shapes: Mapping[str, Shape]) -> list[int]:
    """Rows of a tensor's axes that follow a removal."""
    return [row[name, axis] for axis in range(len(shapes[name])) if (name, axis) in row]


def _mac_factors(node: NodeProto, product: Product, shapes: dict[str, Shape], row: Mapping[Place, int]) -> list[int]:
    """Rows of the sizes that a node's MACs are proportional to, found by doubling each: no operator is special."""
    before, found = product(node, shapes), list[int]()
    for name in dict.fromkeys((*node.input, *node.output)):
        shape = shapes.get(name, ())
        for axis, size in enumerate(shape):
            if (name, axis) in row:
                doubled = ChainMap({name: (*shape[:axis], 2 * size, *shape[axis + 1 :])}, shapes)
                found += [row[name, axis]] * round(math.log2(product(node, doubled) / before))
    return found


def _products(
    terms: Iterable[tuple[int, list[int]]], places: tuple[Place, ...], times: csr_array, shapes: Mapping[str, Shape]
) -> Products:
    """A sum of products from each one's value before the removal and the rows of its factors that change."""
    before = np.array([shapes[name][axis] for name, axis in places], dtype=np.int64)
    follows = np.diff(times.indptr) > 0
    constant, scales, starts, rows = 0, list[int](), list[int](), list[int]()
    for value, factors in terms:
        changing = [number for number in factors if follows[number]]
        if not changing:
            constant += value
            continue
        scales.append(-(-value // math.prod(int(before[number]) for number in changing)))  # half bytes count as whole
        starts.append(len(rows))
        rows += changing
    return Products(
        constant=constant,
        scales=np.array(scales, dtype=np.int64),
        starts=np.array(starts, dtype=np.int64),
        sizes=before[rows],
        times=times[rows],
    )
