"""Normalising: whatever the producer wrote, one form comes out, and it computes the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import lwcore
from lwcore import Channels, Recipe
from lwcore.errors import ModelError
from lwcore.graph import Graph
from lwcore.model import Card, Model
from lwcore.runtime import run, session
from lwcore.settings import SETTINGS
from lwcore.sources import fitting
from lwcore.sources.normalise import has_shapes, normalise


def _proto(
    nodes: list[onnx.NodeProto], arrays: Mapping[str, np.ndarray], shape: list[int | str], opset: int = 17
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_a_batch_that_moves_from_the_first_axis_stays_free() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node("Split", ["t"], ["a", "b"], axis=0),
        helper.make_node("Add", ["a", "b"], ["s"]),
        helper.make_node("MatMul", ["s", "w"], ["y"]),
    ]
    proto = _proto(nodes, _weights(w=(5, 3)), ["n", 4, 5])
    data, _ = normalise(proto)
    sample = {"x": np.random.default_rng(1).standard_normal((3, 4, 5)).astype(np.float32)}
    np.testing.assert_allclose(run(session(data), sample)[0], run(session(proto.SerializeToString()), sample)[0])
    assert Graph(onnx.load_model_from_string(data)).free["t"] == {1: "batch"}


def test_batch_norms_of_old_exporters_can_be_cut() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["p"]),
        helper.make_node("BatchNormalization", ["p", "s", "b", "m", "v"], ["q", "o1", "o2", "o3", "o4"]),
        helper.make_node("Conv", ["q", "c"], ["y"]),
    ]
    weights = _weights(a=(16, 3, 1, 1), s=(16,), b=(16,), m=(16,), c=(4, 16, 1, 1)) | {"v": np.ones(16, np.float32)}
    model = Model(data=normalise(_proto(nodes, weights, [1, 3, 6, 6], opset=8))[0])
    recipe = Recipe(steps=(Channels(amount=0.5, criterion="l2", compensate="none"),))
    slim = lwcore.apply(model, recipe).model
    assert Graph.view(slim).shape("q") == (1, 8, 6, 6)
    result = run(session(slim.data, optimise=False), {"x": np.ones((1, 3, 6, 6), np.float32)})[0]
    assert result.shape == (1, 4, 6, 6)


def test_shape_arithmetic_that_follows_the_batch_becomes_a_constant() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    arrays = {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([12])}
    data, notes = normalise(_proto(nodes, arrays, ["n", 3, 4]))
    proto = onnx.load_model_from_string(data)
    assert [n.op_type for n in proto.graph.node] == ["Reshape"]
    assert any("batch size" in note for note in notes)
    assert run(session(data), {"x": np.zeros((5, 3, 4), np.float32)})[0].shape == (5, 12)


def test_weights_in_constant_nodes_become_initializers_and_shapes_are_written() -> None:
    weight = numpy_helper.from_array(_weights(w=(4, 3, 1, 1))["w"])
    nodes = [helper.make_node("Constant", [], ["w"], value=weight), helper.make_node("Conv", ["x", "w"], ["y"])]
    proto = onnx.load_model_from_string(normalise(_proto(nodes, {}, [1, 3, 5, 5]))[0])
    assert [n.op_type for n in proto.graph.node] == ["Conv"]
    assert [t.name for t in proto.graph.initializer] == ["w"]
    assert has_shapes(proto)


def test_normalising_twice_changes_nothing() -> None:
    model = lwcore.load("fashion-shufflenetv2")
    assert normalise(model.proto)[0] == model.data


def test_a_budget_on_a_model_without_groups_is_refused_in_a_sentence() -> None:
    model = Model(
        data=normalise(_proto([helper.make_node("Conv", ["x", "a"], ["y"])], _weights(a=(4, 3, 1, 1)), [1, 3, 5, 5]))[0]
    )
    spec = lwcore.InputSpec(size=(5, 5))
    samples = lwcore.SampleSet(name="s", arrays={"pixels": np.zeros((4, 5, 5, spec.channels), np.uint8)})
    with pytest.raises(lwcore.LwcoreError, match="found none"):
        lwcore.apply(model, Recipe(steps=(Channels(budget=lwcore.Budget(keep=0.5)),)), samples)


def test_a_card_with_too_few_classes_is_refused() -> None:
    model = lwcore.load("fashion-squeezenet")
    with pytest.raises(ModelError, match="expected 10 names"):
        fitting(Model(data=model.data, card=Card(classes=("a",))))


@pytest.mark.parametrize("grows", [False, True])
def test_constants_that_only_turn_weights_around_are_no_growth(monkeypatch: pytest.MonkeyPatch, grows: bool) -> None:
    """Older exporters keep every weight behind a Transpose; what a file makes beyond what it holds is limited."""
    monkeypatch.setattr("lwcore.sources.normalise.SETTINGS", dataclasses.replace(SETTINGS, tensor_mb=1))
    arrays = _weights(w=(700, 700)) | {"times": np.array([1, 8])}  # 2 MB
    how = helper.make_node("Tile", ["w", "times"], ["v"]) if grows else helper.make_node("Transpose", ["w"], ["v"])
    proto = _proto([how, helper.make_node("MatMul", ["x", "v"], ["y"])], arrays, [1, 700])
    if grows:
        with pytest.raises(ModelError, match="beside what the file holds"):
            normalise(proto)
    else:
        assert [n.op_type for n in onnx.load_model_from_string(normalise(proto)[0]).graph.node] == ["MatMul"]
