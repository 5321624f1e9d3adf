"""Plain numbers as samples: what one sample of an input looks like, and random ones."""

from __future__ import annotations

import math

import numpy as np
from onnx import helper

from lwcore.graph import Graph, Shape, attributes
from lwcore.model import Model
from lwcore.samples import SampleSet

RANDOM_MB = 64  # of random inputs made for one model


def sample_shape(graph: Graph, name: str) -> Shape:
    """Of one sample of an input: without its first axis where that is the batch (open, or 1)."""
    shape = graph.shape(name)
    return shape[1:] if stacked(graph, name) else shape


def stacked(graph: Graph, name: str) -> bool:
    """Whether several samples are fed along the input's first axis at once."""
    return 0 in graph.free.get(name, {}) or graph.shape(name)[:1] == (1,)


def random_inputs(model: Model, count: int, seed: int = 0) -> SampleSet:
    """Random inputs of the declared shapes: normal floats; positions where a table is looked up, else zeros and ones.

    Args:
        count: samples, at most; fewer where they are large.
        seed: of the numbers.
    """
    graph = Graph.view(model)
    rng = np.random.default_rng(seed)
    size = 4 * sum(math.prod(sample_shape(graph, name)) for name in graph.inputs)
    count = max(4, min(count, RANDOM_MB * 1_000_000 // max(size, 1)))
    arrays = {}
    for name in graph.inputs:
        shape, kind = (count, *sample_shape(graph, name)), helper.tensor_dtype_to_np_dtype(graph.types[name])
        floats = np.issubdtype(kind, np.floating)
        drawn = rng.standard_normal(shape) if floats else rng.integers(0, _choices(graph, name), shape)
        arrays[name] = drawn.astype(kind)
    names = tuple(f"random {i}" for i in range(count))
    return SampleSet(name="Random inputs", arrays=arrays, names=names)


def _choices(graph: Graph, name: str) -> int:
    """How many values an integer input may have: the rows of the table that it looks up."""
    for node in graph.nodes:
        if node.op_type == "Gather" and len(node.input) > 1 and node.input[1] == name:
            axis = int(attributes(node).get("axis", 0))  # type: ignore[call-overload]
            return int(graph.shape(node.input[0])[axis])
        if node.op_type == "Cast" and node.input[0] == name:
            return _choices(graph, node.output[0])
    return 2
