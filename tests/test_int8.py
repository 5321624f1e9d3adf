"""Static int8: what is rounded and how, which operators stay in float32, and what it costs in bytes and answers."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import helper

import lwcore
from lwcore.answers import logits
from lwcore.errors import SlimError
from lwcore.graph import Graph
from lwcore.recipe import Precision
from lwcore.runtime import session
from lwcore.slimming.precision import mixed, node_errors, processor, reduce_precision
from lwcore.slimming.precision.equalise import equalised
from lwcore.slimming.precision.nodes import weight_of
from lwcore.slimming.precision.prepare import STATIC_OPSET, pooled, prepared
from lwcore.slimming.precision.qdq import scale_and_zero
from lwcore.slimming.precision.ranges import range_sets
from lwcore.slimming.precision.rounding import PAIR, round_weights
from lwcore.slimming.precision.static import Judge, calibrate, split
from lwcore.slimming.precision.variants import VARIANTS
from tests.tiny import finish, tiny_model, tiny_samples

STEP = Precision(format="int8-static", variant="u8s8-reduced")


@pytest.fixture(autouse=True)
def _remembered_speeds(monkeypatch):
    """No test depends on this machine's timing."""
    monkeypatch.setattr(processor, "_remembered", lambda path: dict.fromkeys(VARIANTS, 1.0))
    processor.ranking.cache_clear()
    yield
    processor.ranking.cache_clear()


def fashion(count=96):
    """A trained model with depthwise convolutions and some of its calibration pictures."""
    model = lwcore.load("fashion-mobilenetv2")
    return model, lwcore.load_samples(model.card.calibration, model, limit=count)


def two_layers(relu="Relu", bias=None, scale=1.0):
    """Two convolutions with a clamp between; the first one's channels differ a hundredfold in size."""
    rng = np.random.default_rng(0)
    sizes = np.logspace(-1, 1, 8).reshape(8, 1, 1, 1) * scale
    tensors = {
        "w": rng.standard_normal((8, 1, 3, 3)) * sizes,
        "b": rng.standard_normal(8) if bias is None else bias,
        "v": rng.standard_normal((16, 8, 3, 3)) / sizes.reshape(1, 8, 1, 1),
        "f": rng.standard_normal((3, 16)),
        "fb": rng.standard_normal(3),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4, name="one"),
        helper.make_node(relu, ["c"], ["r"], name="clamp"),
        helper.make_node("Conv", ["r", "v"], ["d"], pads=[1] * 4, name="two"),
        helper.make_node("Relu", ["d"], ["e"], name="relu"),
        helper.make_node("ReduceMean", ["e"], ["m"], axes=[2, 3], keepdims=0, name="mean"),
        helper.make_node("Gemm", ["m", "f", "fb"], ["y"], transB=1, name="fc"),
    ]
    return finish(nodes, tensors)


def ran(data):
    """Operators that onnxruntime runs after merging."""
    import tempfile
    from pathlib import Path

    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "m.onnx")
        ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        return [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]


def test_every_operator_that_is_int8_is_really_run_in_int8():
    model, samples = fashion(16)
    found, _ = reduce_precision(model, STEP, samples)
    kinds = ran(found.data)
    assert kinds.count("QLinearConv") == sum(node.op_type == "Conv" for node in model.proto.graph.node)
    assert "QGemm" in kinds
    assert not {"Conv", "Gemm", "Add", "Clip", "DequantizeLinear"} & set(kinds)


def test_weights_and_their_scales_take_a_quarter_and_a_hundredth():
    for name in ("fashion-mobilenetv2", "fashion-efficientnet"):
        graph = Graph.view(lwcore.load(name))
        rounded = round_weights(graph, range(len(graph.nodes)), VARIANTS["u8s8"])
        stored = sum(weight.integers.nbytes + weight.scale.nbytes for weight in rounded.values())
        assert 0 < stored <= 0.26 * sum(4 * weight.integers.size for weight in rounded.values())


def test_rounded_weights_are_within_half_a_step():
    graph = Graph.view(two_layers())
    for variant in VARIANTS.values():
        for name, rounded in round_weights(graph, range(len(graph.nodes)), variant, scales=1.0).items():
            error = np.abs(rounded.values() - graph.constants[name])
            assert (error <= 0.501 * rounded.scale.max()).all()


def test_reduced_weights_cannot_saturate_the_sum_of_two_products():
    rounded = round_weights(Graph.view(two_layers()), range(6), VARIANTS["u8s8-reduced"])["v"].integers.astype(int)
    for rows in (rounded.reshape(16, -1), rounded.transpose(0, 2, 3, 1).reshape(16, -1)):
        assert np.abs(rows[:, 1:] + rows[:, :-1]).max() <= PAIR + 1  # each is rounded by at most a half


