"""Element by element, and along axes."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.operators.case import case, f, i, positive, whole, x2

UNARY = [
    "Relu",
    "Sigmoid",
    "Tanh",
    "Erf",
    "Exp",
    "Reciprocal",
    "Abs",
    "Neg",
    "Floor",
    "Ceil",
    "Round",
    "Sign",
    "Sin",
    "Cos",
    "Tan",
    "Atan",
    "Sinh",
    "Cosh",
    "Asinh",
    "Softsign",
    "Softplus",
    "HardSwish",
    "Mish",
    "Identity",
    "IsNaN",
    "IsInf",
    "LeakyRelu",
    "Elu",
    "Celu",
    "Selu",
    "ThresholdedRelu",
    "HardSigmoid",
    "Shrink",
]
unit = np.clip(f(3, 4), -0.9, 0.9)
halves = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.3], np.float32)
yes, no = f(3, 4) > 0, f(3, 4) > 0
ELEMENTWISE = [
    *(case(op, f(3, 4)) for op in UNARY),
    *(case(op, positive) for op in ("Log", "Sqrt")),
    *(case(op, unit) for op in ("Asin", "Acos", "Atanh")),
    case("Acosh", positive + 1),
    case("Round", halves),
    case("Not", yes),
    case("Gelu", f(3, 4), opset=20),
    case("Gelu", f(3, 4), opset=20, approximate="tanh"),
    case("LeakyRelu", f(3, 4), alpha=0.3),
    case("Elu", f(3, 4), alpha=2.0),
    case("HardSigmoid", f(3, 4), alpha=0.5, beta=0.1),
    *(
        case(op, f(3, 4), f(4))
        for op in (
            "Add",
            "Sub",
            "Mul",
            "Div",
            "Max",
            "Min",
            "Greater",
            "Less",
            "Equal",
            "GreaterOrEqual",
            "LessOrEqual",
        )
    ),
    *(case(op, yes, no) for op in ("And", "Or", "Xor")),
    *(case(op, whole, whole[::-1].copy()) for op in ("Div", "Mod", "Mul")),
    case("Mod", f(3, 4), positive, fmod=1),
    case("Pow", positive, f(3, 4)),
    case("Pow", positive, constants={1: i(2)}),
    case("PRelu", x2, constants={1: f(6, 1, 1)}),
    case("Where", yes, f(3, 4), f(4)),
    *(case(op, f(3, 4), f(4), f(3, 1)) for op in ("Sum", "Mean", "Max", "Min")),
    case("Clip", f(3, 4), min=-0.5, max=0.5, opset=6),
    case("Clip", f(3, 4), max=0.5, opset=9),
    case("Clip", f(3, 4), constants={1: np.float32(-0.5), 2: np.float32(0.5)}),
    case("Clip", f(3, 4), constants={2: np.float32(0.5)}),
    case("Clip", f(3, 4), np.array(-0.1, np.float32)),
    case("Dropout", f(3, 4), ratio=0.5, opset=10),
    case("Dropout", f(3, 4), constants={1: np.float32(0.5)}),
    case("Dropout", f(3, 4), outputs=2),
    *(
        case("Cast", 3 * f(3, 4), to=kind)
        for kind in (
            TensorProto.INT64,
            TensorProto.INT32,
            TensorProto.BOOL,
            TensorProto.FLOAT16,
            TensorProto.DOUBLE,
            TensorProto.INT8,
        )
    ),
    *(case(op, whole, whole[::-1].copy()) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")),
    case("BitwiseNot", whole),
    case("Swish", f(3, 4), alpha=1.5, opset=24),
    case("Cast", whole, to=TensorProto.FLOAT),
    case("CastLike", f(3, 4), whole, opset=19),
]
REDUCTIONS = [
    *(
        case(f"Reduce{kind}", positive.reshape(3, 2, 2), axes=[1], keepdims=keep, opset=11)
        for kind in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")
        for keep in (0, 1)
    ),
    *(
        case(f"Reduce{kind}", positive.reshape(3, 2, 2), constants={1: i(-1, 0)}, keepdims=0, within=1e-4)
        for kind in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")
    ),
    case("ReduceSum", f(3, 4)),
    case("ReduceSum", f(3, 4), noop_with_empty_axes=1),
    case("ReduceSum", whole),
    *(
        case(op, f(2, 3, 4), opset=opset, **axis)
        for op in ("Softmax", "LogSoftmax", "Hardmax")
        for opset in (11, 13)
        for axis in ({}, {"axis": 1}, {"axis": -1}, {"axis": 0})
    ),
    *(
        case(op, f(3, 4), axis=axis, keepdims=keep)
        for op in ("ArgMax", "ArgMin")
        for axis in (0, -1)
        for keep in (0, 1)
    ),
    case("ArgMax", np.array([[1, 3, 3]], np.float32), axis=1, select_last_index=1),
    case("TopK", f(3, 7), constants={1: i(3)}, outputs=2),
    case("TopK", f(7, 3), constants={1: i(2)}, axis=0, largest=0, outputs=2),
    case("CumSum", f(3, 4), constants={1: np.array(1)}),
    case("CumSum", f(3, 4), constants={1: np.array(0)}, exclusive=1, reverse=1),
]
CASES = [*ELEMENTWISE, *REDUCTIONS]
