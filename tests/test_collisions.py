"""Names that a file already uses: whatever we add beside them takes others, and the answers stay the same."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lwcore.answers import outputs
from lwcore.model import Model
from lwcore.recipe import Format, Precision
from lwcore.runtime import session
from lwcore.slimming.precision import reduce_precision
from lwcore.sources.normalise import normalise
from tests.tiny import finish, tiny_samples


def _net(names: Mapping[str, str]) -> Model:
    """Two convolutions and a linear layer; `names` gives tensors other names."""
    rng = np.random.default_rng(0)
    arrays = {"w": (8, 1, 3, 3), "b": (8,), "v": (16, 8, 3, 3), "vb": (16,), "f": (3, 16), "fb": (3,)}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4, name="one"),
        helper.make_node("Relu", ["c"], ["r"], name="clamp"),
        helper.make_node("Conv", ["r", "v", "vb"], ["d"], pads=[1] * 4, name="two"),
        helper.make_node("Relu", ["d"], ["e"], name="relu"),
        helper.make_node("ReduceMean", ["e"], ["m"], axes=[2, 3], keepdims=0, name="mean"),
        helper.make_node("Gemm", ["m", "f", "fb"], ["y"], transB=1, name="fc"),
    ]
    for node in nodes:
        for places in (node.input, node.output):
            places[:] = [names.get(name, name) for name in places]
    return finish(nodes, {names.get(n, n): rng.standard_normal(shape) for n, shape in arrays.items()})


def _answers(model: Model, step: Precision) -> np.ndarray:
    data, _ = reduce_precision(model, step, tiny_samples())
    return np.concatenate(outputs(session(data.data), data, tiny_samples()), axis=1)


@pytest.mark.parametrize("form", ["int8-weights", "int4-weights"])
def test_a_stored_weight_is_widened_beside_a_tensor_of_that_name(form: Format) -> None:
    taken = {"c": "v.wide", "r": "v.int", "d": "v.scale", "e": "f.wide"}
    step = Precision(format=form)
    np.testing.assert_array_equal(_answers(_net(taken), step), _answers(_net({}), step))


def test_rounded_twins_of_layers_are_made_beside_tensors_of_their_names() -> None:
    taken = {"c": "twin0.y", "r": "twin0.d", "d": "twin2.w", "e": "twin.x.rounded", "m": "twin2.m"}
    step = Precision(format="int8-static", variant="u8s8-reduced")
    np.testing.assert_array_equal(_answers(_net(taken), step), _answers(_net({}), step))


def test_a_plain_target_of_an_expand_is_made_beside_a_tensor_of_that_name() -> None:
    sizes = [("x", [1, 3, 4]), ("y", [5, 3, 4])]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in sizes]
    nodes = [
        helper.make_node("Relu", ["x"], ["expand.target"], name="relu"),
        helper.make_node("Expand", ["expand.target", "whole"], ["y"], name="expand"),
    ]
    shape = numpy_helper.from_array(np.array([5, 3, 4]), "whole")
    body = helper.make_graph(nodes, "g", infos[:1], infos[1:], [shape])
    data, _ = normalise(helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    onnx.checker.check_model(onnx.load_model_from_string(data), full_check=True)
    x = np.random.default_rng(0).standard_normal((1, 3, 4)).astype(np.float32)
    found = session(data).run(None, {"x": x})[0]
    np.testing.assert_array_equal(found, np.broadcast_to(np.maximum(x, 0), (5, 3, 4)))
