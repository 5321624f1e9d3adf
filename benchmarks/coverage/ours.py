"""Prune one exported file with lwcore, check the law, and count what could be removed and what was."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from lwcore.analysis.cost import cost
from lwcore.analysis.coupling import Coupling, couple
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.recipe import Channels
from lwcore.runtime import session
from lwcore.slimming.budget.pricing import price
from lwcore.slimming.pruning.channels import removals
from lwcore.slimming.pruning.criteria import Evidence
from lwcore.slimming.pruning.selection import keep_best
from lwcore.slimming.rewrite import Keep, cut
from lwcore.sources.normalise import normalise
from tests.helpers import masked

AMOUNT = 0.3
OUTPUT = "it is the network's output"
# operator → (position of its weight, axis of the output channels; None: chosen by an attribute or the rank)
_WEIGHTS: dict[str, tuple[int, int | None]] = {
    "Conv": (1, 0),
    "ConvTranspose": (1, 1),
    "Gemm": (1, None),
    "MatMul": (1, None),
    "ConvInteger": (1, 0),
    "QLinearConv": (3, 0),
}
Stage = Callable[..., None]


def prune(path: Path, stage: Stage) -> dict[str, Any]:
    """Prune a file at 30 % of every group, single channels, by L2 norm, without compensation.

    Args:
        path: what an exporter wrote.
        stage: told when the pruning begins and ends; the check of the law that follows is not pruning.
    """
    stage("read")
    data, _ = normalise(onnx.load(path))
    stage("prune")
    model = Model(data=data)
    graph = Graph.of(model)
    began = time.process_time()
    coupling = couple(model)
    seconds = time.process_time() - began
    step = Channels(amount=AMOUNT, criterion="l2", compensate="none", align=1)
    counts = removals(model, step)
    keep = keep_best(coupling, counts, Evidence(graph, coupling, {}, np.random.default_rng(0)), step.criterion)
    slim = Model(data=cut(graph, coupling, keep).serialize())
    feeds = _feeds(graph)
    found = _run(slim, feeds)
    stage("check")
    planned, real = price(model, counts), cost(slim)
    result = {
        "runs": True,
        "nodes": len(graph.nodes),
        "coupling_s": seconds,
        "exact_plan": (planned.params, planned.macs) == (real.params, real.macs),
        "macs": real.macs / max(1, cost(model).macs),
        **_shares(graph, coupling, keep),
        "reasons": _reasons(coupling),
    }
    dense = _run(model, feeds)
    del model, slim
    twin = _run(Model(data=masked(graph, coupling, keep).serialize()), feeds)
    return result | {"law": _distance(found, twin), "told_apart": _distance(dense, twin)}


def _feeds(graph: Graph) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {name: rng.standard_normal(graph.shape(name)).astype(np.float32) for name in graph.inputs}


def _run(model: Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    return list(session(model.data, threads=1).run(None, feeds))


def _distance(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Largest difference relative to the largest value, over all outputs; infinite where a shape or a number is off."""
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        if a.shape != b.shape or not np.isfinite(a).all():
            return float("inf")
        worst = max(worst, float(np.abs(a - b).max() / max(float(np.abs(b).max()), 1e-30)))
    return worst


def _shares(graph: Graph, coupling: Coupling, keep: Keep) -> dict[str, float]:
    """Output channels of all weights: how many could go in principle (all but the network's outputs), and what became
    of them: free (in a group), removed, frozen by meaning, frozen by ignorance (a rule is missing)."""
    grouped = np.zeros(coupling.units, dtype=bool)
    for group in coupling.groups:
        grouped[group.units] = True
    weights = _weights(graph, coupling)
    total = sum(graph.shape(name)[axis] for name, axis in weights)
    held = [coupling.cuts[place] for place in weights if place in coupling.cuts]
    free = sum(int(grouped[classes].sum()) for classes in held)
    lone = sum(int(((classes != 0) & ~grouped[classes]).sum()) for classes in held)
    outputs = sum(f.channels for f in coupling.frozen if f.reason.startswith(OUTPUT))
    meant = sum(f.channels for f in coupling.frozen if f.meant) - outputs + lone
    removable = max(1, total - outputs)
    return {
        "removable": removable,
        "free": free / removable,
        "removed": sum(int((~keep[classes]).sum()) for classes in held) / removable,
        "meant": meant / removable,
        "ignorant": max(0, removable - free - meant) / removable,
    }


def _weights(graph: Graph, coupling: Coupling) -> list[tuple[str, int]]:
    """Every weight with the axis of its output channels, each once (shared weights are one)."""
    found: dict[tuple[str, int], None] = {}
    for node in graph.nodes:
        position, axis = _WEIGHTS.get(node.op_type, (-1, None))
        if node.op_type == "MatMul" and coupling.mirrors.get(node.input[0], node.input[0]) in graph.constants:
            position, axis = 0, -2
        if position < 0:
            continue
        name = coupling.mirrors.get(node.input[position], node.input[position])
        if name not in graph.constants or graph.constants[name].ndim < 2:
            continue
        if axis is None:
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            axis = 0 if transposed else -1
        found[name, axis % graph.constants[name].ndim] = None
    return list(found)


def _reasons(coupling: Coupling) -> dict[str, int]:
    """Reason → frozen channels, the missing rules marked."""
    found: dict[str, int] = {}
    for frozen in coupling.frozen:
        text = frozen.reason.split(" (at")[0] + ("" if frozen.meant else " [no rule]")
        found[text] = found.get(text, 0) + frozen.channels
    return found
