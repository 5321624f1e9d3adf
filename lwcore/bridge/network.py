"""The torch module made from a graph: a tree of layers by node name, run in graph order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from onnx import NodeProto
from torch import nn

from lwcore.analysis import cost
from lwcore.bridge.node import RULES, Function, NodeView, Weights, to_tensor
from lwcore.errors import ModelError
from lwcore.graph import Graph
from lwcore.model import Model


class Op(nn.Module):
    """An operator that torch has no layer for: a function of tensors, and the constants among its inputs.

    Trained constants are parameters, others buffers, both named `input<position>`. A parameter that another layer owns
    is read from there, so that it is counted and trained once.
    """

    def __init__(self, function: Function) -> None:
        super().__init__()
        self._function = function
        self._slots: list[int | str | None] = []
        self._borrowed: dict[str, nn.Parameter] = {}

    def bind(self, view: NodeView, weights: Weights, constants: Graph) -> list[str]:
        """Take in the constants; returns the names of the tensors to be given at run time."""
        given: list[str] = []
        for position, name in enumerate(view.node.input):
            slot = f"input{position}"
            if not name or position in view.settled:
                self._slots.append(None)
            elif name not in constants.constants:
                self._slots.append(len(given))
                given.append(name)
            else:
                self._hold(slot, name, weights, constants)
                self._slots.append(slot)
        return given

    def _hold(self, slot: str, name: str, weights: Weights, graph: Graph) -> None:
        if not weights.is_trained(name):
            self.register_buffer(slot, to_tensor(graph.constants[name]))
        elif weights.is_free(name):
            self.register_parameter(slot, weights.parameter(name))
        else:
            self._borrowed[slot] = weights.parameter(name)

    def _value(self, slot: int | str | None, given: Sequence[Any]) -> Any:
        if isinstance(slot, str):
            return self._borrowed[slot] if slot in self._borrowed else getattr(self, slot)
        return None if slot is None else given[slot]

    def forward(self, *given: torch.Tensor) -> Any:
        """Run the operator on the tensors that are not constants."""
        return self._function(*(self._value(slot, given) for slot in self._slots))


class Block(nn.Module):
    """A level of the tree; it only holds layers, the network runs them."""


@dataclass(frozen=True)
class Step:
    """One layer in the order of execution.

    Attributes:
        name: the node's name.
        node: the ONNX operator.
        module: what runs it.
        inputs, outputs: tensor names.
        feeds: name of the node this one only prepares a constant for (int8 weights of a convolution), or "".
    """

    name: str
    node: NodeProto
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    feeds: str = ""


class Network(nn.Module):
    """A graph as a torch module; takes the graph's inputs in order, returns its output (a tuple when there are more).

    Attributes:
        steps: layers in the order of execution.
        weights: initializer name of every parameter, by the parameter's path in this module.
    """

    def __init__(self, graph: Graph, steps: Sequence[Step], owned: dict[str, nn.Parameter]) -> None:
        super().__init__()
        self.steps = tuple(steps)
        self._inputs = tuple(graph.inputs)
        self._outputs = tuple(graph.outputs)
        self._last_use = _last_uses(self.steps, self._outputs)
        for name in self._outputs:
            if name in graph.constants:
                self.register_buffer(_constant_slot(name), to_tensor(graph.constants[name]))
        _plant(self, self.steps)
        by_identity = {id(parameter): name for name, parameter in owned.items()}
        self.weights = {path: by_identity[id(parameter)] for path, parameter in self.named_parameters()}

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Run the graph; tensors are let go after their last reader."""
        values: dict[str, Any] = dict(zip(self._inputs, inputs, strict=True))
        for index, step in enumerate(self.steps):
            results = step.module(*(values[name] for name in step.inputs))
            if not isinstance(results, tuple):
                results = (results,)
            values.update((name, value) for name, value in zip(step.outputs, results, strict=False) if name)
            for name in self._last_use.get(index, ()):
                values.pop(name, None)
        found = tuple(values[n] if n in values else getattr(self, _constant_slot(n)) for n in self._outputs)
        return found[0] if len(found) == 1 else found


def to_torch(model: Model) -> Network:
    """Make a torch module that computes what the model computes, in eval mode, with its weights as parameters.

    Raises:
        ModelError: an operator has no rule, or is used in a way its rule does not cover; the message names the node.
    """
    graph = Graph.view(model)
    weights = Weights(graph, cost.parameters(graph))
    names = node_names(graph.nodes)
    steps = [
        _build(graph.nodes[index], names[index], graph, weights, "" if target is None else names[target])
        for index, target in _order(graph)
    ]
    return Network(graph, steps, weights.owned).eval()


def node_names(nodes: Sequence[NodeProto]) -> list[str]:
    """One distinct name a node: its own, or its operator and position where it has none or shares it."""
    names: list[str] = []
    taken: set[str] = set()
    for index, node in enumerate(nodes):
        name = node.name if node.name and node.name not in taken else f"{node.name or node.op_type}_{index}"
        taken.add(name)
        names.append(name)
    return names


