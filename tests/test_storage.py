"""Weight-only formats: fewer bytes (or fewer values), the same operators' sums, nothing else changed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import lwcore
from lwcore.answers import feed, logits
from lwcore.errors import SlimError
from lwcore.evaluation.sizes import gzip_bytes, nonzeros
from lwcore.graph import Graph
from lwcore.recipe import Connections, Precision, Recipe
from lwcore.runtime import session
from lwcore.slimming import plan
from lwcore.slimming.precision import reduce_precision
from lwcore.slimming.precision.palette import clustered
from lwcore.slimming.precision.storage import MICROSOFT
from tests.tiny import finish, tiny_model, tiny_samples

STEPS = [Precision(format=name) for name in ("int8-weights", "int4-weights", "int4-matmul", "palette")]


def linear(width=100, product="Gemm"):
    """Two linear layers, the first one wide: 64 inputs, which no block of 32 leaves a rest of, then `width`."""
    rng = np.random.default_rng(0)
    weights = {"f": rng.standard_normal((64, width)), "g": rng.standard_normal((width, 3))}
    bias = {"fb": rng.standard_normal(width), "gb": rng.standard_normal(3)} if product == "Gemm" else {}
    names = list(bias) or [None, None]
    nodes = [
        helper.make_node("Flatten", ["x"], ["q"]),
        helper.make_node(product, ["q", "f", *filter(None, names[:1])], ["h"], name="one"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node(product, ["r", "g", *filter(None, names[1:])], ["y"], name="two"),
    ]
    return finish(nodes, weights | bias)


def change(model, found):
    """Largest change of the outputs relative to their range."""
    before, after = (logits(session(m.data, 1), m, tiny_samples()) for m in (model, found))
    return np.abs(before - after).max() / np.ptp(before)


@pytest.mark.parametrize("step", STEPS, ids=lambda s: s.format)
@pytest.mark.parametrize("product", ["Gemm", "MatMul"])
def test_the_file_runs_and_answers_nearly_alike(step, product):
    model = linear(product=product)
    found, notes = reduce_precision(model, step)
    onnx.checker.check_model(found.proto, full_check=True)
    assert change(model, found) < (0.02 if step.format == "int8-weights" else 0.25)
    assert notes
    assert lwcore.cost(found).params == lwcore.cost(model).params
    assert lwcore.cost(found).macs == lwcore.cost(model).macs


@pytest.mark.parametrize("step", STEPS, ids=lambda s: s.format)
def test_a_recipe_with_it_is_planned_and_applied(step):
    model, recipe = linear(400), Recipe(steps=(step,))
    slim = lwcore.apply(model, recipe, tiny_samples())
    planned = plan(model, recipe).after
    assert planned.params == slim.after.params
    assert planned.weight_bytes == pytest.approx(slim.after.weight_bytes, rel=0.2)


def test_each_weight_takes_a_byte_or_half_of_one():
    model = lwcore.load("fashion-resnet20")
    before = lwcore.cost(model).weight_bytes
    for name, share in (("int8-weights", 0.27), ("int4-weights", 0.15)):
        found, _ = reduce_precision(model, Precision(format=name))
        assert lwcore.cost(found).weight_bytes < share * before
        assert found.size_bytes < (share + 0.05) * model.size_bytes


def test_four_bits_are_four_bits_in_the_file():
    found, _ = reduce_precision(linear(), Precision(format="int4-weights"))
    kinds = [tensor.data_type for tensor in found.proto.graph.initializer]
    assert kinds.count(TensorProto.INT4) == 2
    opset = next(item.version for item in found.proto.opset_import if item.domain == "")
    assert opset >= 21


def test_onnxruntimes_own_operator_is_used_and_said():
    found, notes = reduce_precision(linear(), Precision(format="int4-matmul"))
    nodes = [node for node in found.proto.graph.node if node.domain == MICROSOFT]
    assert [node.op_type for node in nodes] == ["MatMulNBits", "MatMulNBits"]
    assert any("nowhere else" in note for note in notes)


def test_nonzeros_of_packed_weights_are_counted_one_by_one():
    model = linear()
    for name in ("int4-weights", "int4-matmul"):
        found, _ = reduce_precision(model, Precision(format=name))
        weights = lwcore.cost(model).params
        assert 0.7 * weights < nonzeros(found) <= weights


def test_a_model_without_linear_layers_is_refused_in_plain_words():
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    model = finish(nodes, {"w": rng.standard_normal((3, 1, 8, 8))})
    with pytest.raises(SlimError, match="expected linear layers"):
        reduce_precision(model, Precision(format="int4-matmul"))


@pytest.mark.parametrize("step", STEPS[:3], ids=lambda s: s.format)
def test_stored_in_few_bits_twice_is_refused(step):
    found, _ = reduce_precision(linear(), step)
    with pytest.raises(SlimError, match="already"):
        reduce_precision(found, step)


@pytest.mark.parametrize("step", STEPS, ids=lambda s: s.format)
def test_the_same_step_gives_the_same_bytes(step):
    assert reduce_precision(linear(), step)[0].data == reduce_precision(linear(), step)[0].data


def test_a_shared_weight_is_stored_once():
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Flatten", ["x"], ["q"]),
        helper.make_node("MatMul", ["q", "f"], ["h"]),
        helper.make_node("MatMul", ["h", "f"], ["k"]),
        helper.make_node("MatMul", ["k", "g"], ["y"]),
    ]
    model = finish(nodes, {"f": rng.standard_normal((64, 64)) / 8, "g": rng.standard_normal((64, 3))})
    found, _ = reduce_precision(model, Precision(format="int8-weights"))
    assert sum(node.op_type == "DequantizeLinear" for node in found.proto.graph.node) == 2
    assert change(model, found) < 0.05


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palette_has_at_most_so_many_values_and_gets_better_with_more(bits):
    weight = np.random.default_rng(0).standard_normal((32, 40)).astype(np.float32)
    found = clustered(weight, 2**bits)
    assert len(np.unique(found)) <= 2**bits
    if bits > 1:
        assert ((found - weight) ** 2).sum() < ((clustered(weight, 2 ** (bits - 1)) - weight) ** 2).sum()


def test_each_weight_gets_the_nearest_value_of_its_palette():
    weight = np.random.default_rng(0).standard_normal(500).astype(np.float32)
    found = clustered(weight, 8)
    distance = np.abs(weight[:, None] - np.unique(found)[None])
    assert np.allclose(np.abs(weight - found), distance.min(axis=1), atol=1e-6)


def test_zeros_of_a_pruning_step_stay_zero():
    model = lwcore.load("fashion-squeezenet")
    sparse = lwcore.apply(model, Recipe(steps=(Connections(amount=0.6),))).model
    found, _ = reduce_precision(sparse, Precision(format="palette", bits=3))
    assert nonzeros(found) == nonzeros(sparse)
    assert all(len(np.unique(array)) <= 8 for array in Graph.view(found).constants.values() if array.ndim > 1)


def test_a_palette_gains_nothing_but_gzip_and_says_so():
    model = lwcore.load("fashion-squeezenet")
    found, notes = reduce_precision(model, Precision(format="palette", bits=4))
    assert abs(found.size_bytes - model.size_bytes) < 100
    assert gzip_bytes(found.data) < 0.45 * gzip_bytes(model.data)
    assert any("gzipped" in note for note in notes)


def test_a_palette_larger_than_every_layer_is_refused():
    with pytest.raises(SlimError, match="expected layers with more than 256"):
        reduce_precision(tiny_model(), Precision(format="palette", bits=8))


@pytest.mark.parametrize("step", STEPS, ids=lambda s: s.format)
def test_the_layer_table_can_be_made_and_adds_up(step):
    import torch

    from lwcore.bridge import to_torch

    found, _ = reduce_precision(linear(), step)
    table = lwcore.profile(found)
    assert table.params == lwcore.cost(found).params
    assert table.weight_bytes == lwcore.cost(found).weight_bytes
    samples = tiny_samples(8)
    with torch.no_grad():
        answers = to_torch(found)(*map(torch.from_numpy, feed(found, samples).values())).numpy()
    wanted = logits(session(found.data, 1), found, samples)  # onnxruntime rounds the inputs of some of these layers
    assert np.abs(answers - wanted).max() < 0.01 * np.ptp(wanted)
