"""Operators that normalise: batch, layer, instance, group, RMS, Lp, local response."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from lwcore.bridge.contractions import layer
from lwcore.bridge.node import Function, NodeView, rule

_BATCH_NORM: tuple[type[nn.Module], ...] = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@rule("BatchNormalization")
def _batch_norm(view: NodeView) -> nn.Module | Function:
    if view.attr("training_mode", 0):
        raise view.refuse(
            "expected a model exported for inference, found batch norm in training mode. Export it in eval mode."
        )
    eps, rank = view.attr("epsilon", 1e-5), len(view.shape())
    fixed = view.constant(3) is not None and view.constant(4) is not None and 2 <= rank <= 5
    claimed = view.claim(1, 2) if fixed else None
    if claimed is None:
        return lambda x, scale, bias, mean, var: F.batch_norm(x, mean, var, scale, bias, False, 0.0, eps)
    made = layer(
        _BATCH_NORM[rank - 2],
        view.shape(3)[0],
        eps,
        1.0 - view.attr("momentum", 0.9),
        weight=claimed[0],
        bias=claimed[1],
    )
    made.running_mean, made.running_var = view.tensor(3), view.tensor(4)
    made.num_batches_tracked = torch.tensor(0)
    return made


@rule("LayerNormalization")
def _layer_norm(view: NodeView) -> nn.Module | Function:
    axis, eps, shape = view.attr("axis", -1), view.attr("epsilon", 1e-5), view.shape()
    inner = shape[axis % len(shape) :]
    whole = view.shape(1) == inner and (not view.has(2) or view.shape(2) == inner)
    claimed = view.claim(1, 2) if whole and view.outputs() == 1 else None
    if claimed is not None:
        return layer(nn.LayerNorm, inner, eps, weight=claimed[0], bias=claimed[1])
    axes, several = list(range(axis % len(shape), len(shape))), view.outputs() > 1

    def run(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None) -> object:
        mean = x.mean(axes, keepdim=True)
        deviation = torch.rsqrt((x - mean).square().mean(axes, keepdim=True) + eps)
        y = (x - mean) * deviation * scale
        y = y if bias is None else y + bias
        return (y, mean, deviation) if several else y

    return run


@rule("RMSNormalization")
def _rms_norm(view: NodeView) -> Function:
    rank, eps = len(view.shape()), view.attr("epsilon", 1e-5)
    axes = list(range(view.attr("axis", -1) % rank, rank))
    return lambda x, scale: x * torch.rsqrt(x.square().mean(axes, keepdim=True) + eps) * scale


@rule("InstanceNormalization")
def _instance_norm(view: NodeView) -> Function:
    eps = view.attr("epsilon", 1e-5)
    return lambda x, scale, bias: F.group_norm(x, x.shape[1], scale, bias, eps)


@rule("GroupNormalization")
def _group_norm(view: NodeView) -> Function:
    groups, eps, by_group = view.attr("num_groups"), view.attr("epsilon", 1e-5), view.opset < 21

    def run(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        if by_group:  # before opset 21 there was one scale a group, not a channel
            repeats = x.shape[1] // groups
            scale, bias = scale.repeat_interleave(repeats), bias.repeat_interleave(repeats)
        return F.group_norm(x, groups, scale, bias, eps)

    return run


@rule("LpNormalization")
def _lp_norm(view: NodeView) -> Function:
    axis, p = view.attr("axis", -1), view.attr("p", 2)
    return lambda x: F.normalize(x, float(p), axis)


@rule("MeanVarianceNormalization")
def _mean_variance(view: NodeView) -> Function:
    axes = list(view.attr("axes", [0, 2, 3]))

    def run(x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(axes, keepdim=True)
        return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)

    return run


@rule("LRN")
def _lrn(view: NodeView) -> Function:
    size, channels = view.attr("size"), view.shape()[1]
    alpha, beta, bias = view.attr("alpha", 1e-4), view.attr("beta", 0.75), view.attr("bias", 1.0)
    before, after = (size - 1) // 2, math.ceil((size - 1) / 2)

    def run(x: torch.Tensor) -> torch.Tensor:
        squares = F.pad(x.square().transpose(1, -1), (before, after)).transpose(1, -1)
        total = torch.stack([squares[:, i : i + channels] for i in range(size)]).sum(0)
        return x / torch.pow(bias + alpha / size * total, beta)

    return run
