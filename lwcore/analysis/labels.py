"""Labels: which channels of which tensors must live or die together.

Every index that can be removed from a weight's output dimension gets a fresh integer, and the operators carry those
integers to whatever they touch. A tensor has labels for each of its axes on its own (an MLP-Mixer's tokens and its
width): removing a label takes whole slices away. Where a reshape would split one axis' labels over two (heads from head
width), labels are united until they vary along one of them, so that what is left stays rectangular. Label 0 is frozen.

Uniting only records a pair: the classes are found once, at the end, by connected components, so the analysis is
linear in the number of nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from onnx import NodeProto
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lwcore.graph import Graph, Shape, attributes

FROZEN = 0
Ids = np.ndarray


@dataclass(frozen=True)
class Reason:
    """Why some labels are frozen; `meant` tells a property of the network from a gap in our rules."""

    layer: str
    text: str
    meant: bool
    ids: Ids


@dataclass(frozen=True)
class Consumer:
    """A linear operator that reads labelled channels: index `i` of `constant`'s `axis` multiplies channel `ids[i]`.

    With `groups` above 1 the index counts channels within each group of a grouped convolution.
    """

    node: int
    constant: str
    axis: int
    tensor: str
    ids: Ids
    groups: int = 1


@dataclass
class Labelling:
    """The state while the rules walk the graph.

    Attributes:
        whole: where a reshape splits an axis in two, the outer part (whole heads) keeps its labels, not the longer one.
        tensors: axis → label of each index, for every tensor that has any.
        cuts: (constant, axis) → ids of its indexes: the places that must be cut.
        producers: (node, constant, axis) that gave fresh labels.
        grouped: nodes that count groups of channels in an attribute and lose whole groups → channels in one group.
        normalised: nodes that compute statistics over a removable axis.
        contracted: nodes that sum over a removable axis without a weight matrix (queries times keys).
        quantized: output of DequantizeLinear over a constant → (constant, scale, zero point, axis of the scale).
        copies: result of an Expand or Tile (and of what only passes it on or reshapes it) → the node that made it.
        unknown: tensors whose lack of labels is due to a missing rule.
        pieces: parts of an axis of which something must stay.
    """

    graph: Graph
    whole: bool = False
    tensors: dict[str, dict[int, Ids]] = field(default_factory=dict)
    cuts: dict[tuple[str, int], Ids] = field(default_factory=dict)
    producers: list[tuple[int, str, int]] = field(default_factory=list)
    consumers: list[Consumer] = field(default_factory=list)
    grouped: dict[int, int] = field(default_factory=dict)
    normalised: set[int] = field(default_factory=set)
    contracted: set[int] = field(default_factory=set)
    quantized: dict[str, tuple[str, str, str, int]] = field(default_factory=dict)
    copies: dict[str, int] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    pieces: list[Ids] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)
    _pairs: list[tuple[Ids, Ids]] = field(default_factory=list)
    _next: int = 1

    @cached_property
    def readers(self) -> dict[str, list[int]]:
        """Tensor → nodes that read it."""
        return self.graph.consumers()

    # -- what rules say ------------------------------------------------------------------------------------------

    def fresh(self, count: int) -> Ids:
        """New labels, one a channel."""
        ids = np.arange(self._next, self._next + count)
        self._next += count
        return ids

    def unite(self, a: Ids, b: Ids) -> None:
        """Channels that must live or die together, element by element."""
        self._pairs.append(tuple(np.broadcast_arrays(a, b)))  # type: ignore[arg-type]

    def freeze(self, ids: Ids, node: NodeProto, text: str, meant: bool = True) -> None:
        """Channels that stay, and why."""
        live = np.unique(ids[ids != FROZEN])
        if live.size:
            self.reasons.append(Reason(node.name, text, meant, live))

    def freeze_tensor(self, name: str, node: NodeProto, text: str, meant: bool = True) -> None:
        """Freeze every label of a tensor."""
        for ids in self.along(name).values():
            self.freeze(ids, node, text, meant)

    def cut(self, constant: str, axis: int, ids: Ids) -> None:
        """Index `i` of this axis of a constant is removed with label `ids[i]`; a second claim unites the two."""
        base, scale, zero, scale_axis = self.quantized.get(constant, (constant, "", "", -1))
        places = [(base, axis)]
        if axis == scale_axis:
            places += [(name, 0) for name in (scale, zero) if name]
        for place in places:
            if place in self.cuts:
                self.unite(self.cuts[place], ids)
            else:
                self.cuts[place] = ids

    def produce(self, node: int, constant: str, axis: int) -> Ids:
        """Fresh labels for the output channels held by one axis of a weight."""
        size = self.shape(constant)[axis]
        if size == 1:  # a lone channel can never go
            return np.zeros(1, dtype=np.int64)
        ids = self.fresh(size)
        self.cut(constant, axis, ids)
        self.producers.append((node, constant, axis))
        return ids

    def consume(self, node: int, constant: str, axis: int, tensor: str, ids: Ids, groups: int = 1) -> None:
        """A linear operator's weight reads these channels along one of its axes."""
        self.cut(constant, axis, ids)
        self.consumers.append(Consumer(node, constant, axis, tensor, ids, groups))

    def put(self, name: str, axis: int, ids: Ids | None) -> None:
        """Write down the labels of a tensor along an axis (nothing when there are none that could be removed)."""
        if ids is not None and name and ids.size > 1 and bool((ids != FROZEN).any()):
            self.tensors.setdefault(name, {})[axis] = ids

    # -- what rules ask ------------------------------------------------------------------------------------------

    def along(self, name: str) -> Mapping[int, Ids]:
        """Axis → labels of a tensor; empty when nothing of it can be removed."""
        return self.tensors.get(name, {})

    def on(self, name: str, axis: int) -> Ids | None:
        """Labels of a tensor along one axis, or None."""
        return self.along(name).get(axis)

    def is_constant(self, name: str) -> bool:
        """True for weights, quantized ones included."""
        return name in self.graph.constants or name in self.quantized

    def value(self, node: NodeProto, position: int) -> np.ndarray | None:
        """The constant at an input position, None when absent or computed."""
        return self.graph.constants.get(node.input[position]) if position < len(node.input) else None

    def shape(self, name: str) -> Shape:
        """Concrete shape of a tensor at batch 1."""
        return self.graph.shape(name)

    def option(self, node: NodeProto, name: str, default: object = None) -> object:
        """An attribute or its default."""
        return attributes(node).get(name, default)

    # -- the end -------------------------------------------------------------------------------------------------

    def classes(self) -> tuple[np.ndarray, Callable[[int], Reason | None]]:
        """Class of every label (class 0 is frozen), and a look-up of the first reason why a label is frozen."""
        rows = [np.asarray(a).ravel() for a, _ in self._pairs]
        columns = [np.asarray(b).ravel() for _, b in self._pairs]
        free = self._components(rows, columns, without_frozen=True)
        cause: dict[int, Reason] = {}
        for reason in self.reasons:
            for component in np.unique(free[reason.ids]):
                cause.setdefault(int(component), reason)
            rows.append(reason.ids)
            columns.append(np.zeros_like(reason.ids))
        final = self._components(rows, columns, without_frozen=False)
        if final[FROZEN] != 0:
            swap = final[FROZEN]
            final = np.where(final == swap, -1, np.where(final == 0, swap, final))
            final = np.where(final == -1, 0, final)
        return final, lambda label: cause.get(int(free[label])) if label else None

    def _components(self, rows: list[Ids], columns: list[Ids], *, without_frozen: bool) -> np.ndarray:
        row = np.concatenate([*rows, np.zeros(0, np.int64)])
        column = np.concatenate([*columns, np.zeros(0, np.int64)])
        if without_frozen:
            live = (row != FROZEN) & (column != FROZEN)
            row, column = row[live], column[live]
        links = coo_array((np.ones(row.size, np.int8), (row, column)), shape=(self._next, self._next))
        return np.asarray(connected_components(links, directed=False)[1])
