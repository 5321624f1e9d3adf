"""Bias correction: rounding shifts the mean of each channel a little; the bias takes the shift back.

Every layer is run twice on the same calibration samples, as it is and with its rounded weights on its rounded input,
and the difference of the channels' means goes into the bias (Nagel et al., ICCV 2019, section 4.2, measured rather
than derived).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import NodeProto, TensorProto, helper

from lwcore import runtime
from lwcore.answers import feed, feed_size
from lwcore.graph import Graph, with_input
from lwcore.model import Model
from lwcore.samples import SampleSet
from lwcore.slimming.precision.nodes import weight_of
from lwcore.slimming.precision.qdq import Range, scale_and_zero
from lwcore.slimming.precision.rounding import Rounded
from lwcore.slimming.precision.variants import Variant

Shifts = dict[str, np.ndarray]  # bias → what rounding added to the mean of each channel


def bias_shifts(
    model: Model,
    samples: SampleSet,
    inputs: Mapping[str, Range],
    weights: Mapping[str, Rounded],
    variant: Variant,
) -> Shifts:
    """What rounding adds to the mean of each channel of each layer that has a bias of its own.

    Args:
        model: float32.
        samples: calibration samples.
        inputs: name of an operator that computes in int8 → the range of its input.
        weights: rounded weights by the name of the constant.
        variant: integer types.
    """
    twin = Graph.of(model)
    pairs = _twins(Graph.view(model), twin, inputs, weights, np.dtype(variant.activations))
    if not pairs:
        return {}
    proto = twin.proto()
    del proto.graph.value_info[:]
    del proto.graph.output[:]
    proto.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in pairs.values())
    runner = runtime.session(proto.SerializeToString(), optimise=False)
    totals, count = {bias: np.zeros(1) for bias in pairs}, 0
    for start, stop in runtime.batches(len(samples), feed_size(model, samples)):
        found = runtime.run(runner, feed(model, samples, start, stop), list(pairs.values()))
        count += stop - start
        for bias, mean in zip(pairs, found, strict=True):
            totals[bias] = totals[bias] + (stop - start) * mean.reshape(-1).astype(np.float64)
    return {bias: total / count for bias, total in totals.items()}


def _twins(
    graph: Graph, twin: Graph, inputs: Mapping[str, Range], weights: Mapping[str, Rounded], kind: np.dtype
) -> dict[str, str]:
    """Add to `twin` a rounded copy of each layer with a bias, and the mean difference from the layer itself."""
    readers, pairs, prefix = graph.consumers(), dict[str, str](), _prefix(graph)
    for index, node in enumerate(graph.nodes):
        weight = weight_of(graph, node)
        if node.name not in inputs or weight is None or len(node.input) < 3 or len(readers[node.input[2]]) > 1:
            continue
        if graph.constants[node.input[2]].size != graph.shapes[node.output[0]][1]:
            continue
        stem = f"{prefix}{index}"
        twin.set_constant(f"{stem}.w", weights[weight].values())
        rounded = _rounded_input(twin, node.input[0], f"{prefix}.{node.input[0]}.rounded", inputs[node.name], kind)
        copy = with_input(with_input(node, 0, rounded), 1, f"{stem}.w")
        copy.output[0], copy.name = f"{stem}.y", stem
        axes = [a for a in range(len(graph.shapes[node.output[0]])) if a != 1]
        twin.nodes += [
            copy,
            helper.make_node("Sub", [copy.output[0], node.output[0]], [f"{stem}.d"], name=f"{stem}.sub"),
            *_mean(twin, f"{stem}.d", f"{stem}.m", axes),
        ]
        pairs[node.input[2]] = f"{stem}.m"
    return pairs


def _prefix(graph: Graph) -> str:
    """What no tensor's name in the graph begins with."""
    prefix = "twin"
    while any(name.startswith(prefix) for name in graph.shapes):
        prefix += "_"
    return prefix


def _rounded_input(twin: Graph, name: str, result: str, values: Range, kind: np.dtype) -> str:
    """The tensor `result`, which is another one as integers hold it; made once."""
    if result not in twin.shapes:
        scale, zero = scale_and_zero(values, kind)
        twin.set_constant(f"{result}.s", np.asarray(scale))
        twin.set_constant(f"{result}.z", np.asarray(zero, kind))
        partners = [f"{result}.s", f"{result}.z"]
        twin.nodes += [
            helper.make_node("QuantizeLinear", [name, *partners], [f"{result}.q"], name=f"{result}.q"),
            helper.make_node("DequantizeLinear", [f"{result}.q", *partners], [result], name=result),
        ]
        twin.shapes[result], twin.types[result] = twin.shapes[name], twin.types[name]
    return result


def _mean(twin: Graph, source: str, result: str, axes: list[int]) -> list[NodeProto]:
    if twin.opset < 18:
        return [helper.make_node("ReduceMean", [source], [result], name=result, axes=axes, keepdims=0)]
    twin.set_constant(f"{result}.axes", np.asarray(axes, np.int64))
    return [helper.make_node("ReduceMean", [source, f"{result}.axes"], [result], name=result, keepdims=0)]


def corrected(graph: Graph, shifts: Shifts) -> Graph:
    """A graph whose biases take the shifts back."""
    graph = graph.copy()
    for name, shift in shifts.items():
        bias = graph.constants[name]
        graph.set_constant(name, (bias.astype(np.float64) - shift.reshape(bias.shape)).astype(np.float32))
    return graph
