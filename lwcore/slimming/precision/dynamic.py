"""Dynamic int8 with onnxruntime's quantizer, in memory: a model in, the bytes of a model of standard operators out."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import helper

from lwcore.errors import SlimError
from lwcore.model import Model
from lwcore.slimming.precision.prepare import translating
from lwcore.sources.normalise import normalise

STANDARD = ("", "ai.onnx")


def quantize_dynamic(model: Model) -> bytes:
    """Store the weights of convolutions and matrix products in uint8; activations are quantized while it runs.

    The weights are uint8 because onnxruntime's ConvInteger takes no signed ones on most processors.

    Raises:
        SlimError: onnxruntime's quantizer refuses the model, or what it made cannot be run.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
    from onnxruntime.quantization.quant_utils import QuantizationMode

    with translating("int8-dynamic"):
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
