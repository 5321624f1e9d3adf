"""Coupling: what must shrink together: units (channels that go as one), groups of like units, and what is frozen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from onnx import NodeProto

from lwcore.analysis import (  # noqa: F401  (they register their rules)
    attention,
    channelwise,
    contractions,
    fused,
    movement,
    recurrent,
)
from lwcore.analysis.labels import FROZEN, Consumer, Labelling, Reason
from lwcore.analysis.rules import RULES, operator_of
from lwcore.graph import Graph, per_model, reads
from lwcore.model import Model


@dataclass(frozen=True, kw_only=True)
class Group:
    """Units that sit in the same places, so that removing any one of them saves the same.

    Attributes:
        name: the first layer that makes these channels; unique in a model.
        channels: how many units there are; at least one always stays.
        layers: every layer with a constant that shrinks with the group, in the order of the graph.
        units: class numbers, one a channel.
    """

    name: str
    channels: int
    layers: tuple[str, ...]
    units: np.ndarray = field(repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """A layer some of whose output channels stay, and why; `meant` is False where only a rule is missing."""

    layer: str
    reason: str
    meant: bool
    channels: int


@dataclass(frozen=True, kw_only=True)
class Coupling:
    """The result of the analysis; arrays hold the class of each index, 0 where it is frozen.

    Attributes:
        groups: what can be pruned, in the order of the graph.
        frozen: what cannot, with reasons.
        cuts: (constant, axis) → class of each index.
        tensors: tensor → axis → class of each index, for every tensor that shrinks.
        consumers: linear operators that read removable channels, in the order of the graph.
        grouped: node index → channels in one group of a node that loses whole groups (its attribute follows its input).
        normalised: nodes that compute statistics over a removable axis (removing is then not the same as zeroing).
        contracted: nodes without a weight matrix that sum over a removable axis (queries times keys).
        producers: (constant, axis) of the weights whose outputs the channels are.
        units: number of classes, the frozen class included.
        mirrors: result of a DequantizeLinear over a stored weight → that weight; the two have one shape.
    """

    groups: tuple[Group, ...]
    frozen: tuple[Frozen, ...]
    cuts: Mapping[tuple[str, int], np.ndarray] = field(repr=False)
    tensors: Mapping[str, Mapping[int, np.ndarray]] = field(repr=False)
    consumers: tuple[Consumer, ...] = field(repr=False)
    grouped: Mapping[int, int] = field(repr=False)
    normalised: frozenset[int]
    contracted: frozenset[int]
    producers: frozenset[tuple[str, int]] = field(repr=False)
    units: int
    mirrors: Mapping[str, str] = field(repr=False)

    def places(self) -> Iterator[tuple[str, int, np.ndarray]]:
        """Every (tensor or constant, axis, class of each index) whose size follows a removal."""
        twins: dict[str, list[str]] = defaultdict(list)
        for result, weight in self.mirrors.items():
            twins[weight].append(result)
        for (name, axis), classes in self.cuts.items():
            for same in (name, *twins[name]):
                yield same, axis, classes
        for name, held in self.tensors.items():
            for axis, classes in held.items():
                yield name, axis, classes

    @cached_property
    def _stretched(self) -> tuple[list[tuple[str, int]], np.ndarray, np.ndarray]:
        """All places, their classes one after another, and where each place's begin (and the last one's end)."""
        held = list(self.places())
        ends = np.cumsum([0, *(len(classes) for _, _, classes in held)])
        every = np.concatenate([np.zeros(0, np.int64), *(classes for _, _, classes in held)]).astype(np.int64)
        return [(name, axis) for name, axis, _ in held], every, ends

    def sizes(self, keep: np.ndarray) -> Iterator[tuple[str, int, int]]:
        """Every (tensor or constant, axis, size) once only the classes in the bool mask `keep` stay."""
        held, classes, ends = self._stretched
        kept = np.concatenate([[0], np.cumsum(keep[classes])])[ends]
        for (name, axis), size in zip(held, np.diff(kept).tolist(), strict=True):
            yield name, axis, size

    def group(self, name: str) -> Group | None:
        """The group of that name, or None."""
        return next((g for g in self.groups if g.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """Groups and frozen layers as plain data."""
        return {
            "groups": [{"name": g.name, "channels": g.channels, "layers": list(g.layers)} for g in self.groups],
            "frozen": [
                {"layer": f.layer, "reason": f.reason, "meant": f.meant, "channels": f.channels} for f in self.frozen
            ],
        }


@per_model(maxsize=24)
def couple(model: Model) -> Coupling:
    """Find what can be removed from a model and what must go with it; remembered by fingerprint."""
    graph = Graph.view(model)
    return _coupled(graph, label(graph))


@per_model(maxsize=8)
def couple_heads(model: Model) -> Coupling:
    """The same where channels are split over heads and their width, and whole heads are what goes."""
    graph = Graph.view(model)
    return _coupled(graph, label(graph, whole=True))


def _coupled(graph: Graph, lab: Labelling) -> Coupling:
    classes, why = lab.classes()
    cuts = {place: classes[ids] for place, ids in lab.cuts.items()}
    tensors = {name: {axis: classes[ids] for axis, ids in held.items()} for name, held in lab.tensors.items()}
    groups = _groups(graph, lab, cuts, [classes[ids] for ids in lab.pieces])
    consumers = tuple(Consumer(c.node, c.constant, c.axis, c.tensor, classes[c.ids], c.groups) for c in lab.consumers)
    return Coupling(
        groups=groups,
        frozen=tuple(_frozen(graph, lab, classes, why)),
        cuts=cuts,
        tensors=tensors,
        consumers=consumers,
        grouped=lab.grouped,
        normalised=frozenset(lab.normalised),
        contracted=frozenset(lab.contracted),
        producers=frozenset((_base(lab, constant), axis) for _, constant, axis in lab.producers),
        units=int(classes.max()) + 1,
        mirrors={name: held[0] for name, held in lab.quantized.items()},
    )


def label(graph: Graph, whole: bool = False) -> Labelling:
    """Walk the graph once, every operator passing labels on by its rule."""
    lab = Labelling(graph, whole=whole)
    for index, node in enumerate(graph.nodes):
        names = list(reads(node))
        operator, known = operator_of(node), len(lab.reasons)
        if operator in RULES and not _unknown_shape(graph, [*names, *node.output]):
            RULES[operator](lab, index, node)
            ignorant = not lab.unknown.isdisjoint(names) or not all(r.meant for r in lab.reasons[known:])
        else:
            ignorant = _without_rule(lab, node, names)
        if ignorant:
            lab.unknown.update(name for name in node.output if not lab.along(name))
    for name in graph.outputs:
        if lab.along(name):
            lab.freeze_tensor(name, graph.nodes[graph.producers()[name]], "it is the network's output")
    return lab


def _without_rule(lab: Labelling, node: NodeProto, names: list[str]) -> bool:
    """Freeze what reaches a node we know nothing of; True when its result could have had labels."""
    for name in names:
        lab.freeze_tensor(name, node, f"no rule for operator {node.op_type}", meant=False)
    _pin_constants(lab, names)
    return any(lab.along(n) or n in lab.unknown or len(lab.graph.shapes.get(n, ())) > 1 for n in names)


def _unknown_shape(graph: Graph, names: list[str]) -> bool:
    return any(name and name not in graph.shapes for name in names)


def _pin_constants(lab: Labelling, names: list[str]) -> None:
    """A weight that is also read by an operator without a rule keeps its shape."""
    for name in names:
        if name in lab.graph.constants:
            for axis, size in enumerate(lab.shape(name)):
                if size > 1:
                    lab.cut(name, axis, np.full(size, FROZEN))


def _groups(
    graph: Graph, lab: Labelling, cuts: Mapping[tuple[str, int], np.ndarray], pieces: list[np.ndarray]
) -> tuple[Group, ...]:
    """Units with the same places form a group. Pieces of a split count as places, so that none is emptied."""
    places = [*cuts.values(), *(piece for piece in pieces if (piece != FROZEN).all())]
    units, place = _occurrences(places)
    if not units.size:
        return ()
    makers = _makers(lab, cuts, int(units.max()) + 1)
    families = [f for f in _alike(units, place) if len(f) > 1 and makers[f[0]] >= 0]  # a lone channel always stays
    readers, names = lab.readers, [name for name, _ in cuts]
    found = []
    for family, held in zip(families, _places_of(units, place, [int(f[0]) for f in families]), strict=True):
        nodes = sorted({i for p in held if p < len(names) for i in readers.get(names[p], ())})
        lead = int(makers[family[0]])
        layers = tuple(graph.nodes[i].name for i in nodes)
        found.append((lead, Group(name=graph.nodes[lead].name, channels=len(family), units=family, layers=layers)))
    found.sort(key=lambda item: (item[0], int(item[1].units[0])))
    return tuple(_named_apart(group for _, group in found))


def _occurrences(places: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Every unit in every place, and the number of that place."""
    units = np.concatenate([*places, np.zeros(0, np.int64)])
    place = np.repeat(np.arange(len(places)), [len(array) for array in places])
    return units[units != FROZEN], place[units != FROZEN]


