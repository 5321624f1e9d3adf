"""Resize and Upsample: each axis is a fixed weighted pick of input positions, worked out once from the shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from lwcore.bridge.node import NodeView, rule


@dataclass(frozen=True)
class Taps:
    """For one axis: which input positions make each output position, and with what weights; both (out, taps)."""

    axis: int
    index: torch.Tensor
    weight: torch.Tensor


class Resize(nn.Module):
    """Separable resampling; axes that keep their size are left alone."""

    def __init__(self, taps: list[Taps]) -> None:
        super().__init__()
        self._axes = [t.axis for t in taps]
        for t in taps:
            self.register_buffer(f"index{t.axis}", t.index)
            self.register_buffer(f"weight{t.axis}", t.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Resample every resized axis in turn."""
        for axis in self._axes:
            index, weight = getattr(self, f"index{axis}"), getattr(self, f"weight{axis}")
            shape = [-1 if i == axis else 1 for i in range(x.ndim)]
            parts = [x.index_select(axis, index[:, t]) for t in range(index.shape[1])]
            if len(parts) == 1:
                x = parts[0]
            else:
                x = torch.stack([p * weight[:, t].to(p.dtype).reshape(shape) for t, p in enumerate(parts)]).sum(0)
        return x


@rule("Resize", "Upsample")
def _resize(view: NodeView) -> nn.Module:
    old = view.op == "Upsample" or view.opset < 11
    coordinates = "asymmetric" if old else view.attr("coordinate_transformation_mode", "half_pixel")
    if coordinates not in _COORDINATES:
        raise view.refuse(f"expected one of {', '.join(_COORDINATES)}; found the coordinates {coordinates!r}.")
    kernel = _kernel(view, old)
    scales = _scales(view, 1 if old else 2)
    taps = []
    for axis, (size, out) in enumerate(zip(view.shape(), view.out_shape(), strict=True)):
        if size == out and scales[axis] == 1.0:
            continue
        position = _COORDINATES[coordinates](torch.arange(out, dtype=torch.float64), scales[axis], size, out)
        taps.append(Taps(axis, *kernel(position, size, scales[axis])))
    return Resize(taps)


def _scales(view: NodeView, position: int) -> list[float]:
    """Scale of every axis: as given, else output size over input size."""
    scales = [out / size for size, out in zip(view.shape(), view.out_shape(), strict=True)]
    given = view.constant(position)
    if given is not None and given.size:
        axes = view.attr("axes") or range(len(scales))
        for axis, scale in zip(axes, given.tolist(), strict=True):
            scales[axis] = scale
    return scales


Coordinate = Callable[[torch.Tensor, float, int, int], torch.Tensor]
Kernel = Callable[[torch.Tensor, int, float], tuple[torch.Tensor, torch.Tensor]]


def _symmetric(x: torch.Tensor, scale: float, size: int, out: int) -> torch.Tensor:
    adjusted = out / (scale * size)
    return size / 2 * (1 - adjusted) + (x + 0.5) / scale - 0.5


_COORDINATES: dict[str, Coordinate] = {
    "half_pixel": lambda x, scale, size, out: (x + 0.5) / scale - 0.5,
    "half_pixel_symmetric": _symmetric,
    "pytorch_half_pixel": lambda x, scale, size, out: (x + 0.5) / scale - 0.5 if out > 1 else torch.zeros_like(x),
    "align_corners": lambda x, scale, size, out: x * (size - 1) / (out - 1) if out > 1 else torch.zeros_like(x),
    "asymmetric": lambda x, scale, size, out: x / scale,
}


def _kernel(view: NodeView, old: bool) -> Kernel:
    mode, outside = view.attr("mode", "nearest"), bool(view.attr("exclude_outside", 0))
    shrink = bool(view.attr("antialias", 0))
    if mode == "nearest":
        rounding = _ROUNDING["floor" if old else view.attr("nearest_mode", "round_prefer_floor")]
        return lambda position, size, scale: _nearest(rounding(position), size)
    if mode == "linear":
        return lambda position, size, scale: _spread(position, size, scale if shrink else 1.0, 1, _triangle, outside)
    if mode == "cubic":
        a = view.attr("cubic_coeff_a", -0.75)
        return lambda position, size, scale: _spread(
            position, size, scale if shrink else 1.0, 2, lambda t: _cubic(t, a), outside
        )
    raise view.refuse(f"expected nearest, linear or cubic, found the mode {mode!r}.")


_ROUNDING: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "round_prefer_floor": lambda x: torch.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: torch.floor(x + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


def _nearest(position: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    index = position.long().clamp(0, size - 1)[:, None]
    return index, torch.ones(index.shape)


def _triangle(t: torch.Tensor) -> torch.Tensor:
    return (1 - t.abs()).clamp(min=0)


def _cubic(t: torch.Tensor, a: float) -> torch.Tensor:
    t = t.abs()  # Keys, Cubic convolution interpolation, 1981
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return torch.where(t <= 1, near, torch.where(t < 2, far, torch.zeros_like(t)))


def _spread(
    position: torch.Tensor,
    size: int,
    scale: float,
    radius: int,
    weigh: Callable[[torch.Tensor], torch.Tensor],
    exclude: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Taps around each position; when shrinking with antialias the kernel is stretched over 1/scale input positions."""
    stretch = min(scale, 1.0)
    reach = math.ceil(radius / stretch)
    base = torch.floor(position).long()[:, None]
    index = base + torch.arange(1 - reach, reach + 1)
    weight = weigh((position[:, None] - index) * stretch)
    if exclude:
        weight = torch.where((index < 0) | (index >= size), torch.zeros_like(weight), weight)
    if exclude or stretch < 1:
        weight = weight / weight.sum(1, keepdim=True)
    return index.clamp(0, size - 1), weight.float()
