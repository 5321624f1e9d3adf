"""Files that are already quantized: what can be cut is, and what stays has a reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from lwcore.model import Model
from tests.graphs import arrays, conv, made, proto_of, sizes
from tests.helpers import assert_law


def _float_net() -> onnx.ModelProto:
    nodes = [
        conv("x", "a", "p", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["p"], ["r"]),
        conv("r", "d", "q", group=8, pads=[1, 1, 1, 1]),
        conv("q", "b", "s"),
        helper.make_node("Add", ["s", "r"], ["t"]),
        conv("x", "e", "u"),
        helper.make_node("Concat", ["t", "u"], ["v"], axis=1),
        helper.make_node("GlobalAveragePool", ["v"], ["g"]),
        helper.make_node("Flatten", ["g"], ["z"]),
        helper.make_node("Gemm", ["z", "f", "fb"], ["y"], name="fc", transB=1),
    ]
    weights = arrays(a=(8, 3, 3, 3), d=(8, 1, 3, 3), b=(8, 8, 1, 1), e=(6, 3, 1, 1), f=(4, 14), fb=(4,))
    return proto_of(nodes, weights, {"x": [1, 3, 6, 6]}, opset=13)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], Model]:
    """The small network as onnxruntime's own quantizer stores it."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            rng = np.random.default_rng(0)
            self.batches = iter([{"x": rng.standard_normal((1, 3, 6, 6)).astype(np.float32)} for _ in range(8)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    folder: Path = tmp_path_factory.mktemp("quantized")
    source = folder / "float.onnx"
    onnx.save(_float_net(), source)

    def make(form: str, per_channel: bool) -> Model:
        target = folder / f"{form}-{per_channel}.onnx"
        if form == "dynamic":
            quantize_dynamic(source, target, per_channel=per_channel, weight_type=QuantType.QInt8)
        else:
            quantize_static(
                source,
                target,
                Reader(),
                quant_format=QuantFormat[form],
                per_channel=per_channel,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        return made(onnx.load(target))

    return make


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("form", ["QDQ", "QOperator", "dynamic"])
def test_files_that_are_already_quantized_can_be_cut(
    quantized: Callable[[str, bool], Model], form: str, per_channel: bool
) -> None:
    # Rounding is in steps of the output's scale: one step may differ where sums are ordered otherwise.
    coupling = assert_law(quantized(form, per_channel), share=0.4, tolerance=0.03)
    assert sum(g.channels for g in coupling.groups) == 14
    assert all(f.meant for f in coupling.frozen)


def test_weights_in_blocks_that_share_a_scale_stay_with_a_reason() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], name="first"),
        helper.make_node(
            "MatMulNBits",
            ["p", "packed", "scales"],
            ["q"],
            name="blocks",
            domain="com.microsoft",
            K=32,
            N=8,
            bits=4,
            block_size=16,
        ),
        helper.make_node("MatMul", ["q", "f"], ["r"], name="third"),
        helper.make_node("MatMul", ["r", "g"], ["y"], name="fc"),
    ]
    weights = arrays(a=(5, 32), scales=(16,), f=(8, 6), g=(6, 3))
    weights["packed"] = np.random.default_rng(0).integers(0, 256, (8, 2, 8), dtype=np.uint8)
    proto = proto_of(nodes, weights, {"x": [1, 5]})
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    coupling = assert_law(made(proto))
    assert sizes(coupling) == {"third": 6}
    frozen = {f.layer: f for f in coupling.frozen}
    assert frozen["first"].meant
    assert "blocks that share a scale" in frozen["first"].reason


def test_a_blockwise_dequantizer_keeps_what_its_weight_touches() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], name="first"),
        helper.make_node("DequantizeLinear", ["packed", "scales"], ["w"], axis=0, block_size=16),
        helper.make_node("MatMul", ["p", "w"], ["q"], name="blocks"),
        helper.make_node("MatMul", ["q", "f"], ["r"], name="third"),
        helper.make_node("MatMul", ["r", "g"], ["y"], name="fc"),
    ]
    weights = arrays(a=(5, 32), scales=(2, 8), f=(8, 6), g=(6, 3))
    weights["packed"] = np.random.default_rng(0).integers(-8, 8, (32, 8)).astype(np.int8)
    coupling = assert_law(made(proto_of(nodes, weights, {"x": [1, 5]}, opset=21)))
    assert sizes(coupling) == {"third": 6}
    assert {f.layer: f.meant for f in coupling.frozen}["first"]
