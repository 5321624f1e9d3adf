"""Precision: standard operators, float32 in and out, the same bytes each time, and the truth about speed."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import lwcore
from lwcore.answers import feed, logits
from lwcore.errors import SlimError
from lwcore.graph import Graph
from lwcore.recipe import Channels, Precision, Recipe
from lwcore.runtime import session
from lwcore.samples import SampleSet
from lwcore.settings import ROOT
from lwcore.slimming.precision import processor, ranges, reduce_precision
from lwcore.slimming.precision.fold import fold_batch_norms, parameters_folded
from lwcore.slimming.precision.processor import PREFERENCE, kind_of, order
from lwcore.slimming.precision.variants import VARIANTS
from tests.tiny import finish, tiny_model, tiny_samples

STEPS = [
    Precision(format="fp16"),
    Precision(format="int8-dynamic"),
    *(Precision(format="int8-static", variant=name) for name in VARIANTS),
    *(
        Precision(format="int8-static", variant="u8s8-reduced", ranges=name)
        for name in ("percentile", "entropy", "mse", "auto")
    ),
]


@pytest.fixture(autouse=True)
def _remembered_speeds(monkeypatch):
    """No test depends on this machine's timing."""
    monkeypatch.setattr(processor, "_remembered", lambda path: dict.fromkeys(VARIANTS, 1.0))
    processor.ranking.cache_clear()
    yield
    processor.ranking.cache_clear()


def noise_pictures(count):
    """Random pictures that fit the built-in Fashion-MNIST models."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 28, 28, 1), dtype=np.uint8)
    return SampleSet(name="noise", arrays={"pixels": pixels})


def outputs(model, samples):
    return logits(session(model.data, 1), model, samples)


@pytest.mark.parametrize("step", STEPS, ids=lambda s: f"{s.format}-{s.variant}-{s.ranges}")
@pytest.mark.parametrize("norm", [False, True], ids=["plain", "norm"])
def test_the_file_is_standard_onnx_and_answers_alike(step, norm):
    model, samples = tiny_model(norm=norm), tiny_samples()
    found, _ = reduce_precision(model, step, samples)
    onnx.checker.check_model(found.proto, full_check=True)
    assert {item.domain for item in found.proto.opset_import} <= {"", "ai.onnx"}
    for value in (*found.proto.graph.input, *found.proto.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    before, after = outputs(model, samples), outputs(found, samples)
    can_saturate = step.variant in ("u8s8", "s8s8")  # on x86 without VNNI, which is why auto prefers the others there
    assert np.abs(before - after).max() < (0.3 if can_saturate else 0.1) * (before.max() - before.min())
    assert lwcore.cost(found).macs == lwcore.cost(model).macs


@pytest.mark.parametrize("step", STEPS[:3], ids=lambda s: s.format)
def test_parameters_are_those_of_the_model_less_the_norms_folded(step):
    model = tiny_model(norm=True)
    graph = Graph.view(model)
    found, _ = reduce_precision(model, step, tiny_samples())
    gone = 0 if step.format == "fp16" else parameters_folded(graph, graph.shapes)
    assert lwcore.cost(found).params == lwcore.cost(model).params - gone


@pytest.mark.parametrize("step", STEPS[:3], ids=lambda s: s.format)
def test_weights_take_fewer_bytes(step):
    model, samples = lwcore.load("fashion-squeezenet"), noise_pictures(8)
    found, _ = reduce_precision(model, step, samples)
    assert found.size_bytes < (0.6 if step.format == "fp16" else 0.45) * model.size_bytes
    assert lwcore.cost(found).params == lwcore.cost(model).params


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_stays_fixed(batch):
    model, samples = tiny_model(batch=batch), tiny_samples(10)
    found, _ = reduce_precision(model, Precision(format="int8-static", variant="u8s8-reduced"), samples)
    assert session(found.data).get_inputs()[0].shape[0] == batch
    assert outputs(found, samples).shape == (10, 3)


@pytest.mark.parametrize("step", STEPS[:3], ids=lambda s: s.format)
def test_old_operator_sets_work(step):
    model, samples = tiny_model(norm=True, opset=9), tiny_samples()
    found, _ = reduce_precision(model, step, samples)
    onnx.checker.check_model(found.proto, full_check=True)
    assert (outputs(model, samples).argmax(1) == outputs(found, samples).argmax(1)).mean() > 0.9


SCRIPT = """
import hashlib
from lwcore.recipe import Precision
from lwcore.slimming.precision import reduce_precision
from tests.tiny import tiny_model, tiny_samples
for name in ("fp16", "int8-dynamic", "int8-static"):
    model, _ = reduce_precision(tiny_model(norm=True), Precision(format=name, variant="u8s8-reduced"), tiny_samples())
    print(model.fingerprint)
