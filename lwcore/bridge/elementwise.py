"""Operators that work value by value: activations, arithmetic, comparisons, casts, Clip, Dropout."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import reduce
from typing import Any

import torch
from torch.nn import functional as F

from lwcore.bridge.node import TORCH_TYPES, Function, NodeView, plain, rule


def _divide(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _power(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.pow(a, b).to(a.dtype)  # ONNX keeps the base's type


def _prelu(x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    return torch.where(x < 0, x * slope, x)


_PLAIN: Mapping[str, Function] = {
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Log": torch.log,
    "Sqrt": torch.sqrt,
    "Reciprocal": torch.reciprocal,
    "Abs": torch.abs,
    "Neg": torch.neg,
    "Floor": torch.floor,
    "Ceil": torch.ceil,
    "Round": torch.round,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Cos": torch.cos,
    "Tan": torch.tan,
    "Asin": torch.asin,
    "Acos": torch.acos,
    "Atan": torch.atan,
    "Sinh": torch.sinh,
    "Cosh": torch.cosh,
    "Asinh": torch.asinh,
    "Acosh": torch.acosh,
    "Atanh": torch.atanh,
    "Not": torch.logical_not,
    "IsNaN": torch.isnan,
    "Softsign": F.softsign,
    "Softplus": F.softplus,
    "HardSwish": F.hardswish,
    "Mish": F.mish,
    "Identity": lambda x: x,
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": _divide,
    "Pow": _power,
    "PRelu": _prelu,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "Less": torch.lt,
    "GreaterOrEqual": torch.ge,
    "LessOrEqual": torch.le,
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
    "Where": torch.where,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "BitwiseNot": torch.bitwise_not,
    "Sum": lambda *x: reduce(torch.add, x),
    "Mean": lambda *x: reduce(torch.add, x) / len(x),
    "Max": lambda *x: reduce(torch.maximum, x),
    "Min": lambda *x: reduce(torch.minimum, x),
}
for _operator, _function in _PLAIN.items():
    plain(_operator, _function)


@rule("LeakyRelu")
def _leaky_relu(view: NodeView) -> Function:
    slope = view.attr("alpha", 0.01)
    return lambda x: F.leaky_relu(x, slope)


@rule("Elu", "Celu")
def _elu(view: NodeView) -> Function:
    alpha, function = view.attr("alpha", 1.0), F.elu if view.op == "Elu" else F.celu
    return lambda x: function(x, alpha)


@rule("Selu")
def _selu(view: NodeView) -> Function:
    alpha, gamma = view.attr("alpha", 1.6732632423543772), view.attr("gamma", 1.0507009873554805)
    return lambda x: gamma * F.elu(x, alpha)


@rule("ThresholdedRelu")
def _thresholded_relu(view: NodeView) -> Function:
    alpha = view.attr("alpha", 1.0)
    return lambda x: F.threshold(x, alpha, 0.0)


@rule("HardSigmoid")
def _hard_sigmoid(view: NodeView) -> Function:
    alpha, beta = view.attr("alpha", 0.2), view.attr("beta", 0.5)
    return lambda x: torch.clamp(x * alpha + beta, 0.0, 1.0)


@rule("Swish")
def _swish(view: NodeView) -> Function:
    alpha = view.attr("alpha", 1.0)
    return lambda x: x * torch.sigmoid(alpha * x)


@rule("Gelu")
def _gelu(view: NodeView) -> Function:
    approximate = view.attr("approximate", "none")
    return lambda x: F.gelu(x, approximate=approximate)


@rule("Shrink")
def _shrink(view: NodeView) -> Function:
    bias, edge = view.attr("bias", 0.0), view.attr("lambd", 0.5)
    return lambda x: torch.where(x > edge, x - bias, torch.where(x < -edge, x + bias, torch.zeros_like(x)))


@rule("IsInf")
def _is_inf(view: NodeView) -> Function:
    low, high = view.attr("detect_negative", 1), view.attr("detect_positive", 1)
    return lambda x: torch.isinf(x) & (((x < 0) & bool(low)) | ((x > 0) & bool(high)))


@rule("Mod")
def _mod(view: NodeView) -> Function:
    return torch.fmod if view.attr("fmod", 0) else torch.remainder


@rule("Clip")
def _clip(view: NodeView) -> Function:
    if view.opset < 11:  # limits were attributes
        low, high = view.attr("min", -math.inf), view.attr("max", math.inf)
        return lambda x: torch.clamp(x, low, high)
    fixed = [_number(view, 1), _number(view, 2)]
    bottom, top = fixed
    if isinstance(bottom, float) and isinstance(top, float) and bottom < top:
        return lambda x, *_: F.hardtanh(x, bottom, top)  # clamp, but backwards in a fraction of its time

    def run(x: torch.Tensor, low: Any = None, high: Any = None) -> torch.Tensor:
        low, high = (given if known is None else known for known, given in zip(fixed, (low, high), strict=True))
        return x if low is None and high is None else torch.clamp(x, low, high)

    return run


def _number(view: NodeView, position: int) -> float | int | None:
    value = view.settle(position)
    return None if value is None else value.reshape(-1)[0].item()


@rule("Dropout")
def _dropout(view: NodeView) -> Function:
    view.settle(1)
    view.settle(2)
    if view.outputs() > 1:
        return lambda x, *_: (x, torch.ones_like(x, dtype=torch.bool))
    return lambda x, *_: x


@rule("Cast")
def _cast(view: NodeView) -> Function:
    dtype = torch_type(view, view.attr("to"))
    return lambda x: x.to(dtype)


plain("CastLike", lambda x, like: x.to(like.dtype))


def torch_type(view: NodeView, kind: int) -> torch.dtype:
    """The torch type of an ONNX element type; raises `ModelError` where there is none."""
    if kind not in TORCH_TYPES:
        raise view.refuse(f"expected a number type that torch can hold, found ONNX element type {kind}.")
    return TORCH_TYPES[kind]