def test_the_file_answers_on_this_processor_as_its_operators_say():
    model, samples = fashion(32)
    data = calibrate(model, STEP, samples).data()
    said, done = (logits(session(data, 1, optimise=optimise), model, samples) for optimise in (False, True))
    assert np.abs(said - done).max() < 0.05 * np.ptp(said)


@pytest.mark.parametrize("values", [(0.0, 5.0), (-1.0, 3.0), (-4.0, -1.0), (0.0, 0.0), (2.0, 7.0)])
def test_zero_is_exactly_among_the_values_of_an_activation(values):
    for kind in (np.dtype(np.uint8), np.dtype(np.int8)):
        scale, zero = scale_and_zero(values, kind)
        limits = np.iinfo(kind)
        assert limits.min <= zero <= limits.max
        assert scale > 0
        assert (limits.max - zero) * scale >= values[1] - scale
        assert (limits.min - zero) * scale <= min(values[0], 0) + scale


def test_equalising_changes_the_weights_and_not_the_function():
    model, samples = two_layers(), tiny_samples()
    ready = pooled(prepared(model, STATIC_OPSET))
    even = equalised(ready)
    before, after = (logits(session(m.data, 1), m, samples) for m in (model, even))
    assert np.allclose(before, after, rtol=1e-3, atol=1e-3 * np.abs(before).max())
    spread = [np.ptp(np.log(np.abs(Graph.view(m).constants["w"]).max(axis=(1, 2, 3)))) for m in (ready, even)]
    assert spread[1] < 0.5 * spread[0]


def test_a_clip_at_six_lets_nothing_be_equalised():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Clip", ["c", "zero", "six"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["q"]),
        helper.make_node("Gemm", ["q", "f"], ["y"], transB=1),
    ]
    rng = np.random.default_rng(0)
    tensors = {"w": rng.standard_normal((8, 1, 3, 3)), "zero": 0.0, "six": 6.0, "f": rng.standard_normal((3, 8))}
    assert equalised(finish(nodes, tensors)) is None


def test_auto_changes_the_outputs_no_more_than_any_way_it_tries():
    model, samples = two_layers(), tiny_samples()
    chosen = calibrate(model, dataclasses.replace(STEP, ranges="auto"), samples)
    judge = Judge(model=model, samples=samples)
    for ranges in ("minmax", "mse"):
        other = calibrate(model, dataclasses.replace(STEP, ranges=ranges), samples)
        assert judge.error(chosen.data()) <= judge.error(other.data()) + 1e-6


def test_a_corrected_bias_keeps_the_mean_of_each_output():
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Flatten", ["x"], ["q"]),
        helper.make_node("Gemm", ["q", "f", "b"], ["y"], transB=1, name="fc"),
    ]
    model = finish(nodes, {"f": rng.standard_normal((3, 64)), "b": rng.standard_normal(3)})
    way = calibrate(model, STEP, tiny_samples(60))
    judge = Judge(model=model, samples=tiny_samples(60))
    plain = dataclasses.replace(way, samples=None)
    shifts = [np.abs((judge.outputs(w.data()) - judge.wanted).mean(axis=0)).max() for w in (plain, way)]
    assert shifts[1] < 0.05 * shifts[0]


def test_ranges_by_mse_are_inside_the_widest_ones():
    model, samples = tiny_model(), tiny_samples()
    sets = range_sets(model, samples, ("minmax", "mse"))
    for name, (low, high) in sets["mse"].items():
        widest = sets["minmax"][name]
        assert min(widest[0], 0) - 1e-6 <= low <= high <= max(widest[1], 0) + 1e-6


def test_a_kept_operator_computes_in_float32_and_the_file_gains_its_bytes():
    model, samples = fashion(16)
    whole, _ = reduce_precision(model, STEP, samples)
    name = next(node.name for node in model.proto.graph.node if node.op_type == "Conv")
    kept, _ = reduce_precision(model, dataclasses.replace(STEP, keep=(name,)), samples)
    graph = Graph.view(kept)
    node = next(node for node in graph.nodes if node.name == name)
    assert graph.constants[weight_of(graph, node)].dtype == np.float32
    assert ran(kept.data).count("QLinearConv") == ran(whole.data).count("QLinearConv") - 1
    assert lwcore.cost(kept).weight_bytes > lwcore.cost(whole).weight_bytes


