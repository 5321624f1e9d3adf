"""Operators of quantized models. Products of whole numbers are summed in float64, which holds them exactly."""

from __future__ import annotations

from typing import Any

import torch

from lwcore.bridge.contractions import convolve, spatial_rank
from lwcore.bridge.elementwise import torch_type
from lwcore.bridge.geometry import per_axis, window
from lwcore.bridge.node import Function, NodeView, plain, rule

Zero = torch.Tensor | None


def quantize(x: torch.Tensor, scale: torch.Tensor, zero: Zero, dtype: torch.dtype, axis: int = 1) -> torch.Tensor:
    """round(x / scale) + zero, cut to the range of the type."""
    limits = torch.iinfo(dtype)
    steps = torch.round(x / per_axis(scale, x.ndim, axis))
    if zero is not None:
        steps = steps + per_axis(zero, x.ndim, axis).to(steps.dtype)
    return steps.clamp(limits.min, limits.max).to(dtype)


def dequantize(x: torch.Tensor, scale: torch.Tensor, zero: Zero, axis: int = 1) -> torch.Tensor:
    """(x - zero) · scale, in the type of the scale."""
    return centred(x, zero, axis).to(scale.dtype) * per_axis(scale, x.ndim, axis)


def centred(x: torch.Tensor, zero: Zero, axis: int = 1) -> torch.Tensor:
    """x - zero in float64."""
    wide = x.double()
    return wide if zero is None else wide - per_axis(zero, x.ndim, axis).double()


@rule("QuantizeLinear")
def _quantize_linear(view: NodeView) -> Function:
    axis = _axis(view)
    kind = view.attr("output_dtype", 0)
    default = torch_type(view, kind) if kind else torch.uint8

    def run(x: torch.Tensor, scale: torch.Tensor, zero: Zero = None) -> torch.Tensor:
        return quantize(x, scale, zero, default if zero is None else zero.dtype, axis)

    return run


@rule("DequantizeLinear")
def _dequantize_linear(view: NodeView) -> Function:
    axis, block = int(view.attr("axis", 1)), int(view.attr("block_size", 0))
    if not block:
        return lambda x, scale, zero=None: dequantize(x, scale, zero, axis)

    def run(x: torch.Tensor, scale: torch.Tensor, zero: Zero = None) -> torch.Tensor:
        centre = x.double() if zero is None else x.double() - _spread(zero, block, axis, x).double()
        return (centre * _spread(scale, block, axis, x)).to(scale.dtype)

    return run


def _spread(parts: torch.Tensor, block: int, axis: int, like: torch.Tensor) -> torch.Tensor:
    """One value a block, repeated along the axis; the last block may be shorter."""
    return parts.repeat_interleave(block, dim=axis).narrow(axis, 0, like.shape[axis])


@rule("MatMulNBits")
def _matmul_nbits(view: NodeView) -> Function:
    """onnxruntime's linear layer of four-bit weights: two in a byte, the lower half first, 8 for zero."""
    columns, block = int(view.attr("K")), int(view.attr("block_size"))
    if view.attr("bits", 4) != 4 or any(view.has(position) for position in (3, 4, 5)):
        raise view.refuse("expected four bits with a zero point of 8 and no bias, found another form.")

    def run(x: torch.Tensor, packed: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        halves = torch.stack([packed & 15, packed >> 4], dim=-1).reshape(len(packed), -1)
        factors = scale.reshape(len(packed), -1).repeat_interleave(block, dim=1)
        return torch.matmul(x, ((halves.to(scale.dtype) - 8) * factors)[:, :columns].t())

    return run


def _axis(view: NodeView) -> int:
    if view.attr("block_size", 0):
        raise view.refuse("expected one scale for all or one a channel, found one a block.")
    return int(view.attr("axis", 1))


def _dynamic_quantize(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    low, high = x.min().clamp(max=0.0), x.max().clamp(min=0.0)
    scale = (high - low) / 255.0
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = torch.round(-low / scale).clamp(0, 255).to(torch.uint8)
    return quantize(x, scale, zero, torch.uint8), scale, zero


plain("DynamicQuantizeLinear", _dynamic_quantize)


@rule("ConvInteger")
def _conv_integer(view: NodeView) -> Function:
    spatial_rank(view)
    run_conv = convolve(window(view, view.shape(1)[2:]), view.attr("group", 1))

    def run(x: torch.Tensor, w: torch.Tensor, x_zero: Zero = None, w_zero: Zero = None) -> Any:
        return run_conv(centred(x, x_zero), centred(w, w_zero, 0)).to(torch.int32)

    return run


def _matmul_integer(a: torch.Tensor, b: torch.Tensor, a_zero: Zero = None, b_zero: Zero = None) -> torch.Tensor:
    return torch.matmul(centred(a, a_zero, -2), centred(b, b_zero, -1)).to(torch.int32)


plain("MatMulInteger", _matmul_integer)


@rule("QLinearConv")
def _qlinear_conv(view: NodeView) -> Function:
    spatial_rank(view)
    run_conv = convolve(window(view, view.shape(3)[2:]), view.attr("group", 1))

    def run(
        x: torch.Tensor,
        xs: torch.Tensor,
        xz: torch.Tensor,
        w: torch.Tensor,
        ws: torch.Tensor,
        wz: torch.Tensor,
        ys: torch.Tensor,
        yz: torch.Tensor,
        bias: Zero = None,
    ) -> torch.Tensor:
        total = run_conv(centred(x, xz), centred(w, wz, 0), None if bias is None else bias.double())
        return quantize(total * per_axis(xs * ws / ys, total.ndim, 1), torch.ones_like(ys), yz, yz.dtype)

    return run


def _qlinear_matmul(
    a: torch.Tensor,
    a_s: torch.Tensor,
    a_z: torch.Tensor,
    b: torch.Tensor,
    b_s: torch.Tensor,
    b_z: torch.Tensor,
    y_s: torch.Tensor,
    y_z: torch.Tensor,
) -> torch.Tensor:
    total = torch.matmul(dequantize(a, a_s.double(), a_z, -2), dequantize(b, b_s.double(), b_z, -1))
    return quantize(total, y_s, y_z, y_z.dtype)


plain("QLinearMatMul", _qlinear_matmul)
