"""Levels: the channel counts worth stopping at, and how one amount for all is brought onto them.

Runtimes compute channels in blocks (eight for AVX2 and NEON, as in onnxruntime's NCHWc kernels). A layer with 29
channels is not a little faster than one with 32 but up to twice as slow, so a cut keeps whole blocks unless told
otherwise. Groups that lie on one axis (a shuffled stage, a residual stream in two parts) must add up to whole blocks
together: a *lever* moves them as one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lwcore.analysis.coupling import Coupling, Group, couple
from lwcore.graph import per_model
from lwcore.model import Model

Counts = dict[str, int]  # group name → channels removed
STEPS = 16  # positions of a lever that is not bound to blocks


@dataclass(frozen=True)
class Lever:
    """Groups that are slimmed together, and the counts they can stop at: nothing removed first, then ever more."""

    groups: tuple[Group, ...]
    stops: tuple[Counts, ...]

    def share(self, stop: int) -> float:
        """Share of the lever's channels that a stop removes."""
        return self._shares[stop]

    @cached_property
    def _shares(self) -> list[float]:
        channels = sum(group.channels for group in self.groups)
        return [sum(counts.values()) / channels for counts in self.stops]


def levers(model: Model, align: int) -> list[Lever]:
    """All levers of a model, in the order of its groups; remembered.

    Args:
        align: channels in a block; 1 for single channels.
    """
    known = _known(model)
    if align not in known:
        known[align] = _levers(couple(model), align)
    return known[align]


@per_model()
def _known(model: Model) -> dict[int, list[Lever]]:
    return {}


def _levers(coupling: Coupling, align: int) -> list[Lever]:
    if align == 1:
        return [Lever((group,), _single_steps(group)) for group in coupling.groups]
    places = _places(coupling)
    held: dict[str, list[int]] = {group.name: [] for group in coupling.groups}
    for number, place in enumerate(places):
        for name in place:
            held[name].append(number)
    found = []
    for groups in _families(coupling.groups, places):
        own = sorted({number for group in groups for number in held[group.name]})
        found.append(Lever(groups, _aligned_steps(groups, [places[number] for number in own], align)))
    return found


def uniform(choices: Sequence[Lever], amount: float, macs: Callable[[Counts], int], target: int) -> Counts:
    """Bring one amount for all onto the levers' stops so that the MACs left come closest to `target`.

    Every lever first stops short of the amount; then those that are nearest to their next stop move on, one by one,
    until the model is as small as the amount asked for.
    """
    stops = [max(i for i in range(len(lever.stops)) if lever.share(i) <= amount + 1e-9) for lever in choices]
    counts = merged(choices, stops)
    now = macs(counts)
    for position in sorted(range(len(choices)), key=lambda p: -_progress(choices[p], stops[p], amount)):
        if now <= target or _progress(choices[position], stops[position], amount) <= 0:
            break
        further = {**counts, **choices[position].stops[stops[position] + 1]}
        then = macs(further)
        if abs(then - target) < abs(now - target):
            counts, now = further, then
    return counts


def merged(choices: Sequence[Lever], stops: Sequence[int]) -> Counts:
    """The counts of all levers at their stops."""
    counts: Counts = {}
    for lever, stop in zip(choices, stops, strict=True):
        counts.update(lever.stops[stop])
    return counts


def _progress(lever: Lever, stop: int, amount: float) -> float:
    """How far the amount lies on the way to the next stop, 0–1; 0 at the last stop."""
    if stop + 1 >= len(lever.stops):
        return 0.0
    return (amount - lever.share(stop)) / (lever.share(stop + 1) - lever.share(stop))


def _single_steps(group: Group) -> tuple[Counts, ...]:
    step = max(1, group.channels // STEPS)
    removed = [*range(0, group.channels - 1, step), group.channels - 1]
    return tuple({group.name: n} for n in dict.fromkeys(removed))


def _places(coupling: Coupling) -> list[Mapping[str, int]]:
    """For every axis that makes channels: group name → indexes on it for each of the group's channels."""
    owner = np.full(coupling.units, -1)
    for number, group in enumerate(coupling.groups):
        owner[group.units] = number
    found: list[Mapping[str, int]] = []
    for place in sorted(coupling.producers):
        numbers, times = np.unique(owner[coupling.cuts[place]], return_counts=True)
        found.append(
            {
                coupling.groups[n].name: int(t) // coupling.groups[n].channels
                for n, t in zip(numbers, times, strict=True)
                if n >= 0
            }
        )
    return found


def _families(groups: Sequence[Group], places: Sequence[Mapping[str, int]]) -> list[tuple[Group, ...]]:
    number = {group.name: i for i, group in enumerate(groups)}
    pairs = [(number[next(iter(place))], number[name]) for place in places if place for name in place]
    rows, columns = (np.array(side, dtype=int) for side in (zip(*pairs, strict=True) if pairs else ((), ())))
    links = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(len(groups), len(groups)))
    family = connected_components(links, directed=False)[1] if groups else []
    together: dict[int, list[Group]] = {}
    for group, label in zip(groups, family, strict=True):
        together.setdefault(int(label), []).append(group)
    return [tuple(members) for members in together.values()]


def _aligned_steps(groups: tuple[Group, ...], places: Sequence[Mapping[str, int]], align: int) -> tuple[Counts, ...]:
    """Keeping j whole blocks on the family's widest axis, for every j at which all its axes hold whole blocks."""
    sizes = {g.name: g.channels for g in groups}
    width = max((sum(sizes[n] * times for n, times in place.items()) for place in places), default=0)
    if width < align:
        return _proportional(groups, sorted({n / STEPS for n in range(STEPS)}))
    stops = [dict.fromkeys(sizes, 0)]
    for blocks in range((width - 1) // align, 0, -1):
        keep = {name: max(1, round(size * blocks * align / width)) for name, size in sizes.items()}
        if all(sum(keep[n] * times for n, times in place.items()) % align == 0 for place in places):
            stops.append({name: sizes[name] - keep[name] for name in sizes})
    return tuple(stops)


def _proportional(groups: tuple[Group, ...], shares: Sequence[float]) -> tuple[Counts, ...]:
    found: list[Counts] = []
    for share in shares:
        counts = {g.name: min(g.channels - 1, round(g.channels * share)) for g in groups}
        if not found or sum(counts.values()) > sum(found[-1].values()):
            found.append(counts)
    return tuple(found)
