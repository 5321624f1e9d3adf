"""Connections: the exact count of zeros, in every precision, the same bytes each time, and only where weights are."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from lwcore.answers import example
from lwcore.errors import SlimError
from lwcore.evaluation.sizes import gzip_bytes, nonzeros
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.recipe import Connections, Precision
from lwcore.runtime import run, session
from lwcore.slimming.connections import prunable, sparsify
from lwcore.slimming.precision import reduce_precision
from tests.tiny import finish, tiny_model, tiny_samples

FORMATS = (None, "fp16", "int8-dynamic", "int8-static")


def model_in(name):
    model = tiny_model()
    if name is None:
        return model
    return reduce_precision(model, Precision(format=name, variant="u8s8-reduced"), tiny_samples())[0]


def zeros(model):
    return [weight.array.size - weight.nonzeros() for weight in prunable(Graph.view(model))]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_share_asked_for_is_zero(name, scope):
    model = model_in(name)
    sizes = [weight.array.size for weight in prunable(Graph.view(model))]
    found, _ = sparsify(model, Connections(amount=0.5, scope=scope))
    if scope == "global":
        assert sum(zeros(found)) == round(0.5 * sum(sizes))
    else:
        assert zeros(found) == [round(0.5 * size) for size in sizes]
    onnx.checker.check_model(found.proto, full_check=True)
    assert np.isfinite(run(session(found.data, 1), example(Graph.view(found)))[0]).all()


def test_weights_that_stay_are_untouched_and_larger_than_those_that_went():
    model = tiny_model()
    found, _ = sparsify(model, Connections(amount=0.4))
    before = np.concatenate([w.array.ravel() for w in prunable(Graph.view(model))])
    after = np.concatenate([w.array.ravel() for w in prunable(Graph.view(found))])
    kept = after != 0
    assert np.array_equal(before[kept], after[kept])
    assert np.abs(before[kept]).min() >= np.abs(before[~kept]).max()


def test_biases_and_norms_stay():
    model = tiny_model(norm=True)
    found, _ = sparsify(model, Connections(amount=0.9))
    before, after = Graph.view(model).constants, Graph.view(found).constants
    weights = {weight.name for weight in prunable(Graph.view(model))}
    assert all(np.array_equal(before[name], after[name]) for name in before if name not in weights)


def test_nothing_to_do_is_the_identity():
    model = tiny_model()
    assert sparsify(model, Connections(amount=0.0)) == (model, ())


def test_equal_weights_go_in_the_order_of_the_file():
    node = [onnx.helper.make_node("Flatten", ["x"], ["q"]), onnx.helper.make_node("Gemm", ["q", "f"], ["y"])]
    model = finish(node, {"f": np.ones((64, 3))})
    found, _ = sparsify(model, Connections(amount=0.5))
    flat = Graph.view(found).constants["f"].ravel()
    assert not flat[:96].any()
    assert flat[96:].all()
    assert sparsify(model, Connections(amount=0.5))[0].data == found.data


def test_only_the_gzipped_file_shrinks_and_the_note_says_so():
    model = tiny_model()
    found, notes = sparsify(model, Connections(amount=0.9))
    assert len(found.data) == len(model.data)
    assert gzip_bytes(found.data) < gzip_bytes(model.data)
    assert nonzeros(found) < nonzeros(model)
    assert "neither the file smaller nor the run faster" in notes[0]


def test_a_model_without_weights_is_refused():
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "bare",
        [onnx.helper.make_tensor_value_info("x", 1, [1, 3])],
        [onnx.helper.make_tensor_value_info("y", 1, [1, 3])],
    )
    model = Model(data=onnx.helper.make_model(graph, ir_version=8).SerializeToString())
    with pytest.raises(SlimError, match="found none"):
        sparsify(model, Connections(amount=0.5))
