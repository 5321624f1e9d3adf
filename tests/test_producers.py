"""Files from other producers: whatever wrote them, a cut equals the masked original, and what stays has a reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lwcore.analysis.cost import cost
from lwcore.analysis.coupling import Coupling, couple
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.runtime import session
from lwcore.settings import SETTINGS
from lwcore.slimming.budget.pricing import price
from lwcore.slimming.rewrite import cut
from lwcore.sources.normalise import normalise
from lwcore.sources.unroll import unroll
from lwcore.sources.upload import read_upload
from tests.helpers import masked

Node = onnx.NodeProto
NEW = 26  # the newest that onnxruntime 1.31 runs; onnx itself may know later ones


def _arrays(**shapes: Sequence[int]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {n: (rng.standard_normal(s) / np.sqrt(max(1, np.prod(s[1:])))).astype(np.float32) for n, s in shapes.items()}


def _proto(
    nodes: Sequence[Node],
    arrays: Mapping[str, np.ndarray],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
    listed: bool = False,
) -> onnx.ModelProto:
    """A file; `listed` names the initializers among the inputs too, as files before IR version 4 had to."""
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in inputs.items()]
    infos += [helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in arrays.items() if listed]
    graph = helper.make_graph(
        list(nodes),
        "g",
        infos,
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )
    version = 3 if listed else 8 if opset < 20 else 10
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=version)


def _model(proto: onnx.ModelProto) -> Model:
    return Model(data=normalise(proto)[0])


def _feeds(graph: Graph) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {n: rng.standard_normal(graph.shape(n)).astype(np.float32) for n in graph.inputs}


def assert_law(model: Model, share: float = 0.5, tolerance: float = 1e-4) -> Coupling:
    """The model cut at random equals its masked twin, and costs what pricing says; gives the coupling back."""
    coupling = couple(model)
    rng = np.random.default_rng(3)
    keep = np.ones(coupling.units, dtype=bool)
    counts = {g.name: int(g.channels * share) for g in coupling.groups}
    for group in coupling.groups:
        keep[rng.permutation(group.units)[: counts[group.name]]] = False
    assert not keep.all(), "nothing is cut"
    graph = Graph.of(model)
    slim = replace(model, data=cut(graph, coupling, keep).serialize())
    onnx.checker.check_model(onnx.load_model_from_string(slim.data))
    planned, real = price(model, counts), cost(slim)
    assert (planned.params, planned.macs) == (real.params, real.macs)
    feeds = _feeds(graph)
    expected = session(masked(graph, coupling, keep).serialize()).run(None, feeds)
    found = session(slim.data).run(None, feeds)
    dense = session(model.data).run(None, feeds)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(dense, expected, strict=True)), "the mask changes nothing"
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * float(np.abs(b).max()))
    return coupling


def _sizes(coupling: Coupling) -> dict[str, int]:
    return {g.name: g.channels for g in coupling.groups}


def _conv(x: str, w: str, y: str, **options: object) -> Node:
    return helper.make_node("Conv", [x, w], [y], name=f"conv_{w}", **options)


# -- operator sets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", range(7, NEW + 1))
def test_every_operator_set_since_seven_can_be_cut(opset: int) -> None:
    weights = _arrays(a=(8, 3, 3, 3), c=(6, 8, 1, 1), f=(6, 4), fb=(4,), s=(8,), b=(8,), m=(8,))
    weights |= {"v": np.ones(8, np.float32)}
    nodes = [
        _conv("x", "a", "p"),
        helper.make_node("BatchNormalization", ["p", "s", "b", "m", "v"], ["q"]),
        helper.make_node("Relu", ["q"], ["r"]),
        _conv("r", "c", "t"),
        helper.make_node("GlobalAveragePool", ["t"], ["u"]),
        helper.make_node("Flatten", ["u"], ["z"]),
        helper.make_node("Gemm", ["z", "f", "fb"], ["y"], name="fc"),
    ]
    coupling = assert_law(_model(_proto(nodes, weights, {"x": ["n", 3, 6, 6]}, opset=opset)))
    assert _sizes(coupling) == {"conv_a": 8, "conv_c": 6}


def test_settings_that_old_files_keep_in_attributes_are_rewritten() -> None:
    nodes = [
        _conv("x", "a", "p"),
        helper.make_node("Split", ["p"], ["p1", "p2"], axis=1, split=[6, 6]),
        helper.make_node("Slice", ["p1"], ["s"], axes=[1], starts=[2], ends=[6]),
        helper.make_node("Upsample", ["s"], ["u"], mode="nearest", scales=[1.0, 1.0, 2.0, 2.0]),
        helper.make_node("Pad", ["u"], ["v"], pads=[0, 0, 1, 1, 0, 0, 1, 1]),
        helper.make_node("Clip", ["v"], ["w"], min=-1.0, max=1.0),
        _conv("w", "c", "q"),
        helper.make_node("GlobalAveragePool", ["q"], ["g"]),
        helper.make_node("Squeeze", ["g"], ["h"], axes=[2, 3]),
        helper.make_node("GlobalAveragePool", ["p2"], ["g2"]),
        helper.make_node("Squeeze", ["g2"], ["h2"], axes=[2, 3]),
        helper.make_node("Concat", ["h", "h2"], ["k"], axis=1),
        helper.make_node("MatMul", ["k", "f"], ["y"], name="fc"),
    ]
    weights = _arrays(a=(12, 3, 1, 1), c=(6, 4, 1, 1), f=(12, 4))
    coupling = assert_law(_model(_proto(nodes, weights, {"x": [1, 3, 4, 4]}, opset=7)))
    assert sum(g.channels for g in coupling.groups) == 18


# -- tools -------------------------------------------------------------------------------------------------------------


def test_the_transposes_that_tf2onnx_writes_around_convolutions_are_followed() -> None:
    to_first, to_last = [0, 3, 1, 2], [0, 2, 3, 1]
    nodes = [
        helper.make_node("Transpose", ["x"], ["x1"], perm=to_first),
        _conv("x1", "a", "p", pads=[0, 0, 1, 1], strides=[2, 2]),
        helper.make_node("Transpose", ["p"], ["p1"], perm=to_last),
        helper.make_node("Add", ["p1", "bias"], ["p2"]),
        helper.make_node("Relu", ["p2"], ["p3"]),
        helper.make_node("Transpose", ["p3"], ["p4"], perm=to_first),
        helper.make_node("Reshape", ["kernel", "depthwise"], ["d"]),
        _conv("p4", "d", "q", group=8, pads=[1, 1, 1, 1]),
        helper.make_node("Transpose", ["q"], ["q1"], perm=to_last),
        helper.make_node("Mul", ["q1", "scale"], ["q2"]),
        helper.make_node("ReduceMean", ["q2"], ["m"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["m", "f"], ["z"], name="fc"),
        helper.make_node("Add", ["z", "fb"], ["y"]),
    ]
    weights = _arrays(a=(8, 3, 3, 3), bias=(8,), kernel=(3, 3, 8, 1), scale=(1, 1, 1, 8), f=(8, 4), fb=(4,))
    weights["depthwise"] = np.array([8, 1, 3, 3])
    coupling = assert_law(_model(_proto(nodes, weights, {"x": ["n", 8, 8, 3]})))
    assert _sizes(coupling) == {"conv_a": 8}


def test_paddle_files_with_weights_in_constant_nodes_and_computed_shapes_can_be_cut() -> None:
    weights = _arrays(a=(8, 3, 1, 1), s=(8,), b=(8,), m=(8,), f=(8, 4))
    weights |= {"v": np.ones(8, np.float32), "one": np.array([1]), "zero": np.array([0]), "rest": np.array([8])}
    constants = [helper.make_node("Constant", [], [n], value=numpy_helper.from_array(a)) for n, a in weights.items()]
    nodes = [
        *constants,
        _conv("x", "a", "p"),
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
    assert _sizes(assert_law(_model(_proto(nodes, {}, {"x": ["n", 3, 5, 5]})))) == {"conv_a": 8}


def test_initializers_that_are_listed_as_inputs_are_weights() -> None:
    nodes = [_conv("x", "a", "p"), helper.make_node("Relu", ["p"], ["r"]), _conv("r", "c", "y")]
    proto = _proto(nodes, _arrays(a=(8, 3, 1, 1), c=(4, 8, 1, 1)), {"x": [1, 3, 5, 5]}, opset=8, listed=True)
    model = _model(proto)
    assert Graph.view(model).inputs == ["x"]
    assert _sizes(assert_law(model)) == {"conv_a": 8}


def test_a_file_with_an_open_batch_and_an_open_size_can_be_cut() -> None:
    nodes = [_conv("x", "a", "p", pads=[1, 1, 1, 1]), helper.make_node("GlobalAveragePool", ["p"], ["g"])]
    nodes += [helper.make_node("Flatten", ["g"], ["z"]), helper.make_node("MatMul", ["z", "f"], ["y"], name="fc")]
    proto = _proto(nodes, _arrays(a=(8, 3, 3, 3), f=(8, 4)), {"x": ["n", 3, "h", "w"]})
    model = read_upload(proto.SerializeToString(), "open.onnx", size=(12, 16))
    assert _sizes(assert_law(model)) == {"conv_a": 8}
    assert Graph.view(model).free["p"] == {0: "batch"}


def test_an_index_that_follows_from_the_data_stays_computed() -> None:
    nodes = [
        _conv("x", "a", "p"),
        helper.make_node("GlobalAveragePool", ["p"], ["g"]),
        helper.make_node("Flatten", ["g"], ["z"]),
        helper.make_node("MatMul", ["z", "f"], ["t"]),
        helper.make_node("ArgMax", ["t"], ["best"], axis=1, keepdims=0),
        helper.make_node("Gather", ["table", "best"], ["y"], axis=0),
    ]
    proto = _proto(nodes, _arrays(a=(8, 3, 1, 1), f=(8, 5), table=(5, 2)), {"x": [1, 3, 5, 5]})
    data, _ = normalise(proto)
    rng = np.random.default_rng(0)
    for _ in range(8):
        feeds = {"x": rng.standard_normal((1, 3, 5, 5)).astype(np.float32)}
        expected = session(proto.SerializeToString()).run(None, feeds)[0]
        np.testing.assert_array_equal(session(data).run(None, feeds)[0], expected)


# -- structure ---------------------------------------------------------------------------------------------------------


def test_layers_that_share_a_weight_shrink_together() -> None:
    nodes = [
        _conv("x", "a", "p"),
        helper.make_node("Conv", ["p", "w"], ["q"], name="first"),
        helper.make_node("Relu", ["q"], ["r"]),
        helper.make_node("Conv", ["r", "w"], ["s"], name="second"),
        _conv("s", "c", "y"),
    ]
    coupling = assert_law(
        _model(_proto(nodes, _arrays(a=(8, 3, 1, 1), w=(8, 8, 1, 1), c=(4, 8, 1, 1)), {"x": [1, 3, 5, 5]}))
    )
    assert _sizes(coupling) == {"conv_a": 8}
    assert set(coupling.groups[0].layers) == {"conv_a", "first", "second", "conv_c"}


def test_several_inputs_and_outputs_are_cut_to_the_same_law() -> None:
    nodes = [
        _conv("x", "a", "p"),
        _conv("z", "b", "q"),
        helper.make_node("Concat", ["p", "q"], ["s"], axis=1),
        _conv("s", "c", "t"),
        _conv("t", "d", "y"),
        _conv("t", "e", "y2"),
    ]
    weights = _arrays(a=(8, 3, 1, 1), b=(6, 2, 1, 1), c=(10, 14, 1, 1), d=(4, 10, 1, 1), e=(3, 10, 1, 1))
    coupling = assert_law(_model(_proto(nodes, weights, {"x": ["n", 3, 5, 5], "z": ["n", 2, 5, 5]}, ["y", "y2"])))
    assert _sizes(coupling) == {"conv_a": 8, "conv_b": 6, "conv_c": 10}


def _body(name: str, operator: str) -> onnx.GraphProto:
    out = f"{name}_out"
    node = helper.make_node(operator, ["p"], [out], name=f"{name}_{operator}")
    return helper.make_graph([node], name, [], [helper.make_tensor_value_info(out, TensorProto.FLOAT, None)])


def test_what_the_branches_of_an_if_read_stays_and_the_rest_is_cut() -> None:
    nodes = [
        _conv("x", "a", "p"),
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["positive"]),
        helper.make_node(
            "If", ["positive"], ["q"], then_branch=_body("yes", "Relu"), else_branch=_body("no", "Neg"), name="choice"
        ),
        _conv("q", "b", "r"),
        _conv("r", "c", "y"),
    ]
    weights = _arrays(a=(8, 3, 1, 1), b=(6, 8, 1, 1), c=(4, 6, 1, 1)) | {"zero": np.array(0, np.float32)}
    coupling = assert_law(_model(_proto(nodes, weights, {"x": ["n", 3, 5, 5]})))
    assert _sizes(coupling) == {"conv_b": 6}
    frozen = {f.layer: f for f in coupling.frozen}
    assert "If" in frozen["conv_a"].reason
    assert not frozen["conv_a"].meant


def _loop() -> tuple[list[Node], dict[str, np.ndarray]]:
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
        _conv("x", "a", "p"),
        helper.make_node("Loop", ["times", "", "p"], ["q"], body=inner, name="loop"),
        _conv("q", "b", "r"),
        _conv("r", "c", "y"),
    ]
    return nodes, _arrays(a=(8, 3, 1, 1), w=(8, 8, 1, 1), b=(6, 8, 1, 1), c=(4, 6, 1, 1))


def test_what_the_body_of_a_loop_reads_stays_and_the_rest_is_cut() -> None:
    nodes, weights = _loop()
    counted = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Sign", ["largest"], ["sign"]),
        helper.make_node("Cast", ["sign"], ["times"], to=TensorProto.INT64),
    ]
    coupling = assert_law(_model(_proto([*counted, *nodes], weights, {"x": ["n", 3, 5, 5]})))
    assert _sizes(coupling) == {"conv_b": 6}


def test_a_loop_that_always_runs_equally_often_is_written_out_and_cut() -> None:
    nodes, weights = _loop()
    coupling = assert_law(_model(_proto(nodes, weights | {"times": np.array(2)}, {"x": ["n", 3, 5, 5]})))
    assert _sizes(coupling) == {"conv_a": 8, "conv_b": 6}


def test_loops_within_loops_are_written_out_only_as_far_as_a_file_may_have_operators() -> None:
    node = helper.make_node("Relu", ["v0"], ["w0"], name="relu")
    for depth in range(5):
        inputs = [("i", TensorProto.INT64, []), ("go", TensorProto.BOOL, []), ("v", TensorProto.FLOAT, None)]
        given = [helper.make_tensor_value_info(f"{name}{depth}", kind, shape) for name, kind, shape in inputs]
        made = helper.make_tensor_value_info(f"w{depth}", TensorProto.FLOAT, None)
        body = helper.make_graph([node], "body", given, [given[1], made])
        node = helper.make_node("Loop", ["times", "", f"v{depth + 1}"], [f"w{depth + 1}"], body=body, name=f"l{depth}")
    graph = Graph(_proto([node], {"times": np.array(64)}, {"v5": [1]}, outputs=("w5",)))
    assert unroll(graph)
    assert len(graph.nodes) <= SETTINGS.nodes


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
    weights = _arrays(
        e=(5, 6), w=(ways, 10 * gates, 6), r=(ways, 10 * gates, 10), b=(ways, 10 * biases), f=(10 * ways, 3), g=(10, 3)
    )
    weights |= {"flat": np.array([0, 7, 10 * ways]), "first": np.array([0])}
    coupling = assert_law(_model(_proto(nodes, weights, {"x": [1, 7, 5]})))
    assert _sizes(coupling) == {"embed": 6, "cell": 10}


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
    weights = _arrays(w=(1, 30, 6), r=(1, 30, 10), f=(10, 3))
    weights |= {"one": np.array([1]), "zero": np.array([0]), "ways": np.array([1]), "width": np.array([10])}
    weights |= {"nothing": np.zeros((1, 1, 1), np.float32)}
    proto = _proto(nodes, weights, {"x": [7, "n", 6]})
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    coupling = assert_law(_model(proto))
    assert _sizes(coupling) == {"cell": 10}


# -- quantized files ---------------------------------------------------------------------------------------------------


def _float_net() -> onnx.ModelProto:
    nodes = [
        _conv("x", "a", "p", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["p"], ["r"]),
        _conv("r", "d", "q", group=8, pads=[1, 1, 1, 1]),
        _conv("q", "b", "s"),
        helper.make_node("Add", ["s", "r"], ["t"]),
        _conv("x", "e", "u"),
        helper.make_node("Concat", ["t", "u"], ["v"], axis=1),
        helper.make_node("GlobalAveragePool", ["v"], ["g"]),
        helper.make_node("Flatten", ["g"], ["z"]),
        helper.make_node("Gemm", ["z", "f", "fb"], ["y"], name="fc", transB=1),
    ]
    weights = _arrays(a=(8, 3, 3, 3), d=(8, 1, 3, 3), b=(8, 8, 1, 1), e=(6, 3, 1, 1), f=(4, 14), fb=(4,))
    return _proto(nodes, weights, {"x": [1, 3, 6, 6]}, opset=13)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], Model]:
    """The small network as onnxruntime's own quantizer stores it."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            rng = np.random.default_rng(0)
            self.batches = iter([{"x": rng.standard_normal((1, 3, 6, 6)).astype(np.float32)} for _ in range(8)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    folder: Path = tmp_path_factory.mktemp("quantized")
    source = folder / "float.onnx"
    onnx.save(_float_net(), source)

    def make(form: str, per_channel: bool) -> Model:
        target = folder / f"{form}-{per_channel}.onnx"
        if form == "dynamic":
            quantize_dynamic(source, target, per_channel=per_channel, weight_type=QuantType.QInt8)
        else:
            quantize_static(
                source,
                target,
                Reader(),
                quant_format=QuantFormat[form],
                per_channel=per_channel,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        return _model(onnx.load(target))

    return make


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("form", ["QDQ", "QOperator", "dynamic"])
def test_files_that_are_already_quantized_can_be_cut(
    quantized: Callable[[str, bool], Model], form: str, per_channel: bool
) -> None:
    # Rounding is in steps of the output's scale: one step may differ where sums are ordered otherwise.
    coupling = assert_law(quantized(form, per_channel), share=0.4, tolerance=0.03)
    assert sum(g.channels for g in coupling.groups) == 14
    assert all(f.meant for f in coupling.frozen)


def test_weights_in_blocks_that_share_a_scale_stay_with_a_reason() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], name="first"),
        helper.make_node(
            "MatMulNBits",
            ["p", "packed", "scales"],
            ["q"],
            name="blocks",
            domain="com.microsoft",
            K=32,
            N=8,
            bits=4,
            block_size=16,
        ),
        helper.make_node("MatMul", ["q", "f"], ["r"], name="third"),
        helper.make_node("MatMul", ["r", "g"], ["y"], name="fc"),
    ]
    weights = _arrays(a=(5, 32), scales=(16,), f=(8, 6), g=(6, 3))
    weights["packed"] = np.random.default_rng(0).integers(0, 256, (8, 2, 8), dtype=np.uint8)
    proto = _proto(nodes, weights, {"x": [1, 5]})
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    coupling = assert_law(_model(proto))
    assert _sizes(coupling) == {"third": 6}
    frozen = {f.layer: f for f in coupling.frozen}
    assert frozen["first"].meant
    assert "blocks that share a scale" in frozen["first"].reason


