"""Reshapes in small: the factors that a shape before and a shape after have in common, without touching any data."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from lwcore.graph import Shape


@dataclass(frozen=True)
class Blocks:
    """A common refinement of two shapes of one size: `sizes` multiply up to both.

    Attributes:
        sizes: factors, outermost first.
        inputs, outputs: for each axis before and after, the positions of its factors in `sizes`; None where a border
            of one shape cuts through a factor of the other.
    """

    sizes: tuple[int, ...]
    inputs: tuple[range | None, ...]
    outputs: tuple[range | None, ...]


def blocks_of(before: Shape, after: Shape) -> Blocks:
    """The finest common refinement: (64, 7, 7) → (8, 8, 49) has the factors (8, 8, 7, 7)."""
    shared = sorted({*_borders(before)} & {*_borders(after)}, reverse=True)
    inner = {*_borders(before), *_borders(after)}
    borders = shared[:1]
    for outer, end in pairwise(shared):
        between = sorted((b for b in inner if end < b < outer), reverse=True)
        if all(large % small == 0 for large, small in pairwise([outer, *between, end]) if small):
            borders += between
        borders.append(end)
    sizes = tuple(large // max(small, 1) for large, small in pairwise(borders))
    return Blocks(sizes, _ranges(before, borders), _ranges(after, borders))


def _borders(shape: Shape) -> list[int]:
    """Elements behind each border between axes, from the whole to 1."""
    found = [1]
    for size in reversed(shape):
        found.append(found[-1] * size)
    return found[::-1]


def _ranges(shape: Shape, borders: list[int]) -> tuple[range | None, ...]:
    places = {border: position for position, border in enumerate(borders)}
    found = ((places.get(outer), places.get(inner)) for outer, inner in pairwise(_borders(shape)))
    return tuple(None if a is None or b is None else range(a, b) for a, b in found)
