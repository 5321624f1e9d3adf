"""One node with its inputs and constants, and the comparison of the bridge with onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import helper, numpy_helper

from lwcore.bridge import to_torch
from lwcore.graph import Graph
from lwcore.model import Model

rng = np.random.default_rng(0)


def f(*shape: int) -> np.ndarray:
    """Normal float32 values."""
    return rng.standard_normal(shape).astype(np.float32)


def i(*values: int) -> np.ndarray:
    """Whole numbers as int64."""
    return np.array(values, np.int64)


def u8(*shape: int) -> np.ndarray:
    """Unsigned 8-bit numbers."""
    return rng.integers(0, 255, shape).astype(np.uint8)


def s8(*shape: int) -> np.ndarray:
    """Signed 8-bit numbers."""
    return rng.integers(-60, 60, shape).astype(np.int8)  # half range: onnxruntime saturates u8·s8 on AVX2


x1, x2, x3 = f(2, 6, 11), f(2, 6, 9, 10), f(1, 4, 6, 7, 5)
positive = np.abs(f(3, 4)) + 0.1
whole = rng.integers(1, 9, (3, 4)) * rng.choice([-1, 1], (3, 4))


@dataclass
class Case:
    """One node: `inputs` are fed, `constants` are initializers by position (inputs take the positions left over)."""

    op: str
    inputs: Sequence[np.ndarray]
    constants: dict[int, np.ndarray] = field(default_factory=dict)
    opset: int = 18
    outputs: int = 1
    within: float = 2e-5
    attributes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        shown = ",".join(f"{k}={v}" for k, v in self.attributes.items())
        return f"{self.op}-{self.opset}-{'x'.join(str(v.shape) for v in self.inputs)}-{shown}".replace(" ", "")


def case(
    op: str,
    *inputs: np.ndarray,
    constants: dict[int, np.ndarray] | None = None,
    opset: int = 18,
    outputs: int = 1,
    within: float = 2e-5,
    **attributes: Any,
) -> Case:
    """A case with its node's attributes by name."""
    return Case(op, inputs, constants or {}, opset, outputs, within, attributes)


def node_model(c: Case) -> Model:
    """A model of the one node, with the output shapes that onnxruntime finds for the case's inputs."""
    fed = iter(range(len(c.inputs)))
    last = max([len(c.inputs) + len(c.constants) - 1, *c.constants])
    names = []
    for position in range(last + 1):
        index = None if position in c.constants else next(fed, None)
        names.append(f"c{position}" if position in c.constants else "" if index is None else f"x{index}")
    outputs = [f"y{k}" for k in range(c.outputs)]
    graph = helper.make_graph(
        [helper.make_node(c.op, names, outputs, name="it", **c.attributes)],
        "g",
        [_info(f"x{k}", v) for k, v in enumerate(c.inputs)],
        [onnx.ValueInfoProto(name=n) for n in outputs],
        [numpy_helper.from_array(np.asarray(v), f"c{k}") for k, v in c.constants.items()],
    )
    opsets = [helper.make_opsetid("", c.opset), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    results = session(proto.SerializeToString()).run(None, {f"x{k}": v for k, v in enumerate(c.inputs)})
    del graph.output[:]
    graph.output.extend(_info(n, v) for n, v in zip(outputs, results, strict=True))
    proto.graph.CopyFrom(graph)
    return Model(data=proto.SerializeToString())


def _info(name: str, value: np.ndarray) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def session(data: bytes) -> ort.InferenceSession:
    """onnxruntime without its graph rewrites, on one thread."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(data, options)


def run_both(model: Model, inputs: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(torch, onnxruntime) results of every output."""
    graph = Graph.view(model)
    wanted = session(model.data).run(None, dict(zip(graph.inputs, inputs, strict=True)))
    with torch.no_grad():
        found = to_torch(model)(*(torch.from_numpy(v.copy()) for v in inputs))
    found = found if isinstance(found, tuple) else (found,)
    return [(a.numpy(), b) for a, b in zip(found, wanted, strict=True)]


def assert_same(model: Model, inputs: Sequence[np.ndarray], within: float = 2e-5) -> None:
    """Both give the same types, shapes and, within a tolerance, numbers."""
    for found, wanted in run_both(model, inputs):
        assert found.dtype == wanted.dtype
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found.astype(np.float64), wanted.astype(np.float64), rtol=within, atol=within)
