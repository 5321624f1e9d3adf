"""A graph in training: its weights as torch parameters, and back into the same graph by name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from onnx import TensorProto
from torch import nn

from lwcore import runtime
from lwcore.answers import fixed_batch
from lwcore.bridge import Network, to_torch
from lwcore.errors import ModelError, SlimError
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.runtime import Feed
from lwcore.slimming.distillation import norms

BATCH = 128
_ACTIVATIONS = 1 << 28  # floats that may be held for one step backwards: 1 GB
_LARGEST = 1e4  # no trained weight is larger; a mask of minus infinity is no weight
_STEADY = 16  # samples in a batch, at least, that batch norms may measure their statistics on
_INTEGERS = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4)


def check_trainable(model: Model) -> None:
    """Refuse what cannot be trained, before anything begins; raises `SlimError` or `ModelError` with the reason."""
    graph = Graph.view(model)
    kinds = {graph.types.get(name) for name in graph.constants if graph.constants[name].size > 1}
    if any(node.op_type in ("DequantizeLinear", "MatMulNBits") for node in graph.nodes) or kinds & set(_INTEGERS):
        raise SlimError(
            "Training: expected float32 weights, found integers, which cannot be changed a little at a time. Put the "
            "training before the step that reduces the precision, or start from the original file."
        )
    if TensorProto.FLOAT16 in graph.types.values() or TensorProto.DOUBLE in graph.types.values():
        raise SlimError(
            "Training: expected float32 weights, found another kind of floats. Put the training before the step that "
            "reduces the precision, or start from a float32 file."
        )
    try:
        network = to_torch(model)
    except ModelError as error:
        raise SlimError(f"Training: this model cannot be trained. {error}") from None
    if not any(p.requires_grad for p in network.parameters()):
        raise SlimError("Training: expected a model with weights, found none that could be trained.")


def batch_of(graph: Graph) -> int:
    """How many samples one step of training takes: the file's own number, else as many as memory allows."""
    floats = sum(math.prod(shape) for name, shape in graph.shapes.items() if name not in graph.constants)
    return fixed_batch(graph) or max(1, min(BATCH, _ACTIVATIONS // max(1, floats)))


class Student:
    """A model in training.

    Args:
        model: float32, as `check_trainable` wants it.
        example: some of its inputs, on which batch norms that were folded are measured and put back.
        watched: inner tensors to be answered too, behind the graph's own outputs.
        renormalise: put folded batch norms back.
    """

    def __init__(self, model: Model, example: Feed, watched: Sequence[str] = (), renormalise: bool = True) -> None:
        self.origin = model
        self.graph = Graph.view(model)
        self.outputs = len(self.graph.outputs)
        self.network: Network = to_torch(watching(model, watched))
        if all(p.ndim != 5 for p in self.network.parameters()):
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for parameter in self.network.parameters():
            if parameter.is_floating_point() and not bool((parameter.abs() < _LARGEST).all()):
                parameter.requires_grad_(False)
        steady = runtime.count(example) >= _STEADY and batch_of(self.graph) >= _STEADY
        self.norms = norms.put_back(self.network, self.tensors(example)) if renormalise and steady else {}
        self._learns = steady  # whether batch norms measure statistics while training
        self._alive = [(p, p != 0) for p in self.network.parameters() if p.ndim > 1 and bool((p == 0).any())]
        self.mode(False)

    def tensors(self, batch: Feed) -> list[torch.Tensor]:
        """A batch as torch reads it, in the order of the graph's inputs."""
        return [torch.from_numpy(batch[name]) for name in self.graph.inputs]

    def answer(self, batch: Feed) -> tuple[torch.Tensor, ...]:
        """The graph's outputs and the watched tensors."""
        found = self.network(*self.tensors(batch))
        return found if isinstance(found, tuple) else (found,)

    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        modules = (self.network, *self.norms.values())
        return [p for module in modules for p in module.parameters() if p.requires_grad]

    def mode(self, training: bool) -> None:
        """Training or evaluation; they differ in batch norms alone, because a graph knows no dropout."""
        for module in (self.network, *self.norms.values()):
            module.train(training and self._learns)

    def keep_zeros(self) -> None:
        """Connections that were removed stay removed."""
        with torch.no_grad():
            for parameter, alive in self._alive:
                parameter.mul_(alive)

    def model(self) -> Model:
        """The graph with the weights as they are now."""
        graph = self.graph.copy()
        for name, tensor in self._values().items():
            old = graph.constants[name]
            values = tensor.detach().contiguous().numpy()
            graph.set_constant(name, np.array(values, old.dtype).reshape(old.shape))
        return dataclasses.replace(self.origin, data=graph.serialize())

    def _values(self) -> Mapping[str, torch.Tensor]:
        """Initializer name → value, batch norms that were put back folded in again."""
        values: dict[str, torch.Tensor] = {}
        for path, name in self.network.weights.items():
            values[name] = self.network.get_parameter(path)
        for step in self.network.steps:
            module = step.module
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                values |= zip(step.node.input[3:5], norms.statistics(module), strict=True)
            elif module in self.norms:
                values |= zip(step.node.input[1:3], norms.folded(module, self.norms[module]), strict=True)
        return values


def watching(model: Model, names: Sequence[str]) -> Model:
    """The model with inner tensors as further outputs."""
    if not names:
        return model
    graph = Graph.view(model)
    proto = graph.proto()
    listed = set(graph.outputs)
    proto.graph.output.extend(graph.value_info(name) for name in dict.fromkeys(names) if name not in listed)
    return dataclasses.replace(model, data=bytes(proto.SerializeToString(deterministic=True)))
