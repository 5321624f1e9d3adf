"""Operators that multiply and sum; torch's own layers where they match exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from lwcore.bridge.geometry import Window, flat_pads, pad, per_axis, window
from lwcore.bridge.node import Function, NodeView, plain, rule

_CONV: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CONV_TRANSPOSE: tuple[type[nn.Module], ...] = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONV_FUNCTION: tuple[Function, ...] = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSE_FUNCTION: tuple[Function, ...] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


class _PadFirst:
    """Mixed into a torch convolution whose two sides are padded differently."""

    pads: list[int]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(F.pad(x, self.pads))  # type: ignore[misc, no-any-return]


_UNEVEN = tuple(type(kind.__name__, (_PadFirst, kind), {}) for kind in _CONV)  # named alike: torchinfo prints the name


def layer(
    kind: type[nn.Module], *arguments: Any, weight: nn.Parameter | None, bias: nn.Parameter | None, **settings: Any
) -> nn.Module:
    """A torch layer around given parameters; nothing is allocated for the weights it would have drawn."""
    made = kind(*arguments, device="meta", **settings)
    made.register_parameter("weight", weight)
    made.register_parameter("bias", bias)
    return made


def spatial_rank(view: NodeView) -> int:
    """Number of spatial axes of input 0, which torch's windows need to be 1–3."""
    rank = len(view.shape()) - 2
    if not 1 <= rank <= 3:
        raise view.refuse(f"expected an input with 1 to 3 spatial axes, found the shape {view.shape()}.")
    return rank


@rule("Conv")
def _conv(view: NodeView) -> nn.Module | Function:
    rank, weight_shape, group = spatial_rank(view), view.shape(1), view.attr("group", 1)
    area = window(view, weight_shape[2:])
    claimed = view.claim(1, 2)
    if claimed is None:
        return convolve(area, group)
    weight, bias = claimed
    made = layer(
        _CONV[rank - 1] if area.symmetric else _UNEVEN[rank - 1],
        weight_shape[1] * group,
        weight_shape[0],
        area.kernel,
        area.strides,
        tuple(before for before, _ in area.pads) if area.symmetric else 0,
        area.dilations,
        group,
        weight=weight,
        bias=bias,
    )
    if not area.symmetric:
        made.pads = flat_pads(area.pads)  # type: ignore[assignment]
    return made


def convolve(area: Window, group: int) -> Function:
    """Convolution as a function of (input, weight, bias) with ONNX's padding."""
    function = _CONV_FUNCTION[area.rank - 1]

    def run(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Any:
        return function(pad(x, area.pads), weight, bias, area.strides, 0, area.dilations, group)

    return run


@rule("ConvTranspose")
def _conv_transpose(view: NodeView) -> nn.Module | Function:
    rank, weight_shape, group = spatial_rank(view), view.shape(1), view.attr("group", 1)
    area = window(view, weight_shape[2:])
    extra = tuple(view.attr("output_padding", [0] * rank))
    cut = _cut(view, area, extra)
    fits = all(before == after >= 0 for before, after in cut) and all(
        e < max(s, d) for e, s, d in zip(extra, area.strides, area.dilations, strict=True)
    )
    claimed = view.claim(1, 2) if fits else None
    if claimed is None:
        return _transposed(area, extra, cut, group)
    weight, bias = claimed
    return layer(
        _CONV_TRANSPOSE[rank - 1],
        weight_shape[0],
        weight_shape[1] * group,
        area.kernel,
        area.strides,
        tuple(before for before, _ in cut),
        extra,
        group,
        bias is not None,
        area.dilations,
        weight=weight,
        bias=bias,
    )


def _cut(view: NodeView, area: Window, extra: Sequence[int]) -> list[tuple[int, int]]:
    """What is cropped from the full result, per axis (before, after); `output_shape` and SAME decide it backwards."""
    auto = view.attr("auto_pad", "NOTSET")
    if auto in ("", "NOTSET", "VALID") and view.attr("output_shape") is None:
        return list(area.pads)
    cut = []
    for size, out, k, s, d, e in zip(
        view.shape()[2:], view.out_shape()[2:], area.kernel, area.strides, area.dilations, extra, strict=True
    ):
        total = (size - 1) * s + e + (k - 1) * d + 1 - out
        low, high = total // 2, total - total // 2
        cut.append((low, high) if auto == "SAME_UPPER" or total < 0 else (high, low))
    return cut


def _transposed(area: Window, extra: Sequence[int], cut: Sequence[tuple[int, int]], group: int) -> Function:
    function = _TRANSPOSE_FUNCTION[area.rank - 1]
    crop = tuple((-before, e - after) for (before, after), e in zip(cut, extra, strict=True))

    def run(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Any:
        full = pad(function(x, weight, None, area.strides, 0, 0, group, area.dilations), crop)
        return full if bias is None else full + per_axis(bias, full.ndim, 1)

    return run


@rule("Gemm")
def _gemm(view: NodeView) -> nn.Module | Function:
    alpha, beta = view.attr("alpha", 1.0), view.attr("beta", 1.0)
    flip_a, flip_b = view.attr("transA", 0), view.attr("transB", 0)
    vector = not view.has(2) or view.shape(2) == view.shape(1)[:1]
    claimed = view.claim(1, 2) if (alpha, beta, flip_a, flip_b) == (1.0, 1.0, 0, 1) and vector else None
    if claimed is not None:
        return layer(nn.Linear, view.shape(1)[1], view.shape(1)[0], weight=claimed[0], bias=claimed[1])

    def run(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        product = torch.matmul(a.t() if flip_a else a, b.t() if flip_b else b)
        product = product if alpha == 1.0 else product * alpha
        return product if c is None else product + (c if beta == 1.0 else c * beta)

    return run


@rule("Einsum")
def _einsum(view: NodeView) -> Function:
    equation = view.attr("equation")
    return lambda *tensors: torch.einsum(equation, *tensors)


plain("MatMul", torch.matmul)