def _alike(units: np.ndarray, place: np.ndarray) -> list[np.ndarray]:
    """Units that occur in the same places equally often, each list in order.

    Every place draws 128 random bits and a unit adds up those of its places: equal sums mean equal places.
    """
    drawn = np.random.default_rng(0).integers(0, 2**64, (int(place.max()) + 1, 2), dtype=np.uint64)
    sums = np.zeros((int(units.max()) + 1, 2), dtype=np.uint64)
    np.add.at(sums, units, drawn[place])
    present = np.unique(units)
    _, family = np.unique(sums[present], axis=0, return_inverse=True)
    order = np.argsort(family, kind="stable")
    return np.split(present[order], np.flatnonzero(np.diff(family[order])) + 1)


def _places_of(units: np.ndarray, place: np.ndarray, wanted: list[int]) -> list[list[int]]:
    """The places of some units, in order."""
    held: dict[int, list[int]] = {unit: [] for unit in wanted}
    chosen = np.isin(units, wanted)
    for unit, number in zip(units[chosen].tolist(), place[chosen].tolist(), strict=True):
        held[unit].append(number)
    return [held[unit] for unit in wanted]


def _makers(lab: Labelling, cuts: Mapping[tuple[str, int], np.ndarray], count: int) -> np.ndarray:
    """For every unit the first node that makes its channels, −1 where no weight does."""
    makers = np.full(count, -1)
    for index, constant, axis in reversed(lab.producers):
        units = cuts[_base(lab, constant), axis]
        makers[units[units < count]] = index
    return makers


