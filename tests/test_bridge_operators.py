"""Every operator rule of the bridge computes what onnxruntime computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from lwcore.bridge import RULES, to_torch
from lwcore.graph import Graph
from lwcore.model import Model

rng = np.random.default_rng(0)


def f(*shape: int) -> np.ndarray:
    """Normal float32 values."""
    return rng.standard_normal(shape).astype(np.float32)


def i(*values: int) -> np.ndarray:
    """Whole numbers as int64."""
    return np.array(values, np.int64)


@dataclass
class Case:
    """One node: `inputs` are fed, `constants` are initializers by position (inputs take the positions left over)."""

    op: str
    inputs: Sequence[np.ndarray]
    constants: dict[int, np.ndarray] = field(default_factory=dict)
    opset: int = 18
    outputs: int = 1
    within: float = 2e-5
    attributes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        shown = ",".join(f"{k}={v}" for k, v in self.attributes.items())
        return f"{self.op}-{self.opset}-{'x'.join(str(v.shape) for v in self.inputs)}-{shown}".replace(" ", "")


def case(
    op: str,
    *inputs: np.ndarray,
    constants: dict[int, np.ndarray] | None = None,
    opset: int = 18,
    outputs: int = 1,
    within: float = 2e-5,
    **attributes: Any,
) -> Case:
    return Case(op, inputs, constants or {}, opset, outputs, within, attributes)


def node_model(c: Case) -> Model:
    """A model of the one node, with the output shapes that onnxruntime finds for the case's inputs."""
    fed = iter(range(len(c.inputs)))
    last = max([len(c.inputs) + len(c.constants) - 1, *c.constants])
    names = []
    for position in range(last + 1):
        index = None if position in c.constants else next(fed, None)
        names.append(f"c{position}" if position in c.constants else "" if index is None else f"x{index}")
    outputs = [f"y{k}" for k in range(c.outputs)]
    graph = helper.make_graph(
        [helper.make_node(c.op, names, outputs, name="it", **c.attributes)],
        "g",
        [_info(f"x{k}", v) for k, v in enumerate(c.inputs)],
        [onnx.ValueInfoProto(name=n) for n in outputs],
        [numpy_helper.from_array(np.asarray(v), f"c{k}") for k, v in c.constants.items()],
    )
    opsets = [helper.make_opsetid("", c.opset), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    results = session(proto.SerializeToString()).run(None, {f"x{k}": v for k, v in enumerate(c.inputs)})
    del graph.output[:]
    graph.output.extend(_info(n, v) for n, v in zip(outputs, results, strict=True))
    proto.graph.CopyFrom(graph)
    return Model(data=proto.SerializeToString())


def _info(name: str, value: np.ndarray) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def session(data: bytes) -> ort.InferenceSession:
    """onnxruntime without its graph rewrites, on one thread."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(data, options)


def run_both(model: Model, inputs: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(torch, onnxruntime) results of every output."""
    graph = Graph.view(model)
    wanted = session(model.data).run(None, dict(zip(graph.inputs, inputs, strict=True)))
    with torch.no_grad():
        found = to_torch(model)(*(torch.from_numpy(v.copy()) for v in inputs))
    found = found if isinstance(found, tuple) else (found,)
    return [(a.numpy(), b) for a, b in zip(found, wanted, strict=True)]


def assert_same(model: Model, inputs: Sequence[np.ndarray], within: float = 2e-5) -> None:
    for found, wanted in run_both(model, inputs):
        assert found.dtype == wanted.dtype
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found.astype(np.float64), wanted.astype(np.float64), rtol=within, atol=within)


