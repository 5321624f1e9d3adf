"""Files from other producers: whatever wrote them, a cut equals the masked original."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from lwcore.graph import Graph
from lwcore.runtime import session
from lwcore.sources.normalise import normalise
from lwcore.sources.upload import read_upload
from tests.graphs import arrays, conv, made, proto_of, sizes
from tests.helpers import assert_law

NEW = 26  # the newest that onnxruntime 1.31 runs; onnx itself may know later ones


# -- operator sets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", range(7, NEW + 1))
def test_every_operator_set_since_seven_can_be_cut(opset: int) -> None:
    weights = arrays(a=(8, 3, 3, 3), c=(6, 8, 1, 1), f=(6, 4), fb=(4,), s=(8,), b=(8,), m=(8,))
    weights |= {"v": np.ones(8, np.float32)}
    nodes = [
        conv("x", "a", "p"),
        helper.make_node("BatchNormalization", ["p", "s", "b", "m", "v"], ["q"]),
        helper.make_node("Relu", ["q"], ["r"]),
        conv("r", "c", "t"),
        helper.make_node("GlobalAveragePool", ["t"], ["u"]),
        helper.make_node("Flatten", ["u"], ["z"]),
        helper.make_node("Gemm", ["z", "f", "fb"], ["y"], name="fc"),
    ]
    coupling = assert_law(made(proto_of(nodes, weights, {"x": ["n", 3, 6, 6]}, opset=opset)))
    assert sizes(coupling) == {"conv_a": 8, "conv_c": 6}


def test_settings_that_old_files_keep_in_attributes_are_rewritten() -> None:
    nodes = [
        conv("x", "a", "p"),
        helper.make_node("Split", ["p"], ["p1", "p2"], axis=1, split=[6, 6]),
        helper.make_node("Slice", ["p1"], ["s"], axes=[1], starts=[2], ends=[6]),
        helper.make_node("Upsample", ["s"], ["u"], mode="nearest", scales=[1.0, 1.0, 2.0, 2.0]),
        helper.make_node("Pad", ["u"], ["v"], pads=[0, 0, 1, 1, 0, 0, 1, 1]),
        helper.make_node("Clip", ["v"], ["w"], min=-1.0, max=1.0),
        conv("w", "c", "q"),
        helper.make_node("GlobalAveragePool", ["q"], ["g"]),
        helper.make_node("Squeeze", ["g"], ["h"], axes=[2, 3]),
        helper.make_node("GlobalAveragePool", ["p2"], ["g2"]),
        helper.make_node("Squeeze", ["g2"], ["h2"], axes=[2, 3]),
        helper.make_node("Concat", ["h", "h2"], ["k"], axis=1),
        helper.make_node("MatMul", ["k", "f"], ["y"], name="fc"),
    ]
    weights = arrays(a=(12, 3, 1, 1), c=(6, 4, 1, 1), f=(12, 4))
    coupling = assert_law(made(proto_of(nodes, weights, {"x": [1, 3, 4, 4]}, opset=7)))
    assert sum(g.channels for g in coupling.groups) == 18


# -- tools -------------------------------------------------------------------------------------------------------------


def test_the_transposes_that_tf2onnx_writes_around_convolutions_are_followed() -> None:
    to_first, to_last = [0, 3, 1, 2], [0, 2, 3, 1]
    nodes = [
        helper.make_node("Transpose", ["x"], ["x1"], perm=to_first),
        conv("x1", "a", "p", pads=[0, 0, 1, 1], strides=[2, 2]),
        helper.make_node("Transpose", ["p"], ["p1"], perm=to_last),
        helper.make_node("Add", ["p1", "bias"], ["p2"]),
        helper.make_node("Relu", ["p2"], ["p3"]),
        helper.make_node("Transpose", ["p3"], ["p4"], perm=to_first),
        helper.make_node("Reshape", ["kernel", "depthwise"], ["d"]),
        conv("p4", "d", "q", group=8, pads=[1, 1, 1, 1]),
        helper.make_node("Transpose", ["q"], ["q1"], perm=to_last),
        helper.make_node("Mul", ["q1", "scale"], ["q2"]),
        helper.make_node("ReduceMean", ["q2"], ["m"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["m", "f"], ["z"], name="fc"),
        helper.make_node("Add", ["z", "fb"], ["y"]),
    ]
    weights = arrays(a=(8, 3, 3, 3), bias=(8,), kernel=(3, 3, 8, 1), scale=(1, 1, 1, 8), f=(8, 4), fb=(4,))
    weights["depthwise"] = np.array([8, 1, 3, 3])
    coupling = assert_law(made(proto_of(nodes, weights, {"x": ["n", 8, 8, 3]})))
    assert sizes(coupling) == {"conv_a": 8}


def test_paddle_files_with_weights_in_constant_nodes_and_computed_shapes_can_be_cut() -> None:
    weights = arrays(a=(8, 3, 1, 1), s=(8,), b=(8,), m=(8,), f=(8, 4))
    weights |= {"v": np.ones(8, np.float32), "one": np.array([1]), "zero": np.array([0]), "rest": np.array([8])}
    constants = [helper.make_node("Constant", [], [n], value=numpy_helper.from_array(a)) for n, a in weights.items()]
    nodes = [
        *constants,
        conv("x", "a", "p"),
        helper.make_node("BatchNormalization", ["p", "s", "b", "m", "v"], ["q"]),
        helper.make_node("HardSigmoid", ["q"], ["h"], alpha=1 / 6, beta=0.5),
        helper.make_node("Mul", ["q", "h"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Shape", ["g"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["g", "target"], ["z"]),
        helper.make_node("MatMul", ["z", "f"], ["t"], name="fc"),
        helper.make_node("Softmax", ["t"], ["y"]),
    ]
    assert sizes(assert_law(made(proto_of(nodes, {}, {"x": ["n", 3, 5, 5]})))) == {"conv_a": 8}


def test_initializers_that_are_listed_as_inputs_are_weights() -> None:
    nodes = [conv("x", "a", "p"), helper.make_node("Relu", ["p"], ["r"]), conv("r", "c", "y")]
    proto = proto_of(nodes, arrays(a=(8, 3, 1, 1), c=(4, 8, 1, 1)), {"x": [1, 3, 5, 5]}, opset=8, listed=True)
    model = made(proto)
    assert Graph.view(model).inputs == ["x"]
    assert sizes(assert_law(model)) == {"conv_a": 8}


def test_a_file_with_an_open_batch_and_an_open_size_can_be_cut() -> None:
    nodes = [conv("x", "a", "p", pads=[1, 1, 1, 1]), helper.make_node("GlobalAveragePool", ["p"], ["g"])]
    nodes += [helper.make_node("Flatten", ["g"], ["z"]), helper.make_node("MatMul", ["z", "f"], ["y"], name="fc")]
    proto = proto_of(nodes, arrays(a=(8, 3, 3, 3), f=(8, 4)), {"x": ["n", 3, "h", "w"]})
    model = read_upload(proto.SerializeToString(), "open.onnx", size=(12, 16))
    assert sizes(assert_law(model)) == {"conv_a": 8}
    assert Graph.view(model).free["p"] == {0: "batch"}


def test_an_index_that_follows_from_the_data_stays_computed() -> None:
    nodes = [
        conv("x", "a", "p"),
        helper.make_node("GlobalAveragePool", ["p"], ["g"]),
        helper.make_node("Flatten", ["g"], ["z"]),
        helper.make_node("MatMul", ["z", "f"], ["t"]),
        helper.make_node("ArgMax", ["t"], ["best"], axis=1, keepdims=0),
        helper.make_node("Gather", ["table", "best"], ["y"], axis=0),
    ]
    proto = proto_of(nodes, arrays(a=(8, 3, 1, 1), f=(8, 5), table=(5, 2)), {"x": [1, 3, 5, 5]})
    data, _ = normalise(proto)
    rng = np.random.default_rng(0)
    for _ in range(8):
        feeds = {"x": rng.standard_normal((1, 3, 5, 5)).astype(np.float32)}
        expected = session(proto.SerializeToString()).run(None, feeds)[0]
        np.testing.assert_array_equal(session(data).run(None, feeds)[0], expected)