_FOREIGN = frozenset({("com.microsoft", "MatMulNBits")})  # operators outside the standard that there are rules for


def _build(node: NodeProto, name: str, graph: Graph, weights: Weights, feeds: str) -> Step:
    known = node.domain in ("", "ai.onnx") or (node.domain, node.op_type) in _FOREIGN
    if node.op_type not in RULES or not known:
        operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        raise ModelError(
            f"Layer {name!r}: expected an operator that SlimLab can turn into a torch layer, found the "
            f"operator {operator}. Export the model with other standard ONNX operators."
        )
    view = NodeView(node, graph, weights, name)
    made = RULES[node.op_type](view)
    if isinstance(made, nn.Module):
        inputs = [node.input[0]]
        module = made
    else:
        module = op = _op_class(node.op_type)(made)
        inputs = op.bind(view, weights, graph)
    return Step(name, node, module.eval(), tuple(inputs), tuple(node.output), feeds)


@cache
def _op_class(operator: str) -> type[Op]:
    # torchinfo prints the class name, so each operator gets a class of its own name.
    return type(operator, (Op,), {"__doc__": f"The ONNX operator {operator}."})


def _order(graph: Graph) -> list[tuple[int, int | None]]:
    """Node indexes in running order; one that only prepares a constant comes before its reader, whose index it has."""
    readers = graph.consumers()
    feeds: dict[int, int] = {}
    made: set[str] = set(graph.constants)
    for index, node in enumerate(graph.nodes):
        targets = {reader for name in node.output for reader in readers.get(name, [])}
        prepares = bool(node.input) and all(not name or name in made for name in node.input)
        if prepares and len(targets) == 1 and not set(node.output) & set(graph.outputs):
            made.update(node.output)
            feeds[index] = targets.pop()
    order: list[tuple[int, int | None]] = []
    helpers: dict[int, list[int]] = {}
    for index, target in feeds.items():
        helpers.setdefault(target, []).append(index)

    def put(index: int) -> None:
        for helper in helpers.get(index, ()):
            put(helper)
        order.append((index, feeds.get(index)))

    for index in range(len(graph.nodes)):
        if index not in feeds:
            put(index)
    return order


def _last_uses(steps: Sequence[Step], outputs: Sequence[str]) -> dict[int, list[str]]:
    last: dict[str, int] = {}
    for index, step in enumerate(steps):
        for name in (*step.outputs, *step.inputs):
            last[name] = index
    table: dict[int, list[str]] = {}
    for name, index in last.items():
        if name not in outputs:
            table.setdefault(index, []).append(name)
    return table


def _constant_slot(name: str) -> str:
    return "constant_" + re.sub(r"\W", "_", name)


def scope(name: str) -> tuple[str, ...]:
    """Path of a node: `/layer1/layer1.0/conv1/Conv` and `layer1.0.conv1.Conv` are both layer1, 0, conv1, Conv."""
    path: list[str] = []
    for part in (p for p in name.split("/") if p):
        here = ".".join(path)
        tail = part[len(here) + 1 :] if here and part.startswith(here + ".") else part
        path.extend(p for p in tail.split(".") if p)
    return tuple(path) or ("layer",)


def _plant(root: nn.Module, steps: Sequence[Step]) -> None:
    """Hang the layers into blocks by scope.

    A block that was left is not entered again (a second one is opened): torchinfo lists layers in running order.
    """
    paths = [_path(step) for step in steps]
    lonely = _lonely(paths)
    stack: list[tuple[str, nn.Module]] = [("", root)]
    for step, path in zip(steps, paths, strict=True):
        *blocks, leaf = path[:-1] if path[:-1] in lonely else path
        depth = 0
        while depth < min(len(blocks), len(stack) - 1) and stack[depth + 1][0] == blocks[depth]:
            depth += 1
        del stack[depth + 1 :]
        for name in blocks[depth:]:
            block = Block()
            _add(stack[-1][1], name, block)
            stack.append((name, block))
        _add(stack[-1][1], leaf, step.module)


def _path(step: Step) -> tuple[str, ...]:
    if not step.feeds:
        return scope(step.name)
    return (*scope(step.feeds)[:-1], re.sub(r"[./]", "_", step.name))


def _lonely(paths: Sequence[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Blocks that would hold one layer and nothing else: the layer takes the block's name and place."""
    children: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for path in paths:
        for end in range(1, len(path) + 1):
            children.setdefault(path[: end - 1], set()).add(path[:end])
    leaves = set(paths)
    return {
        block
        for block, inside in children.items()
        if block and len(inside) == 1 and inside <= leaves and next(iter(inside)) not in children
    }


def _add(parent: nn.Module, name: str, child: nn.Module) -> None:
    unique, count = name, 1
    while hasattr(parent, unique):  # names of layers must not hide the module's own attributes either
        count += 1
        unique = f"{name}_{count}"
    parent.add_module(unique, child)
