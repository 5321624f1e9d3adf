"""Operators that reduce or rank along axes: Reduce*, Softmax, ArgMax, TopK, CumSum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lwcore.bridge.node import Function, NodeView, now, rule


def _product(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    for axis in sorted((a % x.ndim for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _sum(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def _mean(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    return x.mean(axes, keepdim=keep) if x.is_floating_point() else x.double().mean(axes, keepdim=keep).to(x.dtype)


_REDUCTIONS: Mapping[str, Function] = {
    "ReduceSum": _sum,
    "ReduceMean": _mean,
    "ReduceProd": _product,
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "ReduceL1": lambda x, axes, keep: _sum(x.abs(), axes, keep),
    "ReduceL2": lambda x, axes, keep: torch.sqrt(_sum(x.square(), axes, keep)),
    "ReduceSumSquare": lambda x, axes, keep: _sum(x.square(), axes, keep),
    "ReduceLogSum": lambda x, axes, keep: torch.log(_sum(x, axes, keep)),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep),
}


@rule(*_REDUCTIONS)
def _reduce(view: NodeView) -> Function:
    fixed, keep, function = view.axes(), bool(view.attr("keepdims", 1)), _REDUCTIONS[view.op]
    leave = bool(view.attr("noop_with_empty_axes", 0))

    def run(x: torch.Tensor, axes: torch.Tensor | None = None) -> Any:
        chosen = now(fixed, axes)
        if not chosen:
            chosen = [] if leave else list(range(x.ndim))
        return function(x, chosen, keep) if chosen else x

    return run


@rule("Softmax", "LogSoftmax")
def _softmax(view: NodeView) -> Function:
    function: Function = torch.softmax if view.op == "Softmax" else torch.log_softmax
    if view.opset >= 13:
        axis = view.attr("axis", -1)
        return lambda x: function(x, axis)
    first = view.attr("axis", 1) % len(view.shape())  # before opset 13: over everything from `axis` on
    return lambda x: function(x.flatten(first), first).reshape(x.shape)


@rule("Hardmax")
def _hardmax(view: NodeView) -> Function:
    def highest(x: torch.Tensor, axis: int) -> torch.Tensor:
        return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1)

    if view.opset >= 13:
        axis = view.attr("axis", -1)
        return lambda x: highest(x, axis)
    first = view.attr("axis", 1) % len(view.shape())
    return lambda x: highest(x.flatten(first), first).reshape(x.shape)


@rule("ArgMax", "ArgMin")
def _arg(view: NodeView) -> Function:
    axis, keep, last = view.attr("axis", 0), bool(view.attr("keepdims", 1)), view.attr("select_last_index", 0)
    find: Function = torch.argmax if view.op == "ArgMax" else torch.argmin

    def run(x: torch.Tensor) -> Any:
        return x.shape[axis] - 1 - find(x.flip(axis), axis, keep) if last else find(x, axis, keep)

    return run


@rule("TopK")
def _top_k(view: NodeView) -> Function:
    axis, largest = view.attr("axis", -1), bool(view.attr("largest", 1))
    k = view.ints(1) or [view.out_shape()[axis]]
    view.settle(1)
    return lambda x, _=None: tuple(torch.topk(x, k[0], axis, largest, sorted=True))


@rule("CumSum")
def _cum_sum(view: NodeView) -> Function:
    fixed, exclusive, reverse = view.ints(1), view.attr("exclusive", 0), view.attr("reverse", 0)

    def run(x: torch.Tensor, axis: torch.Tensor | None = None) -> torch.Tensor:
        (dim,) = now(fixed, axis) or [0]
        x = x.flip(dim) if reverse else x
        total = x.cumsum(dim, dtype=x.dtype)
        total = total - x if exclusive else total
        return total.flip(dim) if reverse else total

    return run
