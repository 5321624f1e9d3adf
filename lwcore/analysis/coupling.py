"""Coupling: what must shrink together: units (channels that go as one), groups of like units, and what is frozen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lwcore.analysis import channelwise, movement  # noqa: F401  (they register their rules)
from lwcore.analysis.labels import FROZEN, Consumer, Labelling, Labels
from lwcore.analysis.rules import RULES, freeze_inputs
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
        tensors: tensor → (axis, class of each index) for every tensor that shrinks.
        consumers: linear operators that read removable channels, in the order of the graph.
        grouped: node index → channels in one convolution group (the `group` attribute follows its input).
        normalised: nodes that compute statistics over a removable axis (removing is then not the same as zeroing).
        producers: (constant, axis) of the weights whose outputs the channels are.
        units: number of classes, the frozen class included.
        mirrors: result of a DequantizeLinear over a stored weight → that weight; the two have one shape.
    """

    groups: tuple[Group, ...]
    frozen: tuple[Frozen, ...]
    cuts: Mapping[tuple[str, int], np.ndarray] = field(repr=False)
    tensors: Mapping[str, tuple[int, np.ndarray]] = field(repr=False)
    consumers: tuple[Consumer, ...] = field(repr=False)
    grouped: Mapping[int, int] = field(repr=False)
    normalised: frozenset[int]
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
        for name, (axis, classes) in self.tensors.items():
            yield name, axis, classes

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
    lab = label(graph)
    classes, causes = lab.classes()
    cuts = {place: classes[ids] for place, ids in lab.cuts.items()}
    tensors = {name: (labels.axis, classes[labels.ids]) for name, labels in lab.tensors.items()}
    groups = _groups(graph, lab, cuts, [classes[ids] for ids in lab.pieces])
    consumers = tuple(Consumer(c.node, c.constant, c.axis, c.tensor, classes[c.ids], c.groups) for c in lab.consumers)
    return Coupling(
        groups=groups,
        frozen=tuple(_frozen(graph, lab, classes, causes)),
        cuts=cuts,
        tensors=tensors,
        consumers=consumers,
        grouped=lab.grouped,
        normalised=frozenset(lab.normalised),
        producers=frozenset((_base(lab, constant), axis) for _, constant, axis in lab.producers),
        units=int(classes.max()) + 1,
        mirrors={name: held[0] for name, held in lab.quantized.items()},
    )


def label(graph: Graph) -> Labelling:
    """Walk the graph once, every operator passing labels on by its rule."""
    lab = Labelling(graph)
    for index, node in enumerate(graph.nodes):
        if (
            node.op_type in RULES
            and node.domain in ("", "ai.onnx")
            and not _unknown_shape(graph, list(node.input) + list(node.output))
        ):
            RULES[node.op_type](lab, index, node)
        else:
            for name in reads(node):
                lab.freeze_tensor(name, node, f"no rule for operator {node.op_type}", meant=False)
            freeze_inputs(lab, node, f"no rule for operator {node.op_type}", meant=False)
            _pin_constants(lab, list(reads(node)))
    for name in graph.outputs:
        labels = lab.get(name)
        if labels is not None:
            source = graph.nodes[graph.producers()[name]]
            lab.freeze(labels.ids, source, "it is the network's output")
    return lab


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
    signatures: dict[int, list[tuple[int, int]]] = defaultdict(list)
    places = [*cuts.values(), *(piece for piece in pieces if (piece != FROZEN).all())]
    for place, array in enumerate(places):
        for unit, times in zip(*np.unique(array[array != FROZEN], return_counts=True), strict=True):
            signatures[int(unit)].append((place, int(times)))
    alike: dict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
    for unit in sorted(signatures):
        alike[tuple(signatures[unit])].append(unit)
    readers = graph.consumers()
    names = list(cuts)
    found = []
    for signature, units in alike.items():
        constants = {names[place][0] for place, _ in signature if place < len(names)}
        nodes = sorted({index for constant in constants for index in readers.get(constant, ())})
        lead = _leader(lab, cuts, set(units), nodes)
        found.append(
            (
                lead,
                Group(
                    name=graph.nodes[lead].name,
                    channels=len(units),
                    units=np.array(units),
                    layers=tuple(graph.nodes[i].name for i in nodes),
                ),
            )
        )
    found.sort(key=lambda item: (item[0], int(item[1].units[0])))
    return tuple(_named_apart(group for _, group in found if group.channels > 1))


def _leader(lab: Labelling, cuts: Mapping[tuple[str, int], np.ndarray], units: set[int], nodes: list[int]) -> int:
    for index, constant, axis in lab.producers:
        if units.intersection(cuts[_base(lab, constant), axis].tolist()):
            return index
    return nodes[0]


def _base(lab: Labelling, constant: str) -> str:
    return lab.quantized[constant][0] if constant in lab.quantized else constant


def _named_apart(groups: Iterator[Group]) -> Iterator[Group]:
    """Several groups may start at one layer (halves of a split); number them."""
    seen: dict[str, int] = defaultdict(int)
    for group in groups:
        seen[group.name] += 1
        n = seen[group.name]
        yield (
            group
            if n == 1
            else Group(name=f"{group.name} ({n})", channels=group.channels, layers=group.layers, units=group.units)
        )


def _frozen(graph: Graph, lab: Labelling, classes: np.ndarray, causes: Mapping[int, Any]) -> Iterator[Frozen]:
    for index, constant, axis in lab.producers:
        ids = lab.cuts[_base(lab, constant), axis]
        stuck = ids[classes[ids] == FROZEN]
        if not stuck.size:
            continue
        reason = next((causes[int(i)] for i in stuck if int(i) in causes), None)
        layer = graph.nodes[index].name
        if reason is None:
            yield Frozen(
                layer=layer, reason="coupled with values that cannot be removed", meant=True, channels=stuck.size
            )
        else:
            where = "" if reason.layer == layer else f" (at {reason.layer})"
            yield Frozen(layer=layer, reason=reason.text + where, meant=reason.meant, channels=stuck.size)


__all__ = ["Coupling", "Frozen", "Group", "Labels", "couple", "label"]