def test_with_every_operator_kept_the_answers_are_those_of_float32():
    model, samples = two_layers(), tiny_samples()
    names = tuple(node.name for node in model.proto.graph.node)
    found, _ = reduce_precision(model, dataclasses.replace(STEP, keep=names), samples)
    assert np.allclose(logits(session(found.data, 1), found, samples), logits(session(model.data, 1), model, samples))


def test_an_unknown_operator_to_keep_is_named():
    with pytest.raises(SlimError, match="expected names of operators of this model, found 'nowhere'"):
        reduce_precision(tiny_model(), dataclasses.replace(STEP, keep=("nowhere",)), tiny_samples())


def test_errors_by_operator_are_measured_alone_and_without():
    found = node_errors(two_layers(), tiny_samples(), STEP)
    assert [row.node for row in found.nodes] == ["one", "two", "mean.pool", "fc"]
    assert all(0 <= row.alone < 1 and 0 <= row.without < 1 for row in found.nodes)
    assert max(row.alone for row in found.nodes) > 0
    assert found.to_json()["nodes"][0]["node"] == "one"


def test_an_operator_that_int8_ruins_has_the_largest_error_and_is_kept_first():
    model, samples = fashion(96)
    way = calibrate(model, STEP, samples)
    victim = way.operators()[4]
    output = next(node.output[0] for node in Graph.view(way.model).nodes if node.name == victim)
    clamp = next((n.output[0] for n in Graph.view(way.model).nodes if n.input and n.input[0] == output), output)
    wide = {
        name: (low * 500, high * 500) if name in (output, clamp) else (low, high)
        for name, (low, high) in way.ranges.items()
    }
    broken = dataclasses.replace(way, ranges=wide, samples=None)
    judge = Judge(model=way.model, samples=samples.take(32))
    rows = mixed.errors_of(broken, judge, ()).nodes
    worst = {row.node for row in sorted(rows, key=lambda row: -row.alone)[:2]}  # it, and what reads its outputs
    assert victim in worst
    choose, verify = (
        Judge(model=way.model, samples=part) for part in split(samples, dataclasses.replace(STEP, drop=0.0), 0)
    )
    found = mixed.fewest_floats(broken, choose, verify, (), 2.0)
    assert victim in found.keep
    assert len(found.keep) <= 3
    assert found.lost <= 2.0 < found.lost_all


def test_a_limit_is_honoured_on_held_out_samples_and_said():
    model, samples = fashion(200)
    step = dataclasses.replace(STEP, samples=100, drop=0.5)
    found, notes = reduce_precision(model, step, samples)
    _, held_out = split(samples, step, 0)
    assert len(held_out) == 100
    assert Judge(model=model, samples=held_out).lost(found.data) <= 0.5
    assert any("100 held-out calibration samples" in note for note in notes)


def test_a_limit_that_int8_cannot_meet_is_said_with_how_near_it_came(monkeypatch):
    model, samples = two_layers(), tiny_samples()
    way = calibrate(model, STEP, samples)
    judge = Judge(model=way.model, samples=samples)
    monkeypatch.setattr(Judge, "lost", lambda self, data: 7.0 + len(data) / 1e9)
    with pytest.raises(SlimError, match=r"expected int8 to lose at most 1 points, found 7\.00 at best"):
        mixed.fewest_floats(way, judge, judge, (), 1.0)


@pytest.mark.parametrize("count", [30, 90, 500])
def test_samples_that_verify_are_others_than_those_that_calibrate_where_there_are_enough(count):
    used, held_out = split(tiny_samples(count), dataclasses.replace(STEP, drop=1.0), 0)
    assert len(held_out) >= min(count, 40)
    if count >= 80:
        assert not set(used.names) & set(held_out.names)


@pytest.mark.parametrize("shape", [(1, 3), (1,), (3,), ()])
@pytest.mark.parametrize("name", ["int8-static", "int8-dynamic", "int8-weights"])
def test_biases_of_any_shape_are_read(shape, name):
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Flatten", ["x"], ["q"]),
        helper.make_node("Gemm", ["q", "f", "b"], ["y"], transB=1, name="fc"),
    ]
    model = finish(nodes, {"f": rng.standard_normal((3, 64)), "b": rng.standard_normal(shape)})
    found, _ = reduce_precision(model, Precision(format=name, variant="u8s8-reduced"), tiny_samples())
    before, after = (logits(session(m.data, 1), m, tiny_samples()) for m in (model, found))
    assert np.abs(before - after).max() < 0.1 * np.ptp(before)
    if np.prod(shape) == 3:  # one number for all outputs is a trained value to a Gemm, and a mere scalar to an Add
        assert lwcore.cost(found).params == lwcore.cost(model).params
