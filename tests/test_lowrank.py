"""Low rank: the laws of splitting a layer in two."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import lwcore
from lwcore import Budget, Channels, LowRank, Precision, Recipe
from lwcore.analysis.coupling import couple
from lwcore.errors import SlimError
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.progress import silent
from lwcore.runtime import session
from lwcore.samples import SampleSet
from lwcore.slimming.lowrank.factors import factorise, forms, kept, ranks, shares, split
from lwcore.slimming.lowrank.spectra import Rounds, Spectra, measure_spectra, statistics
from lwcore.slimming.refit.linear import linear_layers
from lwcore.slimming.weights import Weights
from tests.tiny import finish, tiny_model


@pytest.fixture(scope="module")
def small() -> Model:
    return lwcore.load("fashion-squeezenet")


@pytest.fixture(scope="module")
def calibration(small: Model) -> SampleSet:
    return lwcore.load_samples("fashion-calibration", small).take(96)


@pytest.fixture(scope="module")
def spectra(small: Model, calibration: SampleSet) -> Spectra:
    return measure_spectra(small, calibration)


def _apply(model: Model, samples: SampleSet | None = None, **options: object) -> lwcore.Slimmed:
    return lwcore.apply(model, Recipe(steps=(LowRank(**options),)), samples)  # type: ignore[arg-type]


# -- one layer ---------------------------------------------------------------------------------------------------------

CASES = {
    "conv": ("Conv", (2, 5, 9, 8), (6, 5, 3, 3), {"pads": [1, 1, 1, 1]}),
    "conv strided": ("Conv", (2, 5, 9, 8), (6, 5, 3, 5), {"pads": [1, 0, 2, 3], "strides": [2, 1]}),
    "conv dilated": ("Conv", (2, 5, 9, 9), (6, 5, 3, 3), {"dilations": [2, 1]}),
    "conv padded by itself": ("Conv", (2, 5, 9, 8), (6, 5, 3, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    "conv 1x1": ("Conv", (2, 5, 9, 8), (6, 5, 1, 1), {"strides": [2, 2]}),
    "conv 1-D": ("Conv", (2, 5, 9), (6, 5, 3), {"pads": [1, 1]}),
    "conv 3-D": ("Conv", (2, 3, 5, 6, 7), (4, 3, 3, 3, 3), {"pads": [1] * 6, "strides": [1, 2, 2]}),
    "gemm": ("Gemm", (4, 6), (6, 5), {"alpha": 0.5}),
    "gemm transposed": ("Gemm", (4, 6), (5, 6), {"transB": 1}),
    "matmul": ("MatMul", (2, 3, 6), (6, 5), {}),
    "matmul of rows": ("MatMul", (5, 6), (2, 6, 3), {}),
}


def _one(case: str) -> tuple[Graph, np.ndarray]:
    kind, first, second, options = CASES[case]
    rng = np.random.default_rng(0)
    left = case == "matmul of rows"
    data, weight = (second, first) if left else (first, second)
    inputs = ["w", "x"] if left else ["x", "w"]
    node = helper.make_node(kind, inputs, ["y"], name="layer", **options)
    body = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, data)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(rng.standard_normal(weight).astype(np.float32), "w")],
    )
    proto = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Graph(onnx.shape_inference.infer_shapes(proto)), rng.standard_normal(data).astype(np.float32)


def _answer(graph: Graph, x: np.ndarray) -> np.ndarray:
    proto = graph.proto()
    onnx.checker.check_model(proto, full_check=True)
    return np.asarray(session(proto.SerializeToString()).run(None, {"x": x})[0])


@pytest.mark.parametrize("case", CASES)
def test_at_full_rank_both_factors_together_are_the_layer(case: str) -> None:
    graph, x = _one(case)
    (layer,) = linear_layers(graph)
    weight = layer.matrix(Weights(graph).read("w"))[0]
    for form in forms(layer):
        slim = graph.copy()
        factors = factorise(layer, form, weight, None)
        slim.nodes = split(slim, layer, form, factors.first, factors.second)
        slim.drop_unused()
        np.testing.assert_allclose(_answer(slim, x), _answer(graph, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_vectors_times_the_matrix_are_the_result(case: str) -> None:
    graph, x = _one(case)
    (layer,) = linear_layers(graph)
    matrix = layer.matrix(Weights(graph).read("w"))
    result = _answer(graph, x)
    for step in (3, max(3, layer.positions - 1)):  # many positions of a picture, and few of them: two ways to pick
        start = min(1, layer.positions - 1)
        taken, given = layer.vectors(x, step, start), layer.targets(result, step, start)
        np.testing.assert_allclose(matrix @ taken, given, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(layer.stored(matrix), Weights(graph).read("w"))


@pytest.mark.parametrize("case", CASES)
def test_shares_price_what_a_split_costs(case: str) -> None:
    graph, _ = _one(case)
    (layer,) = linear_layers(graph)
    weight = layer.matrix(Weights(graph).read("w"))[0]
    for form in forms(layer):
        slim, factors = graph.copy(), factorise(layer, form, weight, None)
        slim.nodes = split(slim, layer, form, factors.first[:2], factors.second[:, :2])
        slim.drop_unused()
        found = lwcore.cost(Model(data=slim.serialize()))
        each = shares(graph, layer, form)
        assert (found.macs, found.params) == (2 * each.macs, 2 * each.params)


def test_what_a_rank_keeps_is_what_a_regression_keeps() -> None:
    graph, _ = _one("conv")
    (layer,) = linear_layers(graph)
    rng = np.random.default_rng(1)
    weight = layer.matrix(Weights(graph).read("w"))[0]
    patches = rng.standard_normal((layer.width, layer.width)) @ rng.standard_normal((layer.width, 4000))
    covariance = np.cov(patches, bias=True)
    y = weight @ (patches - patches.mean(axis=1, keepdims=True))
    for form in forms(layer):
        factors = factorise(layer, form, weight, covariance)
        found = kept(layer, form, factors, weight, covariance, [1, 3, 5])
        assert found == sorted(found)
        if len(form) == 2:  # k×k, then 1×1
            z = factors.first[:3] @ (patches - patches.mean(axis=1, keepdims=True))
            left = y - y @ z.T @ np.linalg.inv(z @ z.T) @ z
            assert found[1] == pytest.approx(1 - (left**2).sum() / (y**2).sum(), rel=1e-3)


def test_wide_layers_get_ranks_in_whole_blocks() -> None:
    assert ranks(40) == [8, 16, 24, 32, 40]
    assert ranks(5) == [1, 2, 3, 4, 5]
    assert all(rank % 8 == 0 for rank in ranks(2000))
    assert len(ranks(2000)) <= 24


def test_depthwise_convolutions_are_left_alone() -> None:
    graph = Graph.view(lwcore.load("fashion-mobilenetv2"))
    assert all(forms(layer) == [] for layer in linear_layers(graph) if layer.groups > 1)


# -- a model -----------------------------------------------------------------------------------------------------------


def test_a_plan_with_spectra_is_exact(small: Model, calibration: SampleSet, spectra: Spectra) -> None:
    for step in (LowRank(energy=0.95), LowRank(budget=Budget(keep=0.6)), LowRank(budget=Budget(of="bytes", keep=0.6))):
        recipe = Recipe(steps=(step,))
        plan, slim = lwcore.plan(small, recipe, spectra=spectra), lwcore.apply(small, recipe, calibration)
        assert (plan.after.params, plan.after.macs) == (slim.after.params, slim.after.macs)
        assert not plan.estimated
        assert slim.after.macs < slim.before.macs


def test_a_plan_without_spectra_says_so(small: Model) -> None:
    plan = lwcore.plan(small, Recipe(steps=(LowRank(budget=Budget(keep=0.5)),)))
    assert plan.needs == ("spectra",)
    assert plan.estimated
    assert plan.after.macs == round(0.5 * plan.before.macs)


@pytest.mark.parametrize("of", ["macs", "params", "bytes"])
@pytest.mark.parametrize("keep", [0.9, 0.6, 0.5])
def test_a_budget_is_never_exceeded(small: Model, spectra: Spectra, of: str, keep: float) -> None:
    recipe = Recipe(steps=(LowRank(budget=Budget(of=of, keep=keep)),))  # type: ignore[arg-type]
    plan = lwcore.plan(small, recipe, spectra=spectra)
    name = "weight_bytes" if of == "bytes" else of
    assert getattr(plan.after, name) <= keep * getattr(plan.before, name)


def test_a_budget_that_cannot_be_met_says_how_near_it_comes(small: Model, spectra: Spectra) -> None:
    with pytest.raises(SlimError, match="with every layer at its lowest rank"):
        lwcore.plan(small, Recipe(steps=(LowRank(budget=Budget(keep=0.001)),)), spectra=spectra)


def test_macs_never_rise_as_less_energy_is_asked_for(small: Model, spectra: Spectra) -> None:
    found = [
        lwcore.plan(small, Recipe(steps=(LowRank(energy=energy),)), spectra=spectra).after.macs
        for energy in (1.0, 0.999, 0.99, 0.95, 0.9, 0.7, 0.4)
    ]
    assert found == sorted(found, reverse=True)


def test_spectra_survive_json(spectra: Spectra) -> None:
    assert Spectra.from_json(spectra.to_json()) == spectra


def test_the_same_step_gives_the_same_bytes_and_fits_the_original(small: Model, calibration: SampleSet) -> None:
    one, two = (_apply(small, calibration, energy=0.9) for _ in range(2))
    assert one.model.data == two.model.data
    report = lwcore.evaluate(
        one.model, lwcore.load_samples("fashion-test", small).take(300), against=small, latency=False
    )
    assert one.after.macs < 0.7 * one.before.macs
    assert report.agreement is not None
    assert report.agreement > 0.8


def test_a_split_model_can_be_pruned_and_quantized(small: Model, calibration: SampleSet) -> None:
    split_model = _apply(small, calibration, budget=Budget(keep=0.7)).model
    new = {n.name for n in Graph.view(split_model).nodes} - {n.name for n in Graph.view(small).nodes}
    names = {g.name for g in couple(split_model).groups}
    assert new
    assert new <= names
    recipe = Recipe(
        steps=(LowRank(budget=Budget(keep=0.7)), Channels(amount=0.2), Precision(format="int8-static", samples=32))
    )
    slim = lwcore.apply(small, recipe, calibration)
    assert slim.after.macs < 0.7 * slim.before.macs
    assert slim.after.size_bytes < 0.5 * slim.before.size_bytes


def test_a_pruned_model_can_be_split(small: Model, calibration: SampleSet) -> None:
    recipe = Recipe(steps=(Channels(amount=0.2), LowRank(budget=Budget(keep=0.8))))
    plan, slim = lwcore.plan(small, recipe), lwcore.apply(small, recipe, calibration)
    assert plan.estimated
    assert plan.needs == ()
    assert slim.after.macs <= plan.after.macs


def test_without_samples_the_weights_alone_decide_and_a_note_says_so() -> None:
    slim = _apply(tiny_model(), energy=0.5)
    assert any("weights alone" in note for note in slim.notes)
    assert slim.after.macs < slim.before.macs


def test_weights_stored_as_integers_are_refused(small: Model) -> None:
    stored = lwcore.apply(small, Recipe(steps=(Precision(format="int8-dynamic"),))).model
    with pytest.raises(SlimError, match="before precision"):
        _apply(stored, energy=0.9)


def test_energy_one_changes_nothing_that_matters(small: Model, calibration: SampleSet) -> None:
    plain = replace(LowRank(), energy=1.0)
    slim = lwcore.apply(small, Recipe(steps=(plain,)), calibration)
    assert slim.after.macs <= slim.before.macs


@pytest.mark.slow
def test_half_the_macs_cost_less_than_a_point(small: Model) -> None:
    slim = _apply(small, lwcore.load_samples("fashion-calibration", small), budget=Budget(keep=0.5))
    report = lwcore.evaluate(slim.model, lwcore.load_samples("fashion-test", small), against=small, latency=False)
    assert report.difference is not None
    assert report.difference > -0.01


def test_a_few_pictures_do_not_seem_to_need_only_a_few_directions() -> None:
    rng, graph = np.random.default_rng(0), Graph.view(_wide())
    (layer,) = (layer for layer in linear_layers(graph) if layer.node.name == "one")
    for batches, least in ((4, 0.1), (400, 0.5)):
        inputs = [{"x": rng.standard_normal((4, 1, 8, 8)).astype(np.float32)} for _ in range(batches)]
        plain = np.cov(np.concatenate([batch["x"].reshape(4, 64) for batch in inputs]), rowvar=False, bias=True)
        found = statistics(graph, Rounds(4 * batches, [inputs.copy]), silent)[layer.result].read
        assert found is not None
        assert np.trace(found) == pytest.approx(np.trace(plain), rel=1e-3)
        assert np.linalg.eigvalsh(found).min() > max(least, np.linalg.eigvalsh(plain).min())


def _wide() -> Model:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Flatten", ["x"], ["q"], name="flat"),
        helper.make_node("MatMul", ["q", "f"], ["h"], name="one"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "g"], ["y"], name="two"),
    ]
    return finish(nodes, {"f": rng.standard_normal((64, 64)), "g": rng.standard_normal((64, 3))})
