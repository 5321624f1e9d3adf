"""Convolutions, products, normalisation, recurrent layers, pooling, and what computes on integers."""

from __future__ import annotations

import numpy as np

from tests.operators.case import case, f, positive, rng, s8, u8, x1, x2, x3

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
CASES = [*CONV, *NORMALISATION, *POOLING, *QUANTIZED]
