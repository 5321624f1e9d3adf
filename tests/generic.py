"""Small networks that are no classifiers: a regressor with two inputs, a recurrent one, a detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lwcore.model import Model
from lwcore.sources.upload import read_upload

FLOAT = TensorProto.FLOAT


def _proto(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    tensors: Mapping[str, np.ndarray],
    kinds: Mapping[str, int] | None = None,
) -> bytes:
    known = kinds or {}
    body = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info(n, known.get(n, FLOAT), s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, known.get(n, FLOAT), s) for n, s in outputs.items()],
        [numpy_helper.from_array(a if a.dtype == np.int64 else a.astype(np.float32), n) for n, a in tensors.items()],
    )
    proto = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(proto.SerializeToString())


def regressor_file() -> bytes:
    """Two inputs (a row of numbers and a table position), a hidden layer of 32, one number out."""
    rng = np.random.default_rng(0)
    tensors = {
        "table": rng.standard_normal((9, 6)),
        "w1": rng.standard_normal((14, 32)) * 0.4,
        "b1": rng.standard_normal(32) * 0.1,
        "w2": rng.standard_normal((32, 32)) * 0.3,
        "b2": rng.standard_normal(32) * 0.1,
        "w3": rng.standard_normal((32, 1)) * 0.4,
        "b3": rng.standard_normal(1),
    }
    nodes = [
        helper.make_node("Gather", ["table", "place"], ["e"], axis=0, name="embedding"),
        helper.make_node("Concat", ["x", "e"], ["c"], axis=1, name="concat"),
        helper.make_node("Gemm", ["c", "w1", "b1"], ["h1"], name="first"),
        helper.make_node("Relu", ["h1"], ["r1"], name="relu1"),
        helper.make_node("Gemm", ["r1", "w2", "b2"], ["h2"], name="second"),
        helper.make_node("Relu", ["h2"], ["r2"], name="relu2"),
        helper.make_node("Gemm", ["r2", "w3", "b3"], ["y"], name="last"),
    ]
    inputs = {"x": ("n", 8), "place": ("n",)}
    return _proto(nodes, inputs, {"y": ("n", 1)}, tensors, {"place": TensorProto.INT64})


def recurrent_file() -> bytes:
    """An LSTM over (steps, batch, features) with an initial state as second input, then a layer over every step."""
    rng = np.random.default_rng(1)
    hidden, features = 16, 8
    tensors = {
        "w": rng.standard_normal((1, 4 * hidden, features)) * 0.4,
        "r": rng.standard_normal((1, 4 * hidden, hidden)) * 0.3,
        "squeeze": np.array([1], np.int64),
        "f": rng.standard_normal((hidden, 24)) * 0.4,
        "g": rng.standard_normal((24, 5)) * 0.4,
    }
    nodes = [
        helper.make_node(
            "LSTM", ["x", "w", "r", "", "", "h0", "c0"], ["all", "h", "c"], hidden_size=hidden, name="lstm"
        ),
        helper.make_node("Squeeze", ["all", "squeeze"], ["s"], name="squeeze"),
        helper.make_node("MatMul", ["s", "f"], ["m"], name="wide"),
        helper.make_node("Relu", ["m"], ["q"], name="relu"),
        helper.make_node("MatMul", ["q", "g"], ["y"], name="out"),
    ]
    inputs = {"x": ("steps", "batch", features), "h0": (1, "batch", hidden), "c0": (1, "batch", hidden)}
    return _proto(nodes, inputs, {"y": ("steps", "batch", 5), "h": (1, "batch", hidden)}, tensors)


def detector_file() -> bytes:
    """Boxes, scores and the best class at every place of a picture: three outputs, one of whole numbers."""
    rng = np.random.default_rng(2)
    tensors = {
        "a": rng.standard_normal((16, 3, 3, 3)) * 0.3,
        "b": rng.standard_normal((24, 16, 3, 3)) * 0.12,
        "box": rng.standard_normal((4, 24, 1, 1)) * 0.3,
        "cls": rng.standard_normal((6, 24, 1, 1)) * 0.3,
        "flat": np.array([0, 4, -1], np.int64),
        "flat6": np.array([0, 6, -1], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["c1"], pads=[1] * 4, strides=[2, 2], name="stem"),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "b"], ["c2"], pads=[1] * 4, strides=[2, 2], name="body"),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu2"),
        helper.make_node("Conv", ["r2", "box"], ["boxes4"], name="boxes"),
        helper.make_node("Conv", ["r2", "cls"], ["scores4"], name="scores"),
        helper.make_node("Reshape", ["boxes4", "flat"], ["boxes3"], name="flat1"),
        helper.make_node("Reshape", ["scores4", "flat6"], ["scores3"], name="flat2"),
        helper.make_node("Transpose", ["boxes3"], ["box_table"], perm=[0, 2, 1], name="turn1"),
        helper.make_node("Transpose", ["scores3"], ["score_table"], perm=[0, 2, 1], name="turn2"),
        helper.make_node("ArgMax", ["score_table"], ["best"], axis=2, keepdims=0, name="best"),
    ]
    outputs = {"box_table": ("n", 64, 4), "score_table": ("n", 64, 6), "best": ("n", 64)}
    return _proto(nodes, {"x": ("n", 3, 32, 32)}, outputs, tensors, {"best": TensorProto.INT64})


FILES = {"regressor": regressor_file, "recurrent": recurrent_file, "detector": detector_file}


def network(name: str) -> Model:
    """One of them, read as an upload is."""
    return read_upload(FILES[name](), f"{name}.onnx")