x1, x2, x3 = f(2, 6, 11), f(2, 6, 9, 10), f(1, 4, 6, 7, 5)
w2 = {1: f(8, 6, 3, 3), 2: f(8)}
CONV = [
    case("Conv", x2, constants=w2),
    case("Conv", x2, constants={1: w2[1]}, pads=[1, 1, 1, 1], strides=[2, 2]),
    case("Conv", x2, constants=w2, pads=[0, 1, 2, 1]),
    case("Conv", x2, constants={1: f(12, 2, 3, 2), 2: f(12)}, group=3, dilations=[2, 3], pads=[2, 2, 1, 3]),
    case("Conv", x2, constants={1: f(6, 1, 3, 3)}, group=6, kernel_shape=[3, 3]),
    *(case("Conv", x2, constants=w2, auto_pad=auto, strides=[2, 3]) for auto in ("SAME_UPPER", "SAME_LOWER", "VALID")),
    case("Conv", x2, constants=w2, auto_pad="SAME_UPPER"),
    case("Conv", x1, constants={1: f(4, 6, 3), 2: f(4)}, pads=[1, 2], strides=[2]),
    case("Conv", x3, constants={1: f(4, 2, 3, 2, 2), 2: f(4)}, group=2, pads=[1, 0, 1, 1, 0, 1], within=1e-4),
    case("Conv", x2, w2[1], w2[2]),
    case(
        "ConvTranspose",
        x2,
        constants={1: f(6, 4, 3, 3), 2: f(4)},
        strides=[2, 2],
        pads=[1, 1, 1, 1],
        output_padding=[1, 1],
    ),
    case("ConvTranspose", x2, constants={1: f(6, 2, 3, 3)}, group=2, strides=[2, 3], pads=[0, 1, 1, 2]),
    case("ConvTranspose", x2, constants={1: f(6, 2, 3, 3)}, strides=[2, 2], auto_pad="SAME_UPPER"),
    case("ConvTranspose", x2, constants={1: f(6, 2, 3, 3)}, strides=[2, 2], output_shape=[18, 20]),
    case("ConvTranspose", x1, constants={1: f(6, 3, 4), 2: f(3)}, dilations=[2]),
    case("Gemm", f(3, 5), constants={1: f(4, 5), 2: f(4)}, transB=1),
    case("Gemm", f(3, 5), constants={1: f(5, 4), 2: f(1, 4)}, alpha=0.5, beta=2.0),
    case("Gemm", f(5, 3), constants={1: f(4, 5), 2: f(3, 4)}, transA=1, transB=1),
    case("Gemm", f(3, 5), constants={1: f(5, 4)}),
    case("Gemm", f(3, 5), f(5, 4), f(3, 1)),
    case("MatMul", f(2, 3, 5), constants={1: f(5, 4)}),
    case("MatMul", f(2, 3, 5), f(2, 5, 3)),
    case("MatMul", f(5), f(5, 3)),
    case("Einsum", f(2, 3, 4), f(2, 4, 5), equation="bij,bjk->bik"),
]
NORMALISATION = [
    *(
        case("BatchNormalization", x, constants={1: f(c), 2: f(c), 3: f(c), 4: f(c) ** 2}, epsilon=eps, opset=opset)
        for x, c in ((x1, 6), (x2, 6), (x3, 4), (f(3, 5), 5))
        for eps, opset in ((1e-5, 18), (1e-2, 9))
    ),
    case("LSTM", f(4, 2, 3), constants={1: f(1, 20, 3), 2: f(1, 20, 5)}, hidden_size=5),
    case(
        "LSTM",
        f(4, 2, 3),
        constants={1: f(2, 20, 3), 2: f(2, 20, 5), 3: f(2, 40), 5: f(2, 2, 5), 6: f(2, 2, 5)},
        outputs=3,
        hidden_size=5,
        direction="bidirectional",
    ),
    case("GRU", f(4, 2, 3), constants={1: f(1, 15, 3), 2: f(1, 15, 5), 3: f(1, 30)}, outputs=2, hidden_size=5),
    case(
        "GRU",
        f(4, 2, 3),
        constants={1: f(1, 15, 3), 2: f(1, 15, 5), 3: f(1, 30)},
        hidden_size=5,
        linear_before_reset=1,
        direction="reverse",
    ),
    case(
        "RNN", f(4, 2, 3), constants={1: f(2, 5, 3), 2: f(2, 5, 5)}, outputs=2, hidden_size=5, direction="bidirectional"
    ),
    case("LayerNormalization", f(2, 5, 8), constants={1: f(8), 2: f(8)}),
    case("LayerNormalization", f(2, 5, 8), constants={1: f(5, 8)}, axis=1, epsilon=1e-2),
    case("LayerNormalization", f(2, 5, 8), constants={1: f(8), 2: f(8)}, outputs=3),
    case("InstanceNormalization", x2, constants={1: f(6), 2: f(6)}),
    case("InstanceNormalization", x1, constants={1: f(6), 2: f(6)}),
    case("GroupNormalization", x2, constants={1: f(6), 2: f(6)}, num_groups=3, opset=21),
    case("GroupNormalization", x2, constants={1: f(3), 2: f(3)}, num_groups=3, opset=18),
    case("RMSNormalization", f(2, 5, 8), constants={1: f(8)}, opset=23),
    case("LpNormalization", x2, axis=1, p=1),
    case("LpNormalization", x2),
    case("MeanVarianceNormalization", x2),
    *(case("LRN", x2, size=size, alpha=0.3, beta=0.7, bias=1.5) for size in (3, 5)),
]
POOLING = [
    *(
        case(op, x2, kernel_shape=[3, 3], strides=[2, 2], pads=pads, ceil_mode=ceil, opset=opset)
        for op in ("MaxPool", "AveragePool")
        for pads in ([0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 2, 1])
        for ceil in (0, 1)
        for opset in (11, 18, 19)
    ),
    *(
        case(
            "AveragePool",
            x2,
            kernel_shape=[3, 3],
            strides=[2, 2],
            pads=pads,
            ceil_mode=ceil,
            count_include_pad=1,
            opset=19,
        )
        for pads in ([0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 2, 1])
        for ceil in (0, 1)
    ),
    *(
        case(op, x2, kernel_shape=[3, 2], auto_pad=auto, strides=[2, 2])
        for op in ("MaxPool", "AveragePool")
        for auto in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
    case("MaxPool", x2, kernel_shape=[2, 2], dilations=[2, 3]),
    case("MaxPool", x1, kernel_shape=[3], strides=[2], pads=[1, 1]),
    case("MaxPool", x3, kernel_shape=[2, 3, 2], strides=[2, 2, 1]),
    case("MaxPool", rng.integers(0, 255, (1, 3, 8, 8)).astype(np.uint8), kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    case("AveragePool", x2, kernel_shape=[2, 2], dilations=[2, 3], opset=19),
    case("AveragePool", x3, kernel_shape=[2, 3, 2]),
    case("LpPool", x2, kernel_shape=[3, 3], p=3, pads=[1, 1, 1, 1]),
    *(case(op, x) for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool") for x in (x1, x2, x3)),
]
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
positive, unit = np.abs(f(3, 4)) + 0.1, np.clip(f(3, 4), -0.9, 0.9)
halves = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.3], np.float32)
whole = rng.integers(1, 9, (3, 4)) * rng.choice([-1, 1], (3, 4))
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
far = np.iinfo(np.int64).max
SHAPING = [
    case("Reshape", f(2, 3, 4), constants={1: i(0, -1)}),
    case("Reshape", f(2, 3, 4), i(4, 6)),
    case("Flatten", f(2, 3, 4)),
    case("Flatten", f(2, 3, 4), axis=0),
    case("Flatten", f(2, 3, 4), axis=-1),
    case("Transpose", f(2, 3, 4)),
    case("Transpose", f(2, 3, 4), perm=[1, 0, 2]),
    case("Concat", f(2, 3), f(2, 5), axis=-1),
    case("Concat", f(2, 3), constants={1: f(4, 3)}, axis=0),
    case("Split", f(2, 7), constants={1: i(3, 4)}, axis=1, outputs=2),
    case("Split", f(6, 2), outputs=3, num_outputs=3),
    case("Split", f(7, 2), outputs=3, num_outputs=3),
    case("Split", f(2, 6), split=[1, 5], axis=1, outputs=2, opset=11),
    case("Split", f(6, 2), outputs=2, opset=11),
    case("Slice", f(5, 6), starts=[1, 0], ends=[4, -1], opset=9),
    case("Slice", f(5, 6), starts=[2], ends=[far], axes=[1], opset=9),
    case("Slice", f(5, 6), constants={1: i(1), 2: i(far), 3: i(1), 4: i(2)}),
    case("Slice", f(5, 6), constants={1: i(-1, 4), 2: i(-far, 0), 3: i(0, 1), 4: i(-1, -2)}),
    case("Slice", f(5, 6), constants={1: i(-2), 2: i(100)}),
    case("Slice", f(5, 6), i(1), i(4), i(0)),
    case("Slice", f(5, 6), constants={1: i(3), 2: i(1), 3: i(0)}),
    case("Squeeze", f(1, 3, 1), constants={1: i(0)}),
    case("Squeeze", f(1, 3, 1)),
    case("Squeeze", f(1, 3, 1), axes=[-1], opset=11),
    case("Unsqueeze", f(2, 3), constants={1: i(0, -1)}),
    case("Unsqueeze", f(2, 3), axes=[1, 3], opset=11),
    case("Expand", f(3, 1), constants={1: i(2, 1, 4)}),
    case("Expand", f(3, 1), i(3, 4)),
    case("Tile", f(2, 3), constants={1: i(2, 2)}),
    case("Shape", f(2, 3, 4)),
    case("Shape", f(2, 3, 4), start=1),
    case("Size", f(2, 3)),
    case("DepthToSpace", f(1, 8, 2, 3), blocksize=2),
    case("DepthToSpace", f(1, 8, 2, 3), blocksize=2, mode="CRD"),
    case("SpaceToDepth", f(1, 2, 4, 6), blocksize=2),
    *(case("Pad", x2, mode=mode, pads=[0, 0, 1, 2, 0, 0, 3, 0], opset=9) for mode in ("constant", "reflect", "edge")),
    *(
        case("Pad", x2, constants={1: i(0, 0, 1, 2, 0, 0, 3, 0)}, mode=mode, opset=19)
        for mode in ("constant", "reflect", "edge", "wrap")
    ),
    case("Pad", x2, constants={1: i(1, -1, 2, 0), 2: np.float32(3), 3: i(1, 3)}),
    case("Pad", whole, constants={1: i(1, 0, 0, 1), 2: np.int64(7)}),
]
INDEXING = [
    case("Gather", f(5, 3), constants={1: i(0, -1, 2)}),
    case("Gather", f(5, 3), constants={1: np.array([[0, 1], [2, -1]])}, axis=1),
    case("Gather", f(5, 3), constants={1: np.array(2)}),
    case("Gather", np.array([[0, 2], [1, -1]]), constants={0: f(4, 6)}),
    case("GatherElements", f(3, 3), constants={1: np.array([[0, -1, 2], [1, 1, 0]])}, axis=0),
    case("GatherND", f(2, 3, 4), constants={1: np.array([[0, 1], [1, -1]])}),
    case("GatherND", f(2, 3, 4), constants={1: np.array([[1], [2]])}, batch_dims=1),
    case("ScatterElements", f(3, 3), constants={1: np.array([[0, 2, 1]]), 2: f(1, 3)}),
    case("ScatterElements", f(3, 3), constants={1: np.array([[0, 2, 0]]), 2: f(1, 3)}, axis=1, reduction="add"),
    case("Scatter", f(3, 3), constants={1: np.array([[0, 2, 1]]), 2: f(1, 3)}, opset=10),
    case("ScatterND", f(4, 3), constants={1: np.array([[0], [-1]]), 2: f(2, 3)}),
    case("OneHot", np.array([0, 2, -1]), constants={1: np.array(4), 2: np.array([0.5, 2], np.float32)}),
    case("OneHot", np.array([0, 2, 1]), constants={1: np.array(3), 2: np.array([0, 1], np.float32)}, axis=0),
    case("ConstantOfShape", i(2, 3), value=helper.make_tensor("v", TensorProto.FLOAT, [1], [2.5])),
    case("Trilu", f(4, 4)),
    case("Trilu", f(4, 4), constants={1: np.array(1)}, upper=0),
    case("Range", np.array(1), np.array(9), np.array(3)),
    case("NonZero", f(3, 4) * (f(3, 4) > 0)),
    *(
        case(
            "GridSample",
            f(1, 2, 5, 6),
            np.clip(f(1, 4, 3, 2), -1.2, 1.2),
            mode=mode,
            padding_mode=edge,
            align_corners=a,
            opset=20,
            within=1e-4,
        )
        for mode in ("linear", "nearest")
        for edge in ("zeros", "border")
        for a in (0, 1)
    ),
]
SCALE = np.array([1, 1, 2, 2.5], np.float32)
SMALLER = np.array([1, 1, 0.6, 0.5], np.float32)
RESIZE = [
    *(
        case("Resize", x2, constants={2: s}, mode=mode, coordinate_transformation_mode=c, within=1e-4)
        for s in (SCALE, SMALLER)
        for mode in ("nearest", "linear", "cubic")
        for c in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    ),
    *(
        case(
            "Resize",
            x2,
            constants={2: SCALE},
            mode="nearest",
            nearest_mode=n,
            coordinate_transformation_mode="asymmetric",
        )
        for n in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    ),
    case("Resize", x2, constants={3: i(2, 6, 20, 13)}, mode="linear", within=1e-4),
    case("Resize", x2, constants={3: i(4, 5)}, axes=[2, 3], mode="linear", within=1e-4),
    case("Resize", x2, constants={3: i(2, 6, 4, 5)}, mode="linear", antialias=1, within=1e-4),
    case("Resize", x2, constants={2: SCALE}, mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5, within=1e-4),
    case("Resize", x2, constants={1: SCALE}, mode="nearest", opset=10),
    case("Upsample", x2, constants={1: np.array([1, 1, 2, 2], np.float32)}, mode="nearest", opset=9),
    case("Upsample", x2, constants={1: np.array([1, 1, 2, 2], np.float32)}, mode="linear", opset=9),
]


def u8(*shape: int) -> np.ndarray:
    return rng.integers(0, 255, shape).astype(np.uint8)


def s8(*shape: int) -> np.ndarray:
    return rng.integers(-60, 60, shape).astype(np.int8)  # half range: onnxruntime saturates u8·s8 on AVX2


s = np.float32
QUANTIZED = [
    case("QuantizeLinear", f(3, 4), constants={1: s(0.03), 2: np.uint8(100)}),
    case("QuantizeLinear", f(3, 4), constants={1: s(0.01), 2: np.int8(-5)}),
    case("QuantizeLinear", f(3, 4), constants={1: s(0.1)}),
    case("QuantizeLinear", f(3, 4), constants={1: np.abs(f(4)) + s(0.1), 2: np.zeros(4, np.int8)}, axis=1),
    case("DequantizeLinear", u8(3, 4), constants={1: s(0.03), 2: np.uint8(100)}),
    case("DequantizeLinear", s8(3, 4), constants={1: np.abs(f(3)), 2: np.zeros(3, np.int8)}, axis=0),
    case("DequantizeLinear", rng.integers(-999, 999, (4,)).astype(np.int32), constants={1: s(0.03)}),
    case("DynamicQuantizeLinear", f(3, 4), outputs=3),
    case("DynamicQuantizeLinear", positive, outputs=3),
    case(
        "ConvInteger",
        u8(1, 4, 6, 7),
        constants={1: u8(5, 4, 3, 3), 2: np.uint8(120), 3: np.uint8(7)},
        pads=[1, 0, 1, 2],
    ),
    case("ConvInteger", u8(1, 4, 6, 7), constants={1: u8(4, 2, 3, 3)}, group=2),
    case("MatMulInteger", u8(3, 5), constants={1: s8(5, 4), 2: np.uint8(12), 3: np.int8(3)}),
    case("MatMulInteger", u8(2, 3, 5), constants={1: s8(5, 4), 2: np.uint8(12), 3: s8(4)}),
    case(
        "QLinearConv",
        u8(1, 4, 6, 7),
        constants={
            1: s(0.02),
            2: np.uint8(120),
            3: s8(5, 4, 3, 3),
            4: np.abs(f(5)) / 50,
            5: np.zeros(5, np.int8),
            6: s(0.5),
            7: np.uint8(90),
            8: rng.integers(-99, 99, 5).astype(np.int32),
        },
        pads=[1, 1, 1, 1],
    ),
    case(
        "QLinearMatMul",
        u8(3, 5),
        constants={1: s(0.02), 2: np.uint8(120), 3: u8(5, 4), 4: s(0.01), 5: np.uint8(9), 6: s(0.05), 7: np.uint8(90)},
    ),
    case(
        "MatMulNBits",
        f(3, 40),
        constants={1: u8(4, 3, 8), 2: np.abs(f(12))},
        within=1e-4,
        domain="com.microsoft",
        K=40,
        N=4,
        bits=4,
        block_size=16,
    ),
]
CASES = [*CONV, *NORMALISATION, *POOLING, *ELEMENTWISE, *REDUCTIONS, *SHAPING, *INDEXING, *RESIZE, *QUANTIZED]


@pytest.mark.parametrize("c", CASES, ids=str)
def test_operator_computes_what_onnxruntime_computes(c: Case) -> None:
    assert_same(node_model(c), c.inputs, c.within)


def test_every_rule_is_covered_by_a_case_above() -> None:
    assert set(RULES) - {c.op for c in CASES} == set()