def _base(lab: Labelling, constant: str) -> str:
    return lab.quantized[constant][0] if constant in lab.quantized else constant


def _named_apart(groups: Iterable[Group]) -> Iterator[Group]:
    """Several groups may start at one layer (halves of a split); number them."""
    seen: dict[str, int] = defaultdict(int)
    for group in groups:
        seen[group.name] += 1
        n = seen[group.name]
        yield group if n == 1 else replace(group, name=f"{group.name} ({n})")


def _frozen(graph: Graph, lab: Labelling, classes: np.ndarray, why: Callable[[int], Reason | None]) -> Iterator[Frozen]:
    for index, constant, axis in lab.producers:
        ids = lab.cuts[_base(lab, constant), axis]
        stuck = ids[classes[ids] == FROZEN]
        if not stuck.size:
            continue
        reason = next((found for i in stuck if (found := why(int(i)))), None)
        layer = graph.nodes[index].name
        if reason is None:
            yield Frozen(
                layer=layer, reason="coupled with values that cannot be removed", meant=True, channels=stuck.size
            )
        else:
            where = "" if reason.layer == layer else f" (at {reason.layer})"
            yield Frozen(layer=layer, reason=reason.text + where, meant=reason.meant, channels=stuck.size)


__all__ = ["Coupling", "Frozen", "Group", "couple", "label"]
