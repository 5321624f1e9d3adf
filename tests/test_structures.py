"""Shared weights, several inputs and outputs, branches, loops, recurrent layers: a cut equals the masked original."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lwcore.graph import Graph
from lwcore.settings import SETTINGS
from lwcore.sources.unroll import unroll
from tests.graphs import arrays, conv, made, proto_of, sizes
from tests.helpers import assert_law


def test_layers_that_share_a_weight_shrink_together() -> None:
    nodes = [
        conv("x", "a", "p"),
        helper.make_node("Conv", ["p", "w"], ["q"], name="first"),
        helper.make_node("Relu", ["q"], ["r"]),
        helper.make_node("Conv", ["r", "w"], ["s"], name="second"),
        conv("s", "c", "y"),
    ]
    coupling = assert_law(
        made(proto_of(nodes, arrays(a=(8, 3, 1, 1), w=(8, 8, 1, 1), c=(4, 8, 1, 1)), {"x": [1, 3, 5, 5]}))
    )
    assert sizes(coupling) == {"conv_a": 8}
    assert set(coupling.groups[0].layers) == {"conv_a", "first", "second", "conv_c"}


def test_several_inputs_and_outputs_are_cut_to_the_same_law() -> None:
    nodes = [
        conv("x", "a", "p"),
        conv("z", "b", "q"),
        helper.make_node("Concat", ["p", "q"], ["s"], axis=1),
        conv("s", "c", "t"),
        conv("t", "d", "y"),
        conv("t", "e", "y2"),
    ]
    weights = arrays(a=(8, 3, 1, 1), b=(6, 2, 1, 1), c=(10, 14, 1, 1), d=(4, 10, 1, 1), e=(3, 10, 1, 1))
    coupling = assert_law(made(proto_of(nodes, weights, {"x": ["n", 3, 5, 5], "z": ["n", 2, 5, 5]}, ["y", "y2"])))
    assert sizes(coupling) == {"conv_a": 8, "conv_b": 6, "conv_c": 10}


def _body(name: str, operator: str) -> onnx.GraphProto:
    out = f"{name}_out"
    node = helper.make_node(operator, ["p"], [out], name=f"{name}_{operator}")
    return helper.make_graph([node], name, [], [helper.make_tensor_value_info(out, TensorProto.FLOAT, None)])


def test_what_the_branches_of_an_if_read_stays_and_the_rest_is_cut() -> None:
    nodes = [
        conv("x", "a", "p"),
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["positive"]),
        helper.make_node(
            "If", ["positive"], ["q"], then_branch=_body("yes", "Relu"), else_branch=_body("no", "Neg"), name="choice"
        ),
        conv("q", "b", "r"),
        conv("r", "c", "y"),
    ]
    weights = arrays(a=(8, 3, 1, 1), b=(6, 8, 1, 1), c=(4, 6, 1, 1)) | {"zero": np.array(0, np.float32)}
    coupling = assert_law(made(proto_of(nodes, weights, {"x": ["n", 3, 5, 5]})))
    assert sizes(coupling) == {"conv_b": 6}
    frozen = {f.layer: f for f in coupling.frozen}
    assert "If" in frozen["conv_a"].reason
    assert not frozen["conv_a"].meant


def _loop() -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """A loop over a convolution and a sum, `times` times."""
    inner = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Conv", ["state", "w"], ["i2"], name="inner"),
            helper.make_node("Add", ["i2", "p"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        conv("x", "a", "p"),
        helper.make_node("Loop", ["times", "", "p"], ["q"], body=inner, name="loop"),
        conv("q", "b", "r"),
        conv("r", "c", "y"),
    ]
    return nodes, arrays(a=(8, 3, 1, 1), w=(8, 8, 1, 1), b=(6, 8, 1, 1), c=(4, 6, 1, 1))


def test_what_the_body_of_a_loop_reads_stays_and_the_rest_is_cut() -> None:
    nodes, weights = _loop()
    counted = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Sign", ["largest"], ["sign"]),
        helper.make_node("Cast", ["sign"], ["times"], to=TensorProto.INT64),
    ]
    coupling = assert_law(made(proto_of([*counted, *nodes], weights, {"x": ["n", 3, 5, 5]})))
    assert sizes(coupling) == {"conv_b": 6}


def test_a_loop_that_always_runs_equally_often_is_written_out_and_cut() -> None:
    nodes, weights = _loop()
    coupling = assert_law(made(proto_of(nodes, weights | {"times": np.array(2)}, {"x": ["n", 3, 5, 5]})))
    assert sizes(coupling) == {"conv_a": 8, "conv_b": 6}


def test_loops_within_loops_are_written_out_only_as_far_as_a_file_may_have_operators() -> None:
    node = helper.make_node("Relu", ["v0"], ["w0"], name="relu")
    for depth in range(5):
        inputs = [("i", TensorProto.INT64, []), ("go", TensorProto.BOOL, []), ("v", TensorProto.FLOAT, None)]
        given = [helper.make_tensor_value_info(f"{name}{depth}", kind, shape) for name, kind, shape in inputs]
        made = helper.make_tensor_value_info(f"w{depth}", TensorProto.FLOAT, None)
        body = helper.make_graph([node], "body", given, [given[1], made])
        node = helper.make_node("Loop", ["times", "", f"v{depth + 1}"], [f"w{depth + 1}"], body=body, name=f"l{depth}")
    graph = Graph(proto_of([node], {"times": np.array(64)}, {"v5": [1]}, outputs=("w5",)))
    assert unroll(graph)
    assert len(graph.nodes) <= SETTINGS.nodes


def test_every_second_channel_of_a_rotary_embedding_goes_with_its_neighbour() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], name="first"),
        helper.make_node("Slice", ["p", "zero", "end", "axis", "two"], ["even"]),
        helper.make_node("Slice", ["p", "one", "end", "axis", "two"], ["odd"]),
        helper.make_node("Neg", ["odd"], ["minus"]),
        helper.make_node("Unsqueeze", ["minus", "last"], ["minus1"]),
        helper.make_node("Unsqueeze", ["even", "last"], ["even1"]),
        helper.make_node("Concat", ["minus1", "even1"], ["pairs"], axis=-1),
        helper.make_node("Reshape", ["pairs", "flat"], ["turned"]),
        helper.make_node("Mul", ["p", "cosine"], ["p1"]),
        helper.make_node("Mul", ["turned", "sine"], ["p2"]),
        helper.make_node("Add", ["p1", "p2"], ["q"]),
        helper.make_node("MatMul", ["q", "f"], ["y"], name="fc"),
    ]
    weights = arrays(a=(5, 12), cosine=(7, 12), sine=(7, 12), f=(12, 3))
    weights |= {"zero": np.array([0]), "one": np.array([1]), "end": np.array([2**31 - 1]), "axis": np.array([-1])}
    weights |= {"two": np.array([2]), "last": np.array([3]), "flat": np.array([1, 7, 12])}
    assert sizes(assert_law(made(proto_of(nodes, weights, {"x": [1, 7, 5]})))) == {"first": 6}


# -- recurrent layers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("operator", "gates", "biases"), [("LSTM", 4, 8), ("GRU", 3, 6), ("RNN", 1, 2)])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_a_recurrent_layer_loses_inputs_and_hidden_units(
    operator: str, gates: int, biases: int, direction: str
) -> None:
    ways = 2 if direction == "bidirectional" else 1
    nodes = [
        helper.make_node("MatMul", ["x", "e"], ["p"], name="embed"),
        helper.make_node("Transpose", ["p"], ["t"], perm=[1, 0, 2]),
        helper.make_node(
            operator, ["t", "w", "r", "b"], ["h", "last"], name="cell", hidden_size=10, direction=direction
        ),
        helper.make_node("Transpose", ["h"], ["h1"], perm=[2, 0, 1, 3]),
        helper.make_node("Reshape", ["h1", "flat"], ["h2"]),
        helper.make_node("ReduceMean", ["h2"], ["m"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["m", "f"], ["y1"], name="fc"),
        helper.make_node("ReduceSum", ["last", "first"], ["l1"], keepdims=0),
        helper.make_node("MatMul", ["l1", "g"], ["y2"], name="fc2"),
        helper.make_node("Add", ["y1", "y2"], ["y"]),
    ]
    weights = arrays(
        e=(5, 6), w=(ways, 10 * gates, 6), r=(ways, 10 * gates, 10), b=(ways, 10 * biases), f=(10 * ways, 3), g=(10, 3)
    )
    weights |= {"flat": np.array([0, 7, 10 * ways]), "first": np.array([0])}
    coupling = assert_law(made(proto_of(nodes, weights, {"x": [1, 7, 5]})))
    assert sizes(coupling) == {"embed": 6, "cell": 10}


def test_first_states_of_zeros_in_a_computed_shape_do_not_hold_a_layer() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["n"], axis=0),
        helper.make_node("Concat", ["ways", "n", "width"], ["target"], axis=0),
        helper.make_node("Expand", ["nothing", "target"], ["h0"]),
        helper.make_node("GRU", ["x", "w", "r", "", "", "h0"], ["", "last"], name="cell", hidden_size=10),
        helper.make_node("Squeeze", ["last", "zero"], ["l"]),
        helper.make_node("MatMul", ["l", "f"], ["y"], name="fc"),
    ]
    weights = arrays(w=(1, 30, 6), r=(1, 30, 10), f=(10, 3))
    weights |= {"one": np.array([1]), "zero": np.array([0]), "ways": np.array([1]), "width": np.array([10])}
    weights |= {"nothing": np.zeros((1, 1, 1), np.float32)}
    proto = proto_of(nodes, weights, {"x": [7, "n", 6]})
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    coupling = assert_law(made(proto))
    assert sizes(coupling) == {"cell": 10}
