"""Fewer bits a number: one function a format, and what is true of all of them.

Every result but that of int4-matmul is a file of standard ONNX operators; each reads and answers float32, like the one
it was made from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from onnx import TensorProto

from lwcore import runtime
from lwcore.answers import example
from lwcore.errors import SlimError
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.recipe import Precision
from lwcore.samples import SampleSet
from lwcore.settings import SETTINGS
from lwcore.slimming.precision.dynamic import finished, quantize_dynamic
from lwcore.slimming.precision.embeddings import with_small_tables
from lwcore.slimming.precision.mixed import fewest_floats
from lwcore.slimming.precision.palette import to_palette
from lwcore.slimming.precision.prepare import DYNAMIC_OPSET, prepared, translating
from lwcore.slimming.precision.static import Judge, calibrate, split
from lwcore.slimming.precision.storage import store_int4, store_int8, store_matmul
from lwcore.slimming.precision.write import Quantizer
from lwcore.timing import take_turns

TIMING_SECONDS = 0.3  # for both files together
SAME_SPEED = 0.05  # a difference below this share is not worth a word

_INT8_OPERATORS = frozenset(
    {
        "QuantizeLinear",
        "DequantizeLinear",
        "MatMulNBits",
        "DynamicQuantizeLinear",
        "ConvInteger",
        "MatMulInteger",
        "QLinearConv",
        "QLinearMatMul",
    }
)

Result = tuple[Model, tuple[str, ...]]


def reduce_precision(model: Model, step: Precision, samples: SampleSet | None = None, seed: int = 0) -> Result:
    """Store and run a model with fewer bits a number.

    Args:
        model: float32, channels removed or not.
        step: the format and, for static int8, how to calibrate.
        samples: calibration samples; only static int8 reads them.
        seed: chooses which of the samples calibrate, when there are more than `step.samples`.

    Returns:
        The model with the same card, and plain words on what it brings, a slower run included.

    Raises:
        SlimError: the model has fewer bits already, has no samples to calibrate with, or cannot be converted.
    """
    _check_float32(model)
    data, notes = _FORMATS[step.format](model, step, samples, seed)
    slimmed = dataclasses.replace(model, data=data)
    if step.format.startswith("int"):
        slimmed = with_small_tables(slimmed)
    return slimmed, (*notes, *_speed_notes(model, slimmed, step.format))


def _check_float32(model: Model) -> None:
    graph = Graph.view(model)
    if any(attribute.HasField("g") for node in graph.nodes for attribute in node.attribute):
        raise SlimError(
            "Precision: expected a model without branches or loops, found an If, Loop or Scan; the converters cannot "
            "follow its body. Channels and connections can still be removed."
        )
    if any(node.op_type in _INT8_OPERATORS for node in graph.nodes):
        raise SlimError(
            "Precision: expected a float32 model, found one whose weights are int8 already. Start from the "
            "original file to try another precision."
        )
    if any(kind == TensorProto.FLOAT16 for kind in graph.types.values()):
        raise SlimError(
            "Precision: expected a float32 model, found one that is fp16 already. Start from the original "
            "file to try another precision."
        )


def _fp16(model: Model, step: Precision, samples: SampleSet | None, seed: int) -> tuple[bytes, tuple[str, ...]]:
    import onnx
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    with translating("fp16"):
        half = convert_float_to_float16(proto, keep_io_types=True, disable_shape_infer=True)
        data = finished(ONNXModel(half))
    return data, (
        "fp16 halves the file. Most processors compute fp16 no faster than fp32 (they widen it first); "
        "graphics cards and phones do.",
    )


def _int8_dynamic(model: Model, step: Precision, samples: SampleSet | None, seed: int) -> tuple[bytes, tuple[str, ...]]:
    data = quantize_dynamic(prepared(model, DYNAMIC_OPSET))
    note = "Dynamic int8 measures the range of every activation while it runs, which costs time in convolutions."
    has_convolutions = any(node.op_type == "Conv" for node in Graph.view(model).nodes)
    return data, ((note + " Static int8 is the one to try there.",) if has_convolutions else ())


def _int8_static(model: Model, step: Precision, samples: SampleSet | None, seed: int) -> tuple[bytes, tuple[str, ...]]:
    if samples is None or not len(samples):
        raise SlimError(
            "Precision int8-static: expected calibration samples, found none. Give samples, or choose fp16 "
            "or int8-dynamic, which need none."
        )
    used, held_out = split(samples, step, seed)
    notes: tuple[str, ...] = ()
    with translating("int8-static"):
        way = calibrate(model, step, used)
        if step.drop is None:
            data = way.data(step.keep)
        else:
            data, notes = _within(way, step, used, held_out)
    judge = Judge(model=model, samples=used)
    if step.variant == "auto":
        share = f"{100 * judge.agreement(data):.1f} % of the {len(used)} calibration samples."
        notes = (f"Variant {way.variant} was chosen for this processor; it gives the float32 answer on {share}", *notes)
    return data, (*notes, *_saturation_notes(way.variant))


def _within(way: Quantizer, step: Precision, used: SampleSet, held_out: SampleSet) -> tuple[bytes, tuple[str, ...]]:
    """The file that loses at most `step.drop` points, and a note of what was measured."""
    assert step.drop is not None
    choose, verify = (Judge(model=way.model, samples=part) for part in (used, held_out))
    found = fewest_floats(way, choose, verify, step.keep, step.drop)
    unit = "accuracy" if held_out.labels is not None else "agreement with the original"
    where = f"{len(held_out)} {'calibration' if held_out is used else 'held-out calibration'} samples"
    data = way.data([*step.keep, *found.keep])
    if not found.keep:
        return data, (f"All operators are in int8: {found.lost:.2f} points of {unit} lost on {where}.",)
    return data, (
        f"{len(found.keep)} of {len(way.operators())} operators stay in float32 ({', '.join(found.keep)}): "
        f"{found.lost:.2f} points of {unit} lost on {where}, {found.lost_all:.2f} with all in int8.",
    )


def _saturation_notes(variant: str) -> tuple[str, ...]:
    if variant not in ("u8s8", "s8s8"):
        return ()
    return (
        f"{variant} adds 8-bit products in 16 bits on x86 processors without VNNI, where large sums saturate and "
        "give wrong answers; u8s8-reduced and u8u8 cannot.",
    )


def _speed_notes(model: Model, slimmed: Model, name: str) -> tuple[str, ...]:
    """A sentence when the new file is not faster than the one it was made from, measured here and now."""
    runners = [runtime.session(data) for data in (model.data, slimmed.data)]
    batch = example(Graph.view(model), seed=0)
    before, after = take_turns([_run(runner, batch) for runner in runners], TIMING_SECONDS)
    ratio = after.median_ms / before.median_ms
    if ratio > 1 + SAME_SPEED:
        return (
            f"On this processor {name} ran {ratio:.2f}× slower than the same model before this step "
            f"({after.median_ms:.3g} ms against {before.median_ms:.3g} ms, {SETTINGS.threads} threads).",
        )
    if ratio > 1 - SAME_SPEED:
        return (f"On this processor {name} ran no faster than the same model before this step.",)
    return ()


def _run(runner: Any, batch: runtime.Feed) -> Callable[[], object]:
    return lambda: runtime.run(runner, batch)


_FORMATS: Mapping[str, Callable[[Model, Precision, SampleSet | None, int], tuple[bytes, tuple[str, ...]]]] = {
    "fp16": _fp16,
    "int8-dynamic": _int8_dynamic,
    "int8-static": _int8_static,
    "int8-weights": lambda model, step, samples, seed: store_int8(model),
    "int4-weights": lambda model, step, samples, seed: store_int4(model),
    "int4-matmul": lambda model, step, samples, seed: store_matmul(model),
    "palette": lambda model, step, samples, seed: to_palette(model, step.bits),
}
