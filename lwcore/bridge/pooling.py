"""Pooling. Windows are padded by hand, so that ONNX's uneven pads, `ceil_mode` and counts hold exactly."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from lwcore.bridge.contractions import spatial_rank
from lwcore.bridge.geometry import Pads, Window, pad, window
from lwcore.bridge.node import Function, NodeView, rule

_MAX: tuple[Function, ...] = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_AVERAGE: tuple[Function, ...] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)


def _fitted(view: NodeView, area: Window) -> Pads:
    """Pads that make exactly as many windows as the output has: `ceil_mode` adds behind, strides may leave a rest."""
    fitted = []
    for i, (before, _) in enumerate(area.pads):
        reach = (view.out_shape()[2 + i] - 1) * area.strides[i] + (area.kernel[i] - 1) * area.dilations[i] + 1
        fitted.append((before, reach - view.shape()[2 + i] - before))
    return tuple(fitted)


@rule("MaxPool")
def _max_pool(view: NodeView) -> Function:
    rank = spatial_rank(view)
    if view.outputs() > 1:
        raise view.refuse("expected one output, found that the positions of the maxima are used too.")
    area = window(view, view.attr("kernel_shape"))
    pads, function = _fitted(view, area), _MAX[rank - 1]

    def run(x: torch.Tensor) -> Any:
        low = -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
        padded = pad(x, pads, low)
        if not x.is_floating_point():  # torch pools whole numbers only of some types; doubles hold them all exactly
            return function(padded.double(), area.kernel, area.strides, 0, area.dilations).to(x.dtype)
        return function(padded, area.kernel, area.strides, 0, area.dilations)

    return run


class AveragePool(nn.Module):
    """Sum over each window divided by the number of values that count; `counts` has the output's spatial shape."""

    counts: torch.Tensor

    def __init__(self, area: Window, pads: Pads, counts: torch.Tensor) -> None:
        super().__init__()
        self._area, self._pads = area, pads
        self._full = math.prod(area.kernel)
        self._even = bool((counts == self._full).all())
        self.register_buffer("counts", counts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool (N, C, *spatial)."""
        mean: torch.Tensor = window_mean(pad(x, self._pads), self._area)
        return mean if self._even else mean * (self._full / self.counts).to(x.dtype)


def window_mean(x: torch.Tensor, area: Window) -> Any:
    """Mean over each window of an input that is padded already."""
    if all(d == 1 for d in area.dilations):
        return _AVERAGE[area.rank - 1](x, area.kernel, area.strides)
    parts = []
    for offset in itertools.product(*(range(k) for k in area.kernel)):
        part = x
        for i, (o, k, s, d) in enumerate(zip(offset, area.kernel, area.strides, area.dilations, strict=True)):
            windows = (x.shape[2 + i] - (k - 1) * d - 1) // s + 1
            index = torch.arange(windows, device=x.device) * s + o * d
            part = part.index_select(2 + i, index)
        parts.append(part)
    return torch.stack(parts).mean(0)


@rule("AveragePool")
def _average_pool(view: NodeView) -> nn.Module:
    spatial_rank(view)
    area = window(view, view.attr("kernel_shape"))
    pads = _fitted(view, area)
    counted = area.pads if view.attr("count_include_pad", 0) else ((0, 0),) * area.rank
    size = [n + before + after for n, (before, after) in zip(view.shape()[2:], counted, strict=True)]
    rest = tuple((p[0] - c[0], p[1] - c[1]) for p, c in zip(pads, counted, strict=True))
    ones = pad(torch.ones(1, 1, *size, dtype=torch.float64), rest)
    counts = (window_mean(ones, area) * math.prod(area.kernel)).round()
    return AveragePool(area, pads, counts.float())


@rule("LpPool")
def _lp_pool(view: NodeView) -> Function:
    spatial_rank(view)
    area, p = window(view, view.attr("kernel_shape")), view.attr("p", 2)
    pads, full = _fitted(view, area), math.prod(area.kernel)
    return lambda x: (window_mean(pad(x.abs() ** p, pads), area) * full) ** (1.0 / p)


@rule("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def _global_pool(view: NodeView) -> Function:
    axes, p = list(range(2, len(view.shape()))), view.attr("p", 2)
    if view.op == "GlobalAveragePool":
        return lambda x: x.mean(axes, keepdim=True)
    if view.op == "GlobalMaxPool":
        return lambda x: x.amax(axes, keepdim=True)
    return lambda x: (x.abs() ** p).sum(axes, keepdim=True) ** (1.0 / p)
