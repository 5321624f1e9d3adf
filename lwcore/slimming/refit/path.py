"""Where a linear layer's result goes: into a sum with a shortcut, through an activation that cuts it off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from onnx import NodeProto

from lwcore.graph import Graph, attributes
from lwcore.slimming.refit.linear import Linear, channel_shape

_EPSILON = 1e-5  # BatchNormalization's default
_STEADY = 1e-6  # a gain below this share of the largest cannot be divided by


@dataclass(frozen=True)
class Path:
    """What a result y meets: `gain · y + shift (+ other)`, which the next activation cuts off at `low` and `high`.

    Attributes:
        gain, shift: one number an output channel, float32, shape (outputs, 1).
        total: the sum with the shortcut `other`; both None where there is no sum.
    """

    gain: np.ndarray
    shift: np.ndarray
    low: float = -np.inf
    high: float = np.inf
    total: str | None = None
    other: str | None = None

    def beyond(self, fixed: np.ndarray) -> Path:
        """The path of what a layer gives without the constant that it adds itself, shape (outputs, 1)."""
        return replace(self, shift=self.shift + self.gain * fixed)

    def wanted(self, total: np.ndarray, other: np.ndarray) -> np.ndarray:
        """The result that makes the sum right."""
        missing: np.ndarray = total - other
        missing -= self.shift
        missing /= self.gain
        return missing

    def bounds(self, other: np.ndarray | float = 0.0) -> tuple[np.ndarray | float, np.ndarray | float]:
        """Between which values of y the activation tells values apart; rows of vectors as `other`'s are.

        An edge that lies at infinity everywhere is one number an output, which costs nothing to look at.
        """
        if not np.isfinite((self.low, self.high)).any():
            return -np.inf, np.inf
        met = (self.shift + other) / self.gain
        ends = np.float32(self.low) / self.gain, np.float32(self.high) / self.gain
        low, high = (edge - met if np.isfinite(edge).any() else edge for edge in (np.minimum(*ends), np.maximum(*ends)))
        return low, high


def path(dense: Graph, slim: Graph, readers: Mapping[str, list[int]], layer: Linear) -> Path | None:
    """The path of a layer's result in the slim graph, None where a gain of nothing makes it one way."""
    name, gain, shift = layer.result, np.ones(layer.outputs), np.zeros(layer.outputs)
    total: str | None = None
    other: str | None = None
    low, high = -np.inf, np.inf
    while len(readers.get(name, ())) == 1 and name not in slim.outputs:
        node = slim.nodes[readers[name][0]]
        step = _affine(slim, node, name, layer)
        if step is not None and total is None:
            gain, shift = gain * step[0], shift * step[0] + step[1]
        elif total is None and (beside := _shortcut(dense, slim, node, name)):
            total, other = node.output[0], beside
        else:
            low, high = _limits(slim, node)
            break
        name = node.output[0]
    if not (np.abs(gain) > _STEADY * np.abs(gain).max()).all():
        return None
    column = (layer.outputs, 1)
    return Path(
        gain.astype(np.float32).reshape(column), shift.astype(np.float32).reshape(column), low, high, total, other
    )


def _affine(slim: Graph, node: NodeProto, name: str, layer: Linear) -> tuple[np.ndarray, np.ndarray] | None:
    """Gain and shift of an operator that treats every output channel by itself."""
    constants, outputs = slim.constants, layer.outputs
    if node.op_type == "BatchNormalization" and node.input[0] == name and layer.axis == 1:
        if any(n not in constants for n in node.input[1:5]):
            return None
        scale, bias, mean, variance = (constants[n].astype(np.float64) for n in node.input[1:5])
        gain = scale / np.sqrt(variance + float(attributes(node).get("epsilon", _EPSILON)))  # type: ignore[arg-type]
        return gain, bias - gain * mean
    beside = [n for n in node.input if n != name]
    if node.op_type not in ("Add", "Mul") or len(beside) != 1 or beside[0] not in constants:
        return None
    array, tail = constants[beside[0]], channel_shape(layer)
    if array.dtype.kind != "f" or not (
        array.size == 1 or (array.size == outputs and array.shape[-len(tail) :] == tail)
    ):
        return None
    value = np.broadcast_to(array.astype(np.float64).reshape(-1), (outputs,))
    return (np.ones(outputs), value) if node.op_type == "Add" else (value, np.zeros(outputs))


def _shortcut(dense: Graph, slim: Graph, node: NodeProto, name: str) -> str | None:
    """The other, equally large operand of a sum that both graphs have."""
    beside = [n for n in node.input if n != name]
    if node.op_type != "Add" or len(beside) != 1 or beside[0] in slim.constants or node.output[0] not in dense.shapes:
        return None
    return beside[0] if slim.shapes.get(beside[0]) == slim.shapes.get(node.output[0]) else None


def _limits(slim: Graph, node: NodeProto) -> tuple[float, float]:
    """Below and above which values an activation tells nothing apart."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    if node.op_type == "HardSwish":
        return -3.0, np.inf
    if node.op_type == "Clip":
        options = attributes(node)
        found = [options.get(key, limit) for key, limit in (("min", -np.inf), ("max", np.inf))]
        for position, given in enumerate(node.input[1:3]):
            if given:
                found[position] = float(slim.constants[given]) if given in slim.constants else found[position]
        return float(found[0]), float(found[1])  # type: ignore[arg-type]
    return -np.inf, np.inf