"""


def test_the_same_bytes_in_every_process():
    runs = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert len(runs[0].split()) == 3


def test_pruned_channels_can_be_quantized():
    model, samples = lwcore.load("fashion-squeezenet"), noise_pictures(8)
    slim = lwcore.apply(model, Recipe(steps=(Channels(amount=0.5, compensate="none"),)), samples).model
    assert lwcore.cost(slim).params < lwcore.cost(model).params
    for step in STEPS[:3]:
        found, _ = reduce_precision(slim, step, samples)
        assert lwcore.cost(found).params == lwcore.cost(slim).params


@pytest.mark.parametrize("first", STEPS[:3], ids=lambda s: s.format)
def test_fewer_bits_twice_is_refused_in_plain_words(first):
    model, samples = tiny_model(), tiny_samples()
    found, _ = reduce_precision(model, first, samples)
    with pytest.raises(SlimError, match=r"expected a float32 model, found one .* already"):
        reduce_precision(found, Precision(format="int8-static"), samples)


def test_static_int8_without_samples_is_refused():
    for samples in (None, tiny_samples(3).take(0)):
        with pytest.raises(SlimError, match="expected calibration samples, found none"):
            reduce_precision(tiny_model(), Precision(format="int8-static"), samples)


def test_auto_names_the_variant_and_its_agreement():
    found, notes = reduce_precision(tiny_model(), Precision(format="int8-static"), tiny_samples())
    assert any("u8s8-reduced" in note or "u8s8" in note for note in notes)
    assert any("calibration samples" in note for note in notes)
    again, _ = reduce_precision(tiny_model(), Precision(format="int8-static"), tiny_samples())
    assert found.data == again.data


def test_a_slower_file_says_so(monkeypatch):
    from lwcore.slimming.precision import formats
    from lwcore.timing import Latency

    def turns(runs, seconds):
        return [Latency(median_ms=ms, low_ms=ms, high_ms=ms, rounds=5) for ms in (1.0, 1.6)]

    monkeypatch.setattr(formats, "take_turns", turns)
    _, notes = reduce_precision(tiny_model(), Precision(format="int8-static", variant="s8s8"), tiny_samples())
    assert any("1.60× slower" in note for note in notes)


@pytest.mark.parametrize(
    ("machine", "flags", "kind"),
    [
        ("x86_64", ["avx2"], "plain"),
        ("x86_64", ["avx2", "avx512_vnni"], "vnni"),
        ("AMD64", ["avx_vnni"], "vnni"),
        ("aarch64", [], "arm"),
        ("arm64", ["asimddp"], "arm"),
    ],
)
def test_processors_are_told_apart(machine, flags, kind):
    assert kind_of(machine, flags) == kind


def test_without_vnni_the_variant_that_cannot_saturate_comes_first():
    equal = dict.fromkeys(VARIANTS, 1.0)
    assert order(equal, PREFERENCE["plain"])[0] == "u8s8-reduced"
    assert order(equal, PREFERENCE["vnni"])[0] == "u8s8"


def test_a_clearly_faster_variant_comes_first_and_none_is_lost():
    found = order({"u8s8": 1.0, "u8s8-reduced": 1.0, "u8u8": 0.5, "s8s8": 1.05}, PREFERENCE["plain"])
    assert found[0] == "u8u8"
    assert sorted(found) == sorted(VARIANTS)


def test_speeds_are_measured_once_and_remembered(tmp_path, monkeypatch):
    monkeypatch.undo()
    path = tmp_path / "deep" / "int8.json"
    assert processor._remembered(path) is None
    processor._remember(path, dict.fromkeys(VARIANTS, 2.0))
    assert processor._remembered(path) == dict.fromkeys(VARIANTS, 2.0)
    path.write_text(json.dumps({"u8s8": "fast"}))
    assert processor._remembered(path) is None


def test_ranges_hold_every_value_and_shrink_where_asked():
    model, samples = tiny_model(), tiny_samples()
    widest = ranges.activation_ranges(model, samples, "minmax")
    values = feed(model, samples)["x"]
    assert widest["x"] == (values.min(), values.max())
    for method in ("percentile", "entropy"):
        for name, (low, high) in ranges.activation_ranges(model, samples, method).items():
            assert widest[name][0] - 1e-6 <= low <= high <= widest[name][1] + 1e-6


def test_an_outlier_is_cut_off_by_percentile_and_entropy():
    counts = np.zeros(ranges.BINS, np.int64)
    counts[:200] = np.random.default_rng(0).integers(10_000, 100_000, 200)
    counts[-1] = 1
    for method in ("percentile", "entropy"):
        low, high = ranges._METHODS[method](counts, (0.0, 100.0))
        assert low == 0.0
        assert 9.0 < high < 50.0


def test_batches_do_not_change_the_ranges(monkeypatch):
    model, samples = tiny_model(), tiny_samples()
    whole = ranges.activation_ranges(model, samples, "entropy")
    monkeypatch.setattr(ranges, "BATCH_MB", 1e-9)
    single = ranges.activation_ranges(model, samples, "entropy")
    assert {name: pytest.approx(value, rel=1e-4) for name, value in single.items()} == whole


def test_folding_a_batch_norm_changes_nothing_that_can_be_seen():
    model, samples = tiny_model(norm=True), tiny_samples()
    graph = Graph.view(model)
    folded = fold_batch_norms(graph)
    assert all(node.op_type != "BatchNormalization" for node in folded.nodes)
    assert any(node.op_type == "BatchNormalization" for node in graph.nodes)
    twin = dataclasses.replace(model, data=folded.serialize())
    assert np.allclose(outputs(model, samples), outputs(twin, samples), atol=1e-4)
    assert lwcore.cost(model).params - lwcore.cost(twin).params == parameters_folded(graph, graph.shapes) == 8


def test_a_convolution_that_others_read_keeps_its_norm():
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "g", "b", "m", "v"], ["n"]),
        helper.make_node("Add", ["c", "n"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    model = finish(
        nodes,
        {"w": rng.standard_normal((3, 1, 3, 3)), "g": np.ones(3), "b": np.zeros(3), "m": np.zeros(3), "v": np.ones(3)},
    )
    graph = Graph.view(model)
    assert parameters_folded(graph, graph.shapes) == 0
    assert len(fold_batch_norms(graph).nodes) == len(graph.nodes)
