"""Weights as floats, however a file stores them: read what integers stand for, write floats back the same way."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from lwcore.graph import Graph, attributes

_LOWEST = 1e-8  # a channel of zeros still needs a scale that divides


class Weights:
    """Read and write access to the weights of one graph, by the name under which an operator reads them."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._from = {
            node.output[0]: node
            for node in graph.nodes
            if node.op_type == "DequantizeLinear" and node.input[0] in graph.constants
        }

        self._results = {node.input[0]: result for result, node in self._from.items()}

    def __contains__(self, name: str) -> bool:
        """True for floating-point constants and for stored integers with a scale."""
        return name in self._from or (name in self.graph.constants and self.graph.constants[name].dtype.kind == "f")

    def base(self, name: str) -> str:
        """The initializer behind a weight."""
        return self._from[name].input[0] if name in self._from else name

    def read(self, name: str) -> np.ndarray:
        """The weight as float64."""
        if name not in self._from:
            return np.asarray(self.graph.constants[name], dtype=np.float64)
        scale, zero, _ = self._parts(self._from[name])
        stored = self.graph.constants[self._from[name].input[0]].astype(np.float64)
        return np.asarray((stored - zero) * scale)

    def read_base(self, initializer: str) -> np.ndarray:
        """The weight behind an initializer as float64, whether operators read it directly or through a dequantizer."""
        return self.read(self._results.get(initializer, initializer))

    def write(self, name: str, values: np.ndarray) -> np.ndarray:
        """Store new values; integers get the scale that the new values need.

        Returns:
            By how much the scale grew, one number a channel of the scale (1 for floats): a bias that runtimes add to
            the integers' sum must follow it.
        """
        if name not in self._from:
            old = self.graph.constants[name]
            self.graph.constants[name] = np.ascontiguousarray(values.astype(old.dtype))
            return np.ones(1)
        node = self._from[name]
        scale, zero, axis = self._parts(node)
        # The integers keep the range they had: some files use seven bits on purpose, since eight can saturate.
        room = max(float(np.abs(self.graph.constants[node.input[0]].astype(np.float64) - zero).max()), 1.0)
        over = tuple(a for a in range(values.ndim) if a != axis) if axis is not None else None
        reach = np.maximum(np.abs(values).max(axis=over, keepdims=axis is not None), _LOWEST)
        self._scale(node, reach / room)
        self._store(node, values)
        return np.asarray((reach / room) / scale).reshape(-1)

    def rescale(self, name: str, values: np.ndarray, growth: np.ndarray) -> None:
        """Store a bias whose scale is the product of the input's and the weight's: it grows with the weight's."""
        if name in self._from:
            node = self._from[name]
            scale, _, _ = self._parts(node)
            self._scale(node, scale * growth.reshape(scale.shape if scale.size == growth.size else -1))
            self._store(node, values)
        else:
            self.write(name, values)

    def _store(self, node: NodeProto, values: np.ndarray) -> None:
        scale, zero, _ = self._parts(node)
        kind = self.graph.constants[node.input[0]].dtype
        limits = np.iinfo(kind)
        self.graph.constants[node.input[0]] = np.clip(np.round(values / scale + zero), limits.min, limits.max).astype(
            kind
        )

    def _scale(self, node: NodeProto, scale: np.ndarray) -> None:
        old = self.graph.constants[node.input[1]]
        self.graph.constants[node.input[1]] = np.asarray(scale, dtype=old.dtype).reshape(old.shape)

    def _parts(self, node: NodeProto) -> tuple[np.ndarray, np.ndarray, int | None]:
        """Scale and zero point, ready to broadcast, and the axis they vary along."""
        rank = self.graph.constants[node.input[0]].ndim
        scale = self.graph.constants[node.input[1]].astype(np.float64)
        axis = int(attributes(node).get("axis", 1)) % max(rank, 1) if scale.size > 1 else None  # type: ignore[call-overload]
        shape = [-1 if a == axis else 1 for a in range(rank)] if axis is not None else []
        zero = np.zeros(scale.shape)
        if len(node.input) > 2 and node.input[2]:
            zero = self.graph.constants[node.input[2]].astype(np.float64)
        return scale.reshape(shape), zero.reshape(shape), axis
