"""Operators that pick, place or make values by index: Gather, Scatter, OneHot, Range, Trilu, GridSample."""

from __future__ import annotations

from typing import Any

import torch
from onnx import numpy_helper
from torch.nn import functional as F

from lwcore.bridge.node import Function, NodeView, now, plain, rule, to_tensor


def _positive(index: torch.Tensor, size: int) -> torch.Tensor:
    return torch.where(index < 0, index + size, index)


@rule("Gather")
def _gather(view: NodeView) -> Function:
    axis = view.attr("axis", 0)

    def run(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        chosen = _positive(index.long(), x.shape[axis])
        picked = x.index_select(axis, chosen.reshape(-1))
        at = axis % x.ndim
        return picked.reshape([*x.shape[:at], *index.shape, *x.shape[at + 1 :]])

    return run


@rule("GatherElements")
def _gather_elements(view: NodeView) -> Function:
    axis = view.attr("axis", 0)
    return lambda x, index: torch.gather(x, axis, _positive(index.long(), x.shape[axis]))


@rule("GatherND")
def _gather_nd(view: NodeView) -> Function:
    batch = view.attr("batch_dims", 0)

    def run(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        if batch == 0:
            return x[tuple(index.long().unbind(-1))]
        flat = x.reshape(-1, *x.shape[batch:])
        picks = index.long().reshape(flat.shape[0], *index.shape[batch:])
        picked = torch.stack([values[tuple(where.unbind(-1))] for values, where in zip(flat, picks, strict=True)])
        return picked.reshape(*x.shape[:batch], *picked.shape[1:])

    return run


@rule("ScatterElements", "Scatter")
def _scatter_elements(view: NodeView) -> Function:
    axis = view.attr("axis", 0)
    how = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}.get(view.attr("reduction", "none"))

    def run(x: torch.Tensor, index: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
        where = _positive(index.long(), x.shape[axis])
        return x.scatter(axis, where, updates) if how is None else x.scatter_reduce(axis, where, updates, how)

    return run


@rule("ScatterND")
def _scatter_nd(view: NodeView) -> Function:
    how = view.attr("reduction", "none")
    if how not in ("none", "add"):
        raise view.refuse(f"expected reduction none or add, found {how!r}.")

    def run(x: torch.Tensor, index: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
        return x.index_put(tuple(index.long().unbind(-1)), updates, accumulate=how == "add")

    return run


@rule("OneHot")
def _one_hot(view: NodeView) -> Function:
    axis, depth = view.attr("axis", -1), view.ints(1)

    def run(index: torch.Tensor, size: torch.Tensor | None, values: torch.Tensor) -> torch.Tensor:
        (classes,) = now(depth, size) or [0]
        hot = F.one_hot(index.long().remainder(classes), classes).movedim(-1, axis).bool()
        return torch.where(hot, values[1], values[0])

    return run


@rule("ConstantOfShape")
def _constant_of_shape(view: NodeView) -> Function:
    value, fixed = view.attr("value"), view.ints(0)
    fill = torch.zeros(1) if value is None else to_tensor(numpy_helper.to_array(value)).reshape(-1)

    def run(shape: torch.Tensor | None) -> torch.Tensor:
        return fill.expand(now(fixed, shape) or []) if fill.numel() == 1 else fill

    return run


@rule("Trilu")
def _trilu(view: NodeView) -> Function:
    upper, fixed = view.attr("upper", 1), view.ints(1)
    function: Function = torch.triu if upper else torch.tril
    return lambda x, k=None: function(x, (now(fixed, k) or [0])[0])


@rule("GridSample")
def _grid_sample(view: NodeView) -> Function:
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(view.attr("mode", "linear"), view.attr("mode", "linear"))
    edge, aligned = view.attr("padding_mode", "zeros"), bool(view.attr("align_corners", 0))
    return lambda x, grid: F.grid_sample(x, grid, mode, edge, aligned)


def _range(start: torch.Tensor, limit: torch.Tensor, delta: torch.Tensor) -> Any:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype, device=start.device)


plain("Range", _range)
plain("NonZero", lambda x: torch.nonzero(x).t())
