"""Windows over space: padding, strides and dilations as ONNX writes them and as torch wants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from lwcore.bridge.node import NodeView

Pads = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Window:
    """A sliding window over the spatial axes: one entry an axis, `pads` as (before, after)."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: Pads

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def symmetric(self) -> bool:
        """Whether both sides are padded alike, as torch's layers do."""
        return all(before == after for before, after in self.pads)

    @property
    def padded(self) -> bool:
        """Whether anything is padded at all."""
        return any(before or after for before, after in self.pads)


def window(view: NodeView, kernel: Sequence[int]) -> Window:
    """Read the window attributes of a convolution or pooling node whose input is (N, C, *spatial)."""
    rank = len(kernel)
    strides = tuple(view.attr("strides", [1] * rank))
    dilations = tuple(view.attr("dilations", [1] * rank))
    return Window(tuple(kernel), strides, dilations, _pads(view, kernel, strides, dilations))


def _pads(view: NodeView, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Pads:
    auto, rank = view.attr("auto_pad", "NOTSET"), len(kernel)
    if auto == "VALID":
        return ((0, 0),) * rank
    if auto in ("", "NOTSET"):
        flat = view.attr("pads", [0] * 2 * rank)
        return tuple(zip(flat[:rank], flat[rank:], strict=True))
    pads = []
    for size, k, s, d in zip(view.shape()[2:], kernel, strides, dilations, strict=True):
        total = max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
        pads.append((total // 2, total - total // 2) if auto == "SAME_UPPER" else (total - total // 2, total // 2))
    return tuple(pads)


def flat_pads(pads: Pads) -> list[int]:
    """Pads in the order of `torch.nn.functional.pad`: last axis first, before and after together."""
    return [amount for pair in reversed(pads) for amount in pair]


def pad(x: torch.Tensor, pads: Pads, value: float = 0.0) -> torch.Tensor:
    """Pad (or crop, where negative) the last axes with a constant."""
    return F.pad(x, flat_pads(pads), value=value) if any(a or b for a, b in pads) else x


def per_axis(values: torch.Tensor, rank: int, axis: int) -> torch.Tensor:
    """Shape a one-per-channel vector so that it broadcasts over a tensor of `rank` axes; scalars stay scalars."""
    if values.ndim == 0 or values.numel() == 1:
        return values.reshape(())
    return values.reshape([-1 if i == axis % rank else 1 for i in range(rank)])
