"""What a rule sees of a node, and the registry of rules: `@rule("Relu")` over a function adds an operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from onnx import NodeProto, TensorProto, helper
from torch import nn

from lwcore.errors import ModelError
from lwcore.graph import Graph, Shape
from lwcore.registry import Registry

Function = Callable[..., Any]

TORCH_TYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT8: torch.int8,
    TensorProto.INT4: torch.int8,  # torch has no type of four bits
    TensorProto.UINT4: torch.uint8,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT16: torch.int16,
    TensorProto.UINT16: torch.uint16,
    TensorProto.INT32: torch.int32,
    TensorProto.UINT32: torch.uint32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
}


class NodeView:
    """One node as its rule reads it: attributes, concrete shapes, and the constants among its inputs.

    Integer inputs that a rule reads while building (`ints`, `settle`) are not handed to the running function again.
    """

    def __init__(self, node: NodeProto, graph: Graph, weights: Weights, name: str) -> None:
        self.op = node.op_type
        self.name = name
        self.opset = graph.opset
        self.node = node
        self.settled: set[int] = set()
        self._graph = graph
        self._weights = weights
        self._attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute as a plain Python value (text for strings), or `default`."""
        value = self._attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def has(self, position: int) -> bool:
        """Whether the input at `position` is given."""
        return position < len(self.node.input) and bool(self.node.input[position])

    def constant(self, position: int) -> np.ndarray | None:
        """The constant at `position`, or None when it is left out or computed."""
        return self._graph.constants.get(self.node.input[position]) if self.has(position) else None

    def settle(self, position: int) -> np.ndarray | None:
        """Like `constant`, for a setting: the running function gets None at this position."""
        value = self.constant(position)
        if value is not None or not self.has(position):
            self.settled.add(position)
        return value

    def ints(self, position: int) -> list[int] | None:
        """A constant setting as whole numbers, or None when it is left out or computed."""
        value = self.settle(position)
        return None if value is None else [int(v) for v in value.reshape(-1)]

    def axes(self, position: int = 1, name: str = "axes") -> list[int] | None:
        """Axes given by attribute (older operator sets) or by a constant input."""
        listed = self.attr(name)
        return list(listed) if listed is not None else self.ints(position)

    def shape(self, position: int = 0) -> Shape:
        """Concrete shape of an input at batch 1."""
        return self._graph.shape(self.node.input[position])

    def out_shape(self, position: int = 0) -> Shape:
        """Concrete shape of an output at batch 1."""
        return self._graph.shape(self.node.output[position])

    def outputs(self) -> int:
        """How many outputs somebody reads."""
        return max((i + 1 for i, name in enumerate(self.node.output) if name), default=0)

    def claim(self, *positions: int) -> list[nn.Parameter | None] | None:
        """Parameters for a torch layer that owns all its weights; None when it cannot (computed, shared or no weight).

        A position beyond the given inputs yields None in the list.
        """
        names = [self.node.input[p] if self.has(p) else None for p in positions]
        if not all(name is None or self._weights.is_free(name) for name in names):
            return None
        return [None if name is None else self._weights.parameter(name) for name in names]

    def tensor(self, position: int) -> torch.Tensor:
        """The constant at `position` as a plain tensor (for a buffer); only where `constant` is not None."""
        return to_tensor(self._graph.constants[self.node.input[position]])

    def refuse(self, what: str) -> ModelError:
        """An error that names this node."""
        return ModelError(f"Layer {self.name!r} ({self.op}): {what}")


class Weights:
    """The trained constants of a graph as parameters, each owned by the first layer that asks for it."""

    def __init__(self, graph: Graph, trained: Sequence[str]) -> None:
        self._constants = graph.constants
        self._trained = frozenset(trained)
        self.owned: dict[str, nn.Parameter] = {}

    def is_trained(self, name: str) -> bool:
        """Whether the constant is a parameter (`lwcore.analysis.cost` decides)."""
        return name in self._trained

    def is_free(self, name: str) -> bool:
        """Whether the constant is a parameter that no layer owns yet."""
        return name in self._trained and name not in self.owned

    def parameter(self, name: str) -> nn.Parameter:
        """The parameter for a trained constant; the same object for everybody who reads it."""
        if name not in self.owned:
            tensor = to_tensor(self._constants[name])
            self.owned[name] = nn.Parameter(tensor, requires_grad=tensor.is_floating_point())
        return self.owned[name]


def to_tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor with its own copy of the values; raises `ModelError` for element types torch lacks."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    if array.dtype.name in ("int4", "uint4"):
        array = array.astype(array.dtype.name.replace("4", "8"))
    try:
        return torch.from_numpy(np.array(array))
    except TypeError:
        raise ModelError(f"Expected numbers that torch can hold, found a constant of type {array.dtype}.") from None


Rule = Callable[[NodeView], "nn.Module | Function"]
RULES: Registry[Rule] = Registry("operator")


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register a rule for operators.

    A rule reads a `NodeView` and returns either a module, which is run on the first input alone (all else is inside
    it), or a function, which is run on all inputs by position, None where one is left out or was settled.
    """

    def register(function: Rule) -> Rule:
        for operator in operators:
            RULES.add(operator, function)
        return function

    return register


def plain(operator: str, function: Function) -> None:
    """Register an operator that needs no attributes: the function is the rule's result."""
    RULES.add(operator, lambda view: function)


def now(settled: list[int] | None, tensor: torch.Tensor | None) -> list[int] | None:
    """Whole numbers known while building or, failing that, carried by a tensor at run time."""
    return settled if settled is not None or tensor is None else [int(v) for v in tensor.reshape(-1).tolist()]
