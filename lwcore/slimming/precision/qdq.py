"""Write static int8: QuantizeLinear/DequantizeLinear pairs around what computes in int8, and integers for weights.

The file says as little as it can: zero points of zero are left out (the standard's default), equal scales are one
constant, names are short, and biases stay float32, because runtimes work out their integers from the scales.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from lwcore.graph import Graph, with_input
from lwcore.slimming.precision.nodes import Layout, constants_of, weight_of
from lwcore.slimming.precision.rounding import Rounded
from lwcore.slimming.precision.variants import Variant

Range = tuple[float, float]
_LOWEST = 1e-12  # a tensor of zeros still needs a scale that divides


def write_qdq(
    graph: Graph, plan: Layout, ranges: Mapping[str, Range], weights: Mapping[str, Rounded], variant: Variant
) -> Graph:
    """A graph that computes in int8 what `plan` says; shapes of the new tensors are left to `normalise`."""
    return _Writer(graph, plan, ranges, weights, variant).written()


def scale_and_zero(values: Range, kind: np.dtype) -> tuple[np.float32, int]:
    """Scale and zero point of activations in this range, zero exactly among them."""
    limits = np.iinfo(kind)
    low, high = min(values[0], 0.0), max(values[1], 0.0)
    scale = np.float32(max((high - low) / (limits.max - limits.min), _LOWEST))
    return scale, int(np.clip(round(limits.min - low / float(scale)), limits.min, limits.max))


class _Writer:
    """One pass over the nodes, in order."""

    def __init__(
        self, graph: Graph, plan: Layout, ranges: Mapping[str, Range], weights: Mapping[str, Rounded], variant: Variant
    ) -> None:
        self.source, self.plan, self.ranges, self.weights = graph, plan, ranges, weights
        self.graph = graph.copy()
        self.graph.nodes = []
        self.kind = np.dtype(variant.activations)
        self.renamed: dict[str, str] = {}  # tensor made in float32 → its rounded twin, for int8 operators
        self.dequantized: dict[str, str] = {}  # constant → output of its DequantizeLinear
        self.scalars: dict[tuple[str, float], str] = {}
        self.taken = {node.name for node in graph.nodes}
        self.count = 0

    def written(self) -> Graph:
        for name in self.source.inputs:
            if name in self.plan.tensors:
                self.renamed[name] = self._pair(name, self._fresh("x"), self.plan.tensors[name])
        for index, node in enumerate(self.source.nodes):
            if index in self.plan.nodes:
                self._int8(node)
            else:
                self._float(node)
        self.graph.drop_unused()
        return self.graph

    def _float(self, node: NodeProto) -> None:
        self.graph.nodes.append(node)
        for name in node.output:
            if name in self.plan.tensors:
                self.renamed[name] = self._pair(name, self._fresh("x"), self.plan.tensors[name])

    def _int8(self, node: NodeProto) -> None:
        twin = NodeProto()
        twin.CopyFrom(node)
        for position, name in enumerate(node.input):
            twin.input[position] = self.renamed.get(name, name)
        weight = weight_of(self.source, node)
        if weight is not None:
            twin = with_input(twin, 1, self._weight(weight, node.op_type != "Conv"))
            if node.op_type == "Gemm" and len(node.input) > 2:
                twin = with_input(twin, 2, self._bias(node, weight))
        for position, values in constants_of(self.source, node).items():
            if values.dtype == np.float32:
                twin = with_input(twin, position, self._constant(node.input[position], values))
        self.graph.nodes.append(twin)
        for position, name in enumerate(node.output):
            if name in self.plan.tensors:  # the pair takes the tensor's name, so that whoever reads it reads the pair
                twin.output[position] = self._fresh("y")
                self._pair(twin.output[position], name, self.plan.tensors[name])

    def _pair(self, source: str, result: str, ranged: str) -> str:
        scale, zero = scale_and_zero(self.ranges[ranged], self.kind)
        partners = [self._scalar(scale), self._scalar(self.kind.type(zero))]
        between = self._fresh("q")
        self._add("QuantizeLinear", [source, *partners], between)
        self._add("DequantizeLinear", [between, *partners], result)
        return result

    def _weight(self, name: str, zero: bool) -> str:
        """A weight's DequantizeLinear; onnxruntime fuses only convolutions where the zero point is left out."""
        if name not in self.dequantized:
            rounded = self.weights[name]
            scale = self._scalar(rounded.scale) if rounded.axis is None else self._store("s", rounded.scale)
            partners = [scale, self._zeros(rounded)] if zero or rounded.zero else [scale]
            integers = self._store("w", rounded.integers)
            self.dequantized[name] = self._dequantizer([integers, *partners], rounded.axis)
        return self.dequantized[name]

    def _zeros(self, rounded: Rounded) -> str:
        kind = rounded.integers.dtype
        if rounded.axis is None:
            return self._scalar(kind.type(rounded.zero))
        return self._store("z", np.full(rounded.scale.shape, rounded.zero, kind))

    def _bias(self, node: NodeProto, weight: str) -> str:
        """A Gemm's bias as int32 in the scale of its sums: without, onnxruntime computes a last layer in float32."""
        name, rounded = node.input[2], self.weights[weight]
        if self.source.constants[name].shape != self.source.shapes[node.output[0]][1:]:
            return str(name)  # one number for all outputs: the kernel takes no such bias
        step, _ = scale_and_zero(self.ranges[self.plan.tensors[node.input[0]]], self.kind)
        scale = np.asarray(rounded.scale * step, np.float32)
        limit = 2**31 - 1
        integers = np.clip(np.round(self.source.constants[name].astype(np.float64) / scale), -limit, limit)
        whole = Rounded(integers=integers.astype(np.int32), scale=scale, zero=0, axis=None if scale.ndim == 0 else 0)
        stored = self._scalar(scale) if whole.axis is None else self._store("s", scale)
        return self._dequantizer([self._store("b", whole.integers), stored, self._zeros(whole)], whole.axis)

    def _dequantizer(self, inputs: list[str], axis: int | None) -> str:
        values = {} if axis in (None, 1) else {"axis": axis}  # 1 is the standard's default
        return self._add("DequantizeLinear", inputs, self._fresh("d"), **values)

    def _constant(self, name: str, values: np.ndarray) -> str:
        if name not in self.dequantized:
            scale, zero = scale_and_zero((float(values.min()), float(values.max())), self.kind)
            limits = np.iinfo(self.kind)
            integers = np.clip(np.round(values / scale) + zero, limits.min, limits.max).astype(self.kind)
            partners = [self._scalar(scale), self._scalar(self.kind.type(zero))]
            inputs = [self._store("c", integers), *partners]
            self.dequantized[name] = self._add("DequantizeLinear", inputs, self._fresh("d"))
        return self.dequantized[name]

    def _scalar(self, value: np.generic | np.ndarray) -> str:
        key = (value.dtype.name, float(value))
        if key not in self.scalars:
            self.scalars[key] = self._store("k", np.asarray(value))
        return self.scalars[key]

    def _store(self, stem: str, array: np.ndarray) -> str:
        name = self._fresh(stem)
        self.graph.set_constant(name, array)
        return name

    def _add(self, op: str, inputs: list[str], output: str, **values: Any) -> str:
        self.graph.nodes.append(helper.make_node(op, inputs, [output], name=self._fresh("n"), **values))
        return output

    def _fresh(self, stem: str) -> str:
        self.count += 1
        while f"{stem}{self.count}" in self.taken:
            self.count += 1
        return self.graph.fresh(f"{stem}{self.count}")
