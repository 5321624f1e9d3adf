"""Fewer bits a number: fp16, int8 with ranges found while it runs (dynamic), int8 with calibrated ranges (static).

Every result is a file of standard ONNX operators that reads and answers float32, like the one it was made from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import TensorProto

from lwcore import runtime
from lwcore.answers import logits
from lwcore.errors import LwcoreError, SlimError
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.recipe import Precision
from lwcore.samples import SampleSet
from lwcore.settings import SETTINGS
from lwcore.slimming.processor import ranking
from lwcore.slimming.quantizer import DYNAMIC_OPSET, STATIC_OPSET, finished, prepared, quantize_dynamic, quantize_static
from lwcore.slimming.ranges import activation_ranges
from lwcore.timing import take_turns

TIMING_SECONDS = 0.3  # for both files together
SAME_SPEED = 0.05  # a difference below this share is not worth a word
ACCEPTED = 0.01  # share of other answers (one is always allowed) at which a variant is taken without trying the next
BETTER = 0.01  # agreement that a slower variant must add to be preferred

_INT8_OPERATORS = frozenset(
    {
        "QuantizeLinear",
        "DequantizeLinear",
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
    data, notes = _FORMATS[step.format](model, step, _chosen(samples, step.samples, seed))
    slimmed = Model(data=data, card=model.card, notes=model.notes)
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


def _chosen(samples: SampleSet | None, count: int, seed: int) -> SampleSet | None:
    """At most `count` samples, spread over the set by the seed (sets are often sorted by class)."""
    if samples is None or len(samples) <= count:
        return samples
    picked = np.sort(np.random.default_rng(seed).permutation(len(samples))[:count])
    labels = None if samples.labels is None else samples.labels[picked]
    names = tuple(samples.names[i] for i in picked) if samples.names else ()
    return dataclasses.replace(samples, pixels=samples.pixels[picked], labels=labels, names=names)


def _fp16(model: Model, step: Precision, samples: SampleSet | None) -> tuple[bytes, tuple[str, ...]]:
    import onnx
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    try:
        half = convert_float_to_float16(proto, keep_io_types=True, disable_shape_infer=True)
        data = finished(ONNXModel(half))
    except LwcoreError:
        raise
    except Exception as error:  # a foreign tool raises whatever it likes
        raise SlimError(
            f"Precision fp16: expected a model that onnxruntime's tools can convert; they refused this one "
            f"({str(error)[:200]}). Choose another precision, or none."
        ) from None
    return data, (
        "fp16 halves the file. Most processors compute fp16 no faster than fp32 (they widen it first); "
        "graphics cards and phones do.",
    )


def _int8_dynamic(model: Model, step: Precision, samples: SampleSet | None) -> tuple[bytes, tuple[str, ...]]:
    data = quantize_dynamic(prepared(model, DYNAMIC_OPSET))
    note = "Dynamic int8 measures the range of every activation while it runs, which costs time in convolutions."
    has_convolutions = any(node.op_type == "Conv" for node in Graph.view(model).nodes)
    return data, ((note + " Static int8 is the one to try there.",) if has_convolutions else ())


def _int8_static(model: Model, step: Precision, samples: SampleSet | None) -> tuple[bytes, tuple[str, ...]]:
    if samples is None or not len(samples):
        raise SlimError(
            "Precision int8-static: expected calibration samples, found none. Give samples, or choose fp16 "
            "or int8-dynamic, which need none."
        )
    ready = prepared(model, STATIC_OPSET)
    ranges = activation_ranges(ready, samples, step.ranges)
    if step.variant != "auto":
        return quantize_static(ready, ranges, step.variant), _saturation_notes(step.variant)
    return _best_variant(ready, ranges, samples)


def _best_variant(
    model: Model, ranges: Mapping[str, tuple[float, float]], samples: SampleSet
) -> tuple[bytes, tuple[str, ...]]:
    """The fastest variant on this processor that answers (almost) as the float32 model does."""
    wanted = _answers(model, model.data, samples)
    tried: dict[str, tuple[float, bytes]] = {}
    for name in ranking():
        data = quantize_static(model, ranges, name)
        others = int((_answers(model, data, samples) != wanted).sum())
        tried[name] = (1 - others / len(samples), data)
        if others <= max(1, ACCEPTED * len(samples)):
            break
    best = next(iter(tried))
    for name, (agreement, _) in tried.items():
        if agreement > tried[best][0] + BETTER:
            best = name
    agreement, data = tried[best]
    note = (
        f"Variant {best} was chosen for this processor; it gives the float32 answer on {100 * agreement:.1f} % of "
        f"the {len(samples)} calibration samples."
    )
    return data, (note, *_saturation_notes(best))


def _answers(model: Model, data: bytes, samples: SampleSet) -> np.ndarray:
    runner = runtime.session(data)
    return np.asarray(logits(runner, model, samples).argmax(axis=1))


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
    shape = tuple(Graph.view(model).shape(Graph.view(model).inputs[0]))
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    before, after = take_turns([_run(runner, array) for runner in runners], TIMING_SECONDS)
    ratio = after.median_ms / before.median_ms
    if ratio > 1 + SAME_SPEED:
        return (
            f"On this processor {name} ran {ratio:.2f}× slower than the same model before this step "
            f"({after.median_ms:.3g} ms against {before.median_ms:.3g} ms, {SETTINGS.threads} threads).",
        )
    if ratio > 1 - SAME_SPEED:
        return (f"On this processor {name} ran no faster than the same model before this step.",)
    return ()


def _run(runner: Any, array: np.ndarray) -> Callable[[], object]:
    return lambda: runtime.run(runner, array)


_FORMATS: Mapping[str, Callable[[Model, Precision, SampleSet | None], tuple[bytes, tuple[str, ...]]]] = {
    "fp16": _fp16,
    "int8-dynamic": _int8_dynamic,
    "int8-static": _int8_static,
}
