""" "Why isn't it smaller or faster?": the causes in plain words, from what was measured on both files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lwcore.analysis.cost import constant_bytes, cost, macs
from lwcore.evaluation.kernels import Kernel, kernels, layer_of, start_seconds
from lwcore.evaluation.result import Evaluation
from lwcore.graph import Graph
from lwcore.model import Model

SMALLER, FASTER = 0.9, 0.9  # shares of the original's bytes and time from which on nothing needs to be explained
ZEROS = 0.1  # share of zeros that somebody put there on purpose
SHARE = 0.25  # of the time or the bytes: below, a cause explains too little
MOSTLY = 0.5  # share for causes that are true of every model to a degree
LOW_INTENSITY = 4.0  # multiply–accumulates for each byte moved; below, processors wait for memory
BLOCK = 8  # channels that onnxruntime's kernels compute together
_INT8 = frozenset(
    {
        "QLinearConv",
        "QGemm",
        "QLinearMatMul",
        "ConvInteger",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
    }
)
_CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One reason: a code for programs, a sentence for people, and the numbers in it (shares 0–1)."""

    code: str
    words: str
    values: Mapping[str, float | str]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def causes(original: Model, slimmed: Model, report: Evaluation) -> tuple[Cause, ...]:
    """Why a slimmed file is not smaller or not faster than the original; empty where it is both, or nothing was done.

    Args:
        original: what it was made from.
        slimmed: the file that was measured.
        report: the evaluation of `slimmed` against `original`.
    """
    if original.fingerprint == slimmed.fingerprint:
        return ()
    found: list[Cause] = []
    if slimmed.size_bytes > SMALLER * original.size_bytes:
        found += _size_causes(original, slimmed, report)
    if report.latency_ms and report.reference_latency_ms and report.latency_ms > FASTER * report.reference_latency_ms:
        slow = list(_time_causes(original, slimmed, report))
        said = [cause for cause in slow if cause.code != "memory"]
        found += said or slow  # waiting for memory is true of most small models, so it is the last thing to name
    return tuple(found)


def _size_causes(original: Model, slimmed: Model, report: Evaluation) -> Iterator[Cause]:
    zeros = 1 - report.nonzeros / max(report.params, 1)
    if zeros > ZEROS:
        words = (
            f"{zeros:.0%} of the weights are zero, but a zero takes as much room in the file, and as long to multiply, "
            "as any other number. Only the gzipped file is smaller."
        )
        yield Cause(code="zeros-dense", words=words, values={"zeros": zeros})
    elif _few_values(Graph.view(slimmed)):
        words = (
            "Each layer has few different weights, but each is stored as a whole float32. Only gzip makes use of it."
        )
        yield Cause(code="palette-dense", words=words, values={})
    rest = 1 - cost(slimmed).weight_bytes / slimmed.size_bytes
    if rest > SHARE:
        words = f"{rest:.0%} of the file is not weights but the description of the network, which does not shrink."
        yield Cause(code="description", words=words, values={"share": rest})
    graph = Graph.view(slimmed)
    largest = max(graph.constants, key=lambda name: constant_bytes(graph, name), default="")
    before = Graph.view(original).constants.get(largest)
    share = constant_bytes(graph, largest) / slimmed.size_bytes if largest else 0.0
    if share > MOSTLY and before is not None and before.shape == graph.constants[largest].shape and zeros <= ZEROS:
        words = f"{share:.0%} of the file is one weight that was not changed: {largest}."
        yield Cause(code="one-weight", words=words, values={"share": share, "name": largest})


def _few_values(graph: Graph) -> bool:
    weights = [graph.constants[node.input[1]] for node in graph.nodes if _reads_weight(graph, node)]
    large = [weight for weight in weights if weight.dtype == np.float32 and weight.size > 1024]
    return bool(large) and all(len(np.unique(weight)) <= 256 for weight in large)


def _reads_weight(graph: Graph, node: Any) -> bool:
    return node.op_type in _LAYERS and node.input[1] in graph.constants


