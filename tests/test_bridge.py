"""The bridge: a whole model as a torch module computes the same, and its parameters are the graph's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from lwcore.analysis import cost
from lwcore.bridge import to_torch
from lwcore.bridge.network import scope
from lwcore.errors import ModelError
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.sources import builtin, load
from lwcore.sources.normalise import normalise
from tests.operators.case import assert_same, f, i, s8


def graph_model(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str],
    out: Sequence[int | str],
    constants: dict[str, np.ndarray],
) -> Model:
    """A normalised model reading float "x" and giving float "y"."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return Model(data=normalise(proto)[0])


def parameter_count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", builtin.ids())
def test_built_in_models_agree_and_have_the_same_parameters_as_the_graph(name: str) -> None:
    model = load(name)
    graph = Graph.view(model)
    kinds = {name: helper.tensor_dtype_to_np_dtype(graph.types[name]) for name in graph.inputs}
    batch = [(f if kinds[n].kind == "f" else _ones)(3, *graph.shape(n)[1:]).astype(kinds[n]) for n in graph.inputs]
    assert_same(model, batch, 1e-4)
    assert parameter_count(to_torch(model)) == cost.cost(model).params


def _ones(*shape: int) -> np.ndarray:
    """Token ids, and a mask that leaves nothing out."""
    return np.ones(shape)


def test_training_reaches_every_float_parameter() -> None:
    model = load("fashion-shufflenetv2")
    network = to_torch(model)
    network(torch.randn(2, 1, 28, 28)).square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_every_parameter_knows_its_initializer() -> None:
    model = load("fashion-resnet20")
    network, graph = to_torch(model), Graph.view(model)
    parameters = dict(network.named_parameters())
    assert set(network.weights) == set(parameters)
    for path, name in network.weights.items():
        np.testing.assert_array_equal(parameters[path].detach().numpy(), graph.constants[name])


def test_a_weight_that_two_layers_read_is_one_parameter() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="one", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "w"], ["y"], name="two", pads=[1, 1, 1, 1]),
    ]
    model = graph_model(nodes, [1, 4, 5, 5], [1, 4, 5, 5], {"w": f(4, 4, 3, 3)})
    assert parameter_count(to_torch(model)) == 144 == cost.cost(model).params
    assert_same(model, [f(1, 4, 5, 5)])


def test_int8_weights_behind_dequantize_are_parameters_of_the_layer_they_feed() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wf"], name="dq", axis=0),
        helper.make_node("Conv", ["x", "wf"], ["y"], name="conv"),
    ]
    constants = {"w": s8(6, 4, 3, 3), "s": np.abs(f(6)), "z": np.zeros(6, np.int8)}
    model = graph_model(nodes, ["n", 4, 5, 5], ["n", 6, 3, 3], constants)
    network = to_torch(model)
    assert [(step.name, step.feeds) for step in network.steps] == [("dq", "conv"), ("conv", "")]
    assert parameter_count(network) == 216 == cost.cost(model).params
    assert_same(model, [f(3, 4, 5, 5)])


def test_the_batch_stays_free() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["n"]),
        helper.make_node("Gather", ["n", "zero"], ["b"]),
        helper.make_node("Unsqueeze", ["b", "axis"], ["b1"]),
        helper.make_node("Concat", ["b1", "rest"], ["s"], axis=0),
        helper.make_node("Reshape", ["x", "s"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    model = graph_model(nodes, ["n", 4, 3], ["n", 5], {"zero": np.array(0), "axis": i(0), "rest": i(-1), "w": f(12, 5)})
    assert_same(model, [f(7, 4, 3)])


def test_an_operator_without_a_rule_is_named_with_its_node() -> None:
    nodes = [helper.make_node("Det", ["x"], ["y"], name="my.det")]
    model = graph_model(nodes, [2, 3, 3], [2], {})
    with pytest.raises(ModelError, match=r"'my\.det'.*Det"):
        to_torch(model)


def test_layers_hang_in_blocks_by_their_names() -> None:
    assert scope("/layer1/layer1.0/conv1/Conv") == scope("layer1.0.conv1.Conv") == ("layer1", "0", "conv1", "Conv")
    network = to_torch(load("fashion-shufflenetv2"))
    assert isinstance(network.get_submodule("stem.conv"), torch.nn.Conv2d)
    assert isinstance(network.get_submodule("head.fc"), torch.nn.Linear)


def test_making_and_running_a_module_leaves_the_model_alone() -> None:
    model = load("fashion-squeezenet")
    before = {k: v.copy() for k, v in Graph.view(model).constants.items()}
    network = to_torch(model)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert all(np.array_equal(v, before[k]) for k, v in Graph.view(model).constants.items())
