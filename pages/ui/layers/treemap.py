"""Squarified treemap (Bruls, Huizing, van Wijk 2000): areas in proportion, shapes near squares."""

from __future__ import annotations

from collections.abc import Sequence

Box = tuple[float, float, float, float]


def squarify(values: Sequence[float], width: float, height: float) -> list[Box]:
    """Lay out positive values in a rectangle.

    Returns:
        One box (x, y, width, height) a value, in the order given; the boxes fill the rectangle without overlap.
    """
    total = sum(values)
    boxes: list[Box] = [(0.0, 0.0, 0.0, 0.0)] * len(values)
    if total <= 0:
        return boxes
    order = sorted(range(len(values)), key=lambda i: -values[i])
    areas = {i: values[i] * width * height / total for i in order}
    x, y, w, h = 0.0, 0.0, float(width), float(height)
    while order:
        row = _row([areas[i] for i in order], min(w, h))
        names, order = order[:row], order[row:]
        depth = sum(areas[i] for i in names) / (min(w, h) or 1.0)
        at = 0.0
        for i in names:
            length = areas[i] / depth if depth else 0.0
            boxes[i] = (x, y + at, depth, length) if w >= h else (x + at, y, length, depth)
            at += length
        x, y, w, h = (x + depth, y, w - depth, h) if w >= h else (x, y + depth, w, h - depth)
    return boxes


def _row(areas: Sequence[float], side: float) -> int:
    """How many of the areas, largest first, go into one strip along `side` before the shapes get worse."""
    best = float("inf")
    total = 0.0
    for count, area in enumerate(areas, start=1):
        total += area
        depth = total / (side or 1.0)
        worst = max(
            max(depth * depth / a, a / (depth * depth)) if a and depth else float("inf") for a in (areas[0], area)
        )
        if worst > best:
            return count - 1
        best = worst
    return len(areas)
