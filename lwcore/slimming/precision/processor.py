"""Which int8 variant this processor runs fastest: what it can do, and what was measured on it once and remembered."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lwcore import runtime
from lwcore.model import Card, Model
from lwcore.settings import SETTINGS
from lwcore.slimming.precision.variants import VARIANTS
from lwcore.slimming.precision.write import quantize_static
from lwcore.sources.normalise import normalise
from lwcore.timing import take_turns

CLEARLY = 1.15  # a variant must be this many times faster than a preferred one to come before it
TIMING_SECONDS = 0.8

# Best first where nothing is clearly faster. With VNNI, u8s8 products are added up without saturation; without it their
# 16-bit sums can saturate, which 7-bit weights (`reduced`) rule out; ARM multiplies signed by signed.
# Source: onnxruntime.ai/docs/performance/model-optimizations/quantization.html
PREFERENCE: Mapping[str, tuple[str, ...]] = {
    "vnni": ("u8s8", "u8u8", "s8s8", "u8s8-reduced"),
    "arm": ("s8s8", "u8s8", "u8u8", "u8s8-reduced"),
    "plain": ("u8s8-reduced", "u8u8", "u8s8", "s8s8"),
}


@dataclass(frozen=True, kw_only=True)
class Processor:
    """What is known about this machine's processor.

    Attributes:
        kind: `vnni`, `arm` or `plain` (x86 without 8-bit dot products).
        key: short digest of model name, instruction sets and onnxruntime version; names the remembered measurement.
    """

    kind: str
    key: str


@lru_cache(maxsize=1)
def processor() -> Processor:
    """The processor this runs on, as far as the system tells."""
    import onnxruntime

    text = ""
    with suppress(OSError):  # only Linux has the file; elsewhere the machine's name has to do
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    lines = dict(line.split(":", 1) for line in text.splitlines()[:40] if ":" in line)
    fields = {name.strip(): value.strip() for name, value in lines.items()}
    flags = fields.get("flags", "").split()
    known = (fields.get("model name", ""), platform.machine(), *sorted(flags), onnxruntime.__version__)
    key = hashlib.sha256("|".join(known).encode()).hexdigest()[:16]
    return Processor(kind=kind_of(platform.machine(), flags), key=key)


def kind_of(machine: str, flags: list[str]) -> str:
    """`vnni`, `arm` or `plain`, from the machine's name and the flags of /proc/cpuinfo."""
    if machine.lower().startswith(("arm", "aarch")):
        return "arm"
    return "vnni" if any("vnni" in flag or flag == "amx_int8" for flag in flags) else "plain"


@lru_cache(maxsize=1)
def ranking() -> tuple[str, ...]:
    """Variants in the order to try them, fastest first; the same on every call on this machine.

    Speeds are measured once on a small network of fixed weights and remembered on disk under the processor's key, so
    that timing noise cannot make the same recipe give other bytes the next day.
    """
    here = processor()
    path = Path(SETTINGS.home) / f"int8-{here.key}.json"
    times = _remembered(path)
    if times is None:
        times = measure_variants()
        _remember(path, times)
    return order(times, PREFERENCE[here.kind])


def order(times: Mapping[str, float], preference: tuple[str, ...]) -> tuple[str, ...]:
    """Sort variants by time; one that is not clearly faster stays behind those that are preferred to it."""
    left, found = list(preference), []
    while left:
        fastest = min(times[name] for name in left)
        best = next(name for name in left if times[name] <= fastest * CLEARLY)
        left.remove(best)
        found.append(best)
    return tuple(found)


def measure_variants() -> dict[str, float]:
    """Milliseconds a run of every variant of a small network of fixed weights, taken in turns on one thread."""
    model = _small_network()
    batch = {"x": np.random.default_rng(1).standard_normal((1, 16, 28, 28)).astype(np.float32)}
    ranges = {name: (-4.0, 4.0) for node in model.proto.graph.node for name in node.output} | {"x": (-4.0, 4.0)}
    runners = [runtime.session(quantize_static(model, ranges, name), threads=1) for name in VARIANTS]
    taken = take_turns(
        [lambda runner=runner: runtime.run(runner, batch) for runner in runners],  # type: ignore[misc]
        TIMING_SECONDS,
    )
    return {name: latency.low_ms for name, latency in zip(VARIANTS, taken, strict=True)}


def _small_network() -> Model:
    """Two 3×3 convolutions, a depthwise and two 1×1, as in the networks people slim."""
    rng = np.random.default_rng(0)
    nodes, tensors, last = [], [], "x"
    for index, (shape, groups) in enumerate(
        (((64, 16, 3, 3), 1), ((64, 64, 3, 3), 1), ((128, 64, 1, 1), 1), ((128, 1, 3, 3), 128), ((64, 128, 1, 1), 1))
    ):
        weight = rng.standard_normal(shape).astype(np.float32) / np.sqrt(np.prod(shape[1:]))
        tensors += [
            numpy_helper.from_array(weight.astype(np.float32), f"w{index}"),
            numpy_helper.from_array(np.zeros(shape[0], np.float32), f"b{index}"),
        ]
        nodes += [
            helper.make_node(
                "Conv", [last, f"w{index}", f"b{index}"], [f"c{index}"], group=groups, pads=[shape[2] // 2] * 4
            ),
            helper.make_node("Relu", [f"c{index}"], [f"r{index}"]),
        ]
        last = f"r{index}"
    body = helper.make_graph(
        nodes,
        "speed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 28, 28])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, 64, 28, 28])],
        tensors,
    )
    proto = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(proto)
    return Model(data=normalise(proto)[0], card=Card(name="speed"))


def _remembered(path: Path) -> dict[str, float] | None:
    try:
        times = json.loads(path.read_text(encoding="utf-8"))
        return {name: float(times[name]) for name in VARIANTS}
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not measured yet, or damaged: measure (again)


def _remember(path: Path, times: Mapping[str, float]) -> None:
    with suppress(OSError):  # a read-only home costs a measurement a process, nothing else
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            json.dump(times, file)
        os.replace(file.name, path)