def test_a_blockwise_dequantizer_keeps_what_its_weight_touches() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], name="first"),
        helper.make_node("DequantizeLinear", ["packed", "scales"], ["w"], axis=0, block_size=16),
        helper.make_node("MatMul", ["p", "w"], ["q"], name="blocks"),
        helper.make_node("MatMul", ["q", "f"], ["r"], name="third"),
        helper.make_node("MatMul", ["r", "g"], ["y"], name="fc"),
    ]
    weights = _arrays(a=(5, 32), scales=(2, 8), f=(8, 6), g=(6, 3))
    weights["packed"] = np.random.default_rng(0).integers(-8, 8, (32, 8)).astype(np.int8)
    coupling = assert_law(_model(_proto(nodes, weights, {"x": [1, 5]}, opset=21)))
    assert _sizes(coupling) == {"third": 6}
    assert {f.layer: f.meant for f in coupling.frozen}["first"]


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
    weights = _arrays(a=(5, 12), cosine=(7, 12), sine=(7, 12), f=(12, 3))
    weights |= {"zero": np.array([0]), "one": np.array([1]), "end": np.array([2**31 - 1]), "axis": np.array([-1])}
    weights |= {"two": np.array([2]), "last": np.array([3]), "flat": np.array([1, 7, 12])}
    assert _sizes(assert_law(_model(_proto(nodes, weights, {"x": [1, 7, 5]})))) == {"first": 6}
