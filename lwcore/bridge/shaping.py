"""Operators that rearrange: Reshape, Transpose, Concat, Split, Slice, Pad, Expand, Tile and their kin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from lwcore.bridge.geometry import pad
from lwcore.bridge.node import Function, NodeView, now, plain, rule


@rule("Shape")
def _shape(view: NodeView) -> Function:
    start, end = view.attr("start", 0), view.attr("end")
    return lambda x: torch.tensor(x.shape[start:end], dtype=torch.int64, device=x.device)


plain("Size", lambda x: torch.tensor(x.numel(), device=x.device))


@rule("Reshape")
def _reshape(view: NodeView) -> Function:
    fixed, keep_zero = view.ints(1), view.attr("allowzero", 0)

    def run(x: torch.Tensor, shape: torch.Tensor | None = None) -> torch.Tensor:
        wanted = now(fixed, shape) or []
        return x.reshape([x.shape[i] if size == 0 and not keep_zero else size for i, size in enumerate(wanted)])

    return run


@rule("Flatten")
def _flatten(view: NodeView) -> Function:
    axis, rank = view.attr("axis", 1), len(view.shape())
    axis = axis + rank if axis < 0 else axis

    def run(x: torch.Tensor) -> torch.Tensor:
        rows = 1
        for size in x.shape[:axis]:
            rows *= size
        return x.reshape(rows, -1)

    return run


@rule("Transpose")
def _transpose(view: NodeView) -> Function:
    order = list(view.attr("perm", range(len(view.shape()))[::-1]))
    return lambda x: x.permute(order)


@rule("Concat")
def _concat(view: NodeView) -> Function:
    axis = view.attr("axis")
    return lambda *parts: torch.cat(parts, axis)


@rule("Split")
def _split(view: NodeView) -> Function:
    axis, listed = view.attr("axis", 0), view.attr("split")
    fixed = list(listed) if listed is not None else view.ints(1)
    count = view.attr("num_outputs", len(view.node.output))

    def run(x: torch.Tensor, sizes: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        chosen = now(fixed, sizes)
        return torch.split(x, chosen or -(-x.shape[axis] // count), axis)

    return run


@rule("Slice")
def _slice(view: NodeView) -> Function:
    if view.opset < 10:  # starts and ends were attributes
        settings = [list(view.attr("starts")), list(view.attr("ends")), view.attr("axes"), None]
    else:
        settings = [view.ints(position) for position in (1, 2, 3, 4)]

    def run(x: torch.Tensor, *given: torch.Tensor | None) -> torch.Tensor:
        late = [*given, *(None,) * (4 - len(given))]
        starts, ends, axes, steps = (now(fixed, tensor) for fixed, tensor in zip(settings, late, strict=True))
        starts, ends = starts or [], ends or []
        axes = list(range(len(starts))) if axes is None else axes
        for axis, start, end, step in zip(axes, starts, ends, steps or [1] * len(starts), strict=True):
            x = _cut(x, axis, slice(start, end, step))
        return x

    return run


def _cut(x: torch.Tensor, axis: int, part: slice) -> torch.Tensor:
    """One axis of a slice; ONNX treats ends out of range as Python does. Torch has no negative steps."""
    start, stop, step = part.indices(x.shape[axis])
    if step < 0:
        return x.index_select(axis, torch.arange(start, min(start, stop), step, device=x.device))
    return x[(slice(None),) * (axis % x.ndim) + (slice(start, max(start, stop), step),)]


@rule("Squeeze")
def _squeeze(view: NodeView) -> Function:
    fixed = view.axes()

    def run(x: torch.Tensor, axes: torch.Tensor | None = None) -> torch.Tensor:
        chosen = now(fixed, axes)
        return x.squeeze() if chosen is None else x.squeeze(tuple(chosen))

    return run


@rule("Unsqueeze")
def _unsqueeze(view: NodeView) -> Function:
    fixed = view.axes()

    def run(x: torch.Tensor, axes: torch.Tensor | None = None) -> torch.Tensor:
        chosen = now(fixed, axes) or []
        rank = x.ndim + len(chosen)
        for axis in sorted(a % rank for a in chosen):
            x = x.unsqueeze(axis)
        return x

    return run


@rule("Expand")
def _expand(view: NodeView) -> Function:
    fixed = view.ints(1)

    def run(x: torch.Tensor, shape: torch.Tensor | None = None) -> torch.Tensor:
        return x.expand(torch.broadcast_shapes(x.shape, tuple(now(fixed, shape) or [])))

    return run


@rule("Tile")
def _tile(view: NodeView) -> Function:
    fixed = view.ints(1)
    return lambda x, repeats=None: x.repeat(now(fixed, repeats) or [])


@rule("DepthToSpace")
def _depth_to_space(view: NodeView) -> Function:
    block, columns_first = view.attr("blocksize"), view.attr("mode", "DCR") == "CRD"

    def run(x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        if columns_first:
            parts = x.reshape(n, c // block**2, block, block, h, w).permute(0, 1, 4, 2, 5, 3)
        else:
            parts = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return parts.reshape(n, c // block**2, h * block, w * block)

    return run


@rule("SpaceToDepth")
def _space_to_depth(view: NodeView) -> Function:
    block = view.attr("blocksize")

    def run(x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        parts = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
        return parts.reshape(n, c * block**2, h // block, w // block)

    return run


class PickPad(nn.Module):
    """Padding with values of the input itself: an index an axis says which one stands where."""

    def __init__(self, picks: Sequence[tuple[int, torch.Tensor]]) -> None:
        super().__init__()
        self._axes = [axis for axis, _ in picks]
        for axis, index in picks:
            self.register_buffer(f"axis{axis}", index)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pad axis by axis."""
        for axis in self._axes:
            x = x.index_select(axis, getattr(self, f"axis{axis}"))
        return x


@rule("Pad")
def _pad(view: NodeView) -> nn.Module | Function:
    rank, mode = len(view.shape()), view.attr("mode", "constant")
    flat = list(view.attr("pads")) if view.opset < 11 else view.ints(1)
    value, axes = _fill(view), view.ints(3) if view.opset >= 18 else None
    if flat is None or (axes is None and view.has(3)):
        raise view.refuse("expected fixed amounts of padding, found computed ones.")
    pairs = [(0, 0)] * rank
    half = len(flat) // 2
    for axis, before, after in zip(axes if axes is not None else range(rank), flat[:half], flat[half:], strict=True):
        pairs[axis] = (before, after)
    if mode != "constant":
        sizes = view.shape()
        return PickPad([(axis, _picks(sizes[axis], *pair, mode)) for axis, pair in enumerate(pairs) if any(pair)])

    def run(x: torch.Tensor, _: Any = None, fill: torch.Tensor | None = None, *rest: Any) -> torch.Tensor:
        return pad(x, tuple(pairs), value if fill is None else fill.item())

    return run


def _fill(view: NodeView) -> float:
    if view.opset < 11:
        return float(view.attr("value", 0.0))
    known = view.settle(2)
    return 0.0 if known is None else known.reshape(-1)[0].item()


def _picks(size: int, before: int, after: int, mode: str) -> torch.Tensor:
    """Positions of an axis after padding, as positions before it; negative amounts crop."""
    index = torch.arange(-before, size + after)
    if mode == "edge":
        return index.clamp(0, size - 1)
    if mode == "wrap":
        return index.remainder(size)
    period = max(1, 2 * (size - 1))
    index = index.remainder(period)
    return torch.where(index >= size, period - index, index)
