"""Training for int8: weights and activations are rounded on the way forward as the written file will round them.

The places, scales and zero points are those of `lwcore.slimming.precision`; on the way back rounding counts as the
identity within its range (the straight-through estimator; Jacob et al., CVPR 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.recipe import Precision
from lwcore.samples import SampleSet
from lwcore.slimming.distillation.student import Student
from lwcore.slimming.precision.nodes import absorb_clamps, layout
from lwcore.slimming.precision.prepare import STATIC_OPSET, pooled, prepared, translating
from lwcore.slimming.precision.processor import ranking
from lwcore.slimming.precision.qdq import scale_and_zero
from lwcore.slimming.precision.ranges import range_sets
from lwcore.slimming.precision.rounding import ROOM, Rounded, round_weights
from lwcore.slimming.precision.static import split
from lwcore.slimming.precision.variants import VARIANTS


def int8_form(model: Model) -> Model:
    """The same function in the form that static int8 starts from; raises `SlimError` when there is none."""
    with translating("int8-static"):
        return pooled(prepared(model, STATIC_OPSET))


class Rounding:
    """Where a student rounds, and how finely; measured anew at every look, as the weights move.

    Args:
        model: in the form of `int8_form`.
        step: the static int8 that will follow.
        samples: activation ranges are read off some of them.
    """

    def __init__(self, model: Model, step: Precision, samples: SampleSet, seed: int) -> None:
        self._step = step
        self._samples = split(samples, step, seed)[0]
        self._variant = VARIANTS[ranking()[0] if step.variant == "auto" else step.variant]
        self._kind = np.dtype(self._variant.activations)
        self._activations: dict[str, tuple[float, int]] = {}
        self._weights: dict[str, Rounded] = {}
        self._read(model)

    def measure(self, student: Student) -> None:
        """Read ranges and scales off the student as it is now."""
        self._read(student.model())

    def _read(self, model: Model) -> None:
        method = "minmax" if self._step.ranges == "auto" else self._step.ranges
        ranges = range_sets(model, self._samples, (method,))[method]
        graph = absorb_clamps(Graph.view(model), ranges, self._step.keep)
        plan = layout(graph, ranges, self._step.keep)
        for name, ranged in plan.tensors.items():
            scale, zero = scale_and_zero(ranges[ranged], self._kind)
            self._activations[name] = float(scale), zero
        self._weights = round_weights(graph, plan.nodes, self._variant)

    def put_on(self, student: Student) -> None:
        """Have a student round from now on."""
        network, inputs = student.network, student.graph.inputs
        network.register_forward_pre_hook(
            lambda _, given: tuple(self._rounded(name, x) for name, x in zip(inputs, given, strict=True))
        )
        for step in network.steps:
            if any(name in self._activations for name in step.outputs):
                step.module.register_forward_hook(self._behind(step.outputs))
            for slot, name in _weight_slots(step.module, step.node.input, self._weights):
                step.module.register_forward_pre_hook(self._before(slot, name))
                step.module.register_forward_hook(_taken_off(slot))

    def _rounded(self, name: str, x: torch.Tensor) -> torch.Tensor:
        if name not in self._activations or not x.is_floating_point():
            return x
        limits, (scale, zero) = np.iinfo(self._kind), self._activations[name]
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, int(limits.min), int(limits.max))

    def _behind(self, names: Sequence[str]) -> Any:
        def hook(module: nn.Module, given: Any, out: Any) -> Any:
            if isinstance(out, tuple):
                return tuple(self._rounded(name, x) for name, x in zip(names, out, strict=False))
            return self._rounded(names[0], out)

        return hook

    def _before(self, slot: str, name: str) -> Any:
        def hook(module: nn.Module, given: Any) -> None:
            rounded, weight = self._weights[name], getattr(module, slot)
            scale = torch.from_numpy(np.array(rounded.scale))
            if rounded.axis is None:
                twin = torch.fake_quantize_per_tensor_affine(weight, float(scale), 0, -ROOM, ROOM)
            else:
                zeros = torch.zeros(len(scale), dtype=torch.int32)
                twin = torch.fake_quantize_per_channel_affine(weight, scale, zeros, rounded.axis, -ROOM, ROOM)
            module.__dict__[slot] = twin  # found before the parameter of that name, which stays what it is

        return hook


def _taken_off(slot: str) -> Any:
    def hook(module: nn.Module, given: Any, out: Any) -> None:
        module.__dict__.pop(slot, None)

    return hook


def _weight_slots(module: nn.Module, names: Sequence[str], weights: dict[str, Rounded]) -> list[tuple[str, str]]:
    """Attributes of a module that hold weights to be rounded, with their names in the graph."""
    own = dict(module.named_parameters(recurse=False))
    slots = ("weight",) if "weight" in own else tuple(own)
    found = []
    for slot in slots:
        name = names[1] if slot == "weight" else names[int(slot.removeprefix("input"))]
        if name in weights:
            found.append((slot, name))
    return found
