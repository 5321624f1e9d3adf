"""Small models and sample sets made on the spot, for tests that need exact numbers rather than real ones."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lwcore.model import Card, InputSpec, Model
from lwcore.samples import SampleSet
from lwcore.sources.normalise import normalise

CLASSES = ("red", "green", "blue")
SPEC = InputSpec(size=(8, 8), color="gray", mean=(0.5,), std=(0.5,))


def tiny_model(batch: int | str = "batch", norm: bool = False, opset: int = 17, seed: int = 0) -> Model:
    """Conv (8 channels), batch norm if asked for, ReLU, mean over the picture, Gemm to three classes."""
    rng = np.random.default_rng(seed)
    tensors = {"w": rng.standard_normal((8, 1, 3, 3)), "f": rng.standard_normal((3, 8)), "fb": rng.standard_normal(3)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], name="conv")]
    last = "c"
    if norm:
        tensors |= {
            "g": rng.uniform(0.5, 2, 8),
            "b": rng.standard_normal(8),
            "m": rng.standard_normal(8),
            "v": rng.uniform(0.5, 2, 8),
        }
        nodes.append(helper.make_node("BatchNormalization", ["c", "g", "b", "m", "v"], ["n"], name="norm"))
        last = "n"
    nodes += [
        helper.make_node("Relu", [last], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["q"], name="flat"),
        helper.make_node("Gemm", ["q", "f", "fb"], ["y"], transB=1, name="fc"),
    ]
    return finish(nodes, tensors, batch, opset)


def finish(
    nodes: list[onnx.NodeProto], tensors: dict[str, np.ndarray], batch: int | str = "batch", opset: int = 17
) -> Model:
    """A model from nodes that read `x` (1×8×8) and write `y` (three classes)."""
    body = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in tensors.items()],
    )
    proto = helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return Model(data=normalise(proto)[0], card=Card(name="tiny", classes=CLASSES, input=SPEC))


def tiny_samples(count: int = 60, labelled: bool = True, seed: int = 1) -> SampleSet:
    """Random pictures with random labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count) if labelled else None
    return SampleSet(
        name="noise",
        arrays={"pixels": rng.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)},
        labels=labels,
        names=tuple(f"picture {i}" for i in range(count)),
    )
