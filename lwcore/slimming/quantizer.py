"""onnxruntime's quantizers, in memory: a model in, the bytes of a model of standard operators out."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from lwcore.errors import LwcoreError, SlimError
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.slimming.fold import fold_batch_norms, foldable
from lwcore.sources.normalise import normalise

STATIC_OPSET = 13  # the first whose DequantizeLinear has one scale a channel
DYNAMIC_OPSET = 11  # the first with DynamicQuantizeLinear
STANDARD = ("", "ai.onnx")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Integer types of static int8: activations, weights, and whether weights use 7 bits only."""

    activations: str
    weights: str
    reduced: bool = False


VARIANTS: Mapping[str, Variant] = {
    "u8s8": Variant(activations="QUInt8", weights="QInt8"),
    "u8s8-reduced": Variant(activations="QUInt8", weights="QInt8", reduced=True),
    "u8u8": Variant(activations="QUInt8", weights="QUInt8"),
    "s8s8": Variant(activations="QInt8", weights="QInt8"),
}


def quantize_static(model: Model, ranges: Mapping[str, tuple[float, float]], variant: str) -> bytes:
    """Store weights in int8 a channel and put QuantizeLinear/DequantizeLinear pairs around every tensor with a range.

    Args:
        model: float32, prepared by `prepared(model, STATIC_OPSET)` where its operators are older.
        ranges: lowest and highest value of each activation.
        variant: a name in `VARIANTS`.

    Raises:
        SlimError: onnxruntime's quantizer refuses the model, or what it made cannot be run.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    chosen = VARIANTS[variant]
    found = {name: (np.asarray(low, np.float32), np.asarray(high, np.float32)) for name, (low, high) in ranges.items()}
    with _quantizing("int8-static"):
        quantizer = QDQQuantizer(
            _marked(model),
            per_channel=True,
            reduce_range=chosen.reduced,
            weight_qType=getattr(QuantType, chosen.weights),
            activation_qType=getattr(QuantType, chosen.activations),
            tensors_range=TensorsData(CalibrationMethod.MinMax, found),
            nodes_to_quantize=[],
            nodes_to_exclude=[],
            op_types_to_quantize=sorted({*QLinearOpsRegistry, *QDQRegistry}),
            extra_options={},
        )
        quantizer.quantize_model()
        return finished(quantizer.model)


def quantize_dynamic(model: Model) -> bytes:
    """Store the weights of convolutions and matrix products in uint8; activations are quantized while it runs.

    The weights are uint8 because onnxruntime's ConvInteger takes no signed ones on most processors.

    Raises:
        SlimError: onnxruntime's quantizer refuses the model, or what it made cannot be run.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
    from onnxruntime.quantization.quant_utils import QuantizationMode

    with _quantizing("int8-dynamic"):
        quantizer = ONNXQuantizer(
            _marked(model),
            per_channel=False,
            reduce_range=False,
            mode=QuantizationMode.IntegerOps,
            static=False,
            weight_qType=QuantType.QUInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=None,
            nodes_to_quantize=[],
            nodes_to_exclude=[],
            op_types_to_quantize=["Conv", "MatMul"],
            extra_options={"MatMulConstBOnly": True},
        )
        quantizer.quantize_model()
        return finished(quantizer.model)


def prepared(model: Model, opset: int) -> Model:
    """The model with operators of at least `opset`, and its batch norms folded into the convolutions before them.

    Raises:
        SlimError: the operators cannot be translated.
    """
    if Graph.view(model).opset < opset:
        with _quantizing("preparing"):
            newer = onnx.version_converter.convert_version(model.proto, opset)
            model = dataclasses.replace(model, data=normalise(newer)[0])
    graph = Graph.view(model)
    return dataclasses.replace(model, data=fold_batch_norms(graph).serialize()) if foldable(graph) else model


def finished(model: Any) -> bytes:
    """Bytes of an onnxruntime `ONNXModel`: sorted, with shapes, of standard operators only; it has run once."""
    model.topological_sort()
    proto = model.model
    strange = {node.domain for node in proto.graph.node} - set(STANDARD)
    if strange:
        raise SlimError(f"Expected standard operators only, found the domain {', '.join(sorted(strange))}.")
    standard = [item for item in proto.opset_import if item.domain in STANDARD]
    del proto.opset_import[:]
    proto.opset_import.extend(standard)
    proto.producer_name, proto.producer_version, proto.doc_string = "", "", ""
    return normalise(proto)[0]


def _marked(model: Model) -> onnx.ModelProto:
    """A copy that tells the quantizer that shapes are known, so that it writes no temporary files to infer them."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    helper.set_model_props(proto, {"onnx.infer": "onnxruntime.quant"})
    return proto


@contextmanager
def _quantizing(what: str) -> Iterator[None]:
    """Quiet the quantizer's advice to developers, and turn whatever it raises into one sentence."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    except LwcoreError as error:
        raise SlimError(f"Precision {what}: {error}") from None
    except Exception as error:  # a foreign tool raises whatever it likes
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SlimError(
            f"Precision {what}: expected a model that onnxruntime's tools can convert; they refused this "
            f"one ({text[:200]}). Choose another precision, or none."
        ) from None
    finally:
        root.setLevel(level)