def _time_causes(original: Model, slimmed: Model, report: Evaluation) -> Iterator[Cause]:
    ran = kernels(slimmed)
    total = sum(kernel.seconds for kernel in ran) or 1e-9
    graph = Graph.view(slimmed)
    yield from _int8_causes(graph, ran, total)
    yield from _frozen(original, slimmed, ran, total)
    yield from _broken_blocks(Graph.view(original), graph)
    zeros = 1 - report.nonzeros / max(report.params, 1)
    if zeros > ZEROS and slimmed.size_bytes <= SMALLER * original.size_bytes:  # else it has been said
        words = f"{zeros:.0%} of the weights are zero, but a zero takes as long to multiply as any other number."
        yield Cause(code="zeros-slow", words=words, values={"zeros": zeros})
    assert report.latency_ms is not None
    started = min(1.0, len(ran) * start_seconds() / (report.latency_ms / 1000))
    if started > SHARE:
        words = (
            f"The model is so small that starting its {len(ran)} operators takes {started:.0%} of the time, whatever "
            "they compute."
        )
        yield Cause(code="overhead", words=words, values={"operators": len(ran), "share": started})
    waiting = _memory_share(graph, ran, total)
    if waiting > MOSTLY:
        words = (
            f"{waiting:.0%} of the time goes to operators that move more numbers than they multiply; they wait for "
            "memory, and fewer multiplications do not help them."
        )
        yield Cause(code="memory", words=words, values={"share": waiting})


def _int8_causes(graph: Graph, ran: tuple[Kernel, ...], total: float) -> Iterator[Cause]:
    from lwcore.slimming.precision.processor import processor

    whole = sum(kernel.seconds for kernel in ran if kernel.kind in _INT8) / total
    if whole > SHARE and processor().kind == "plain":
        words = (
            "This processor has no instructions for 8-bit products (VNNI), so int8 is hardly faster than float32 here; "
            "on newer processors and phones it is."
        )
        yield Cause(code="no-vnni", words=words, values={"share": whole})
    converting = [kernel for kernel in ran if kernel.kind in _CONVERSIONS]
    share = sum(kernel.seconds for kernel in converting) / total
    if converting and share > SHARE / 2:
        if all(node.op_type != "QuantizeLinear" for node in graph.nodes):
            words = f"Weights are widened to float32 in every run, which takes {share:.0%} of the time."
            yield Cause(code="widening", words=words, values={"share": share})
        else:
            words = (
                f"{len(converting)} conversions between int8 and float32 around operators that compute in float32 take "
                f"{share:.0%} of the time."
            )
            yield Cause(code="conversions", words=words, values={"count": len(converting), "share": share})


def _frozen(original: Model, slimmed: Model, ran: tuple[Kernel, ...], total: float) -> Iterator[Cause]:
    """Most of the time in layers whose weights are as they were."""
    before, after = Graph.view(original), Graph.view(slimmed)
    shapes = {node.name: before.shapes[node.input[1]] for node in before.nodes if _reads_weight(before, node)}
    same = {
        node.name
        for node in after.nodes
        if _reads_weight(after, node)
        and after.constants[node.input[1]].dtype == np.float32
        and shapes.get(node.name) == after.shapes[node.input[1]]
    }
    owner, times = layer_of(after), dict[str, float]()
    for kernel in ran:
        layer = owner.get(kernel.name, "")
        if layer in same:
            times[layer] = times.get(layer, 0.0) + kernel.seconds
    share = sum(times.values()) / total
    if share > MOSTLY and len(same) < len(shapes):
        worst = max(times, key=lambda name: times[name])
        words = f"{share:.0%} of the time is spent in layers that kept all their channels; most of it in {worst}."
        yield Cause(code="frozen", words=words, values={"share": share, "name": worst})


def _broken_blocks(before: Graph, after: Graph) -> Iterator[Cause]:
    whole = {n.name for n in before.nodes if _reads_weight(before, n) and _channels(before, n) % BLOCK == 0}
    layers = [node for node in after.nodes if _reads_weight(after, node)]
    broken = [node for node in layers if node.name in whole and _channels(after, node) % BLOCK]
    work = {node.name: macs(node, after.shapes) for node in layers}
    share = sum(work[node.name] for node in broken) / max(sum(work.values()), 1)
    if share > SHARE:
        words = (
            f"{len(broken)} layers no longer have whole blocks of {BLOCK} channels, which processors compute together; "
            "these layers run slower than before."
        )
        yield Cause(code="blocks", words=words, values={"layers": len(broken), "share": share})


def _channels(graph: Graph, node: Any) -> int:
    shape = graph.shapes[node.output[0]]
    return shape[1] if node.op_type in ("Conv", "ConvTranspose") else shape[-1]


def _memory_share(graph: Graph, ran: tuple[Kernel, ...], total: float) -> float:
    """Share of the time in kernels with few multiply–accumulates for the bytes they move."""
    owner, work = layer_of(graph), {node.name: macs(node, graph.shapes) for node in graph.nodes}
    waiting = 0.0
    for kernel in ran:
        done = work.get(owner.get(kernel.name, kernel.name), 0)
        if done < LOW_INTENSITY * kernel.moved:
            waiting += kernel.seconds
    return waiting / total
