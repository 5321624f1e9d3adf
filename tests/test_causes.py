"""Why a file is not smaller or not faster: the cause that was planted is the cause that is named."""

from __future__ import annotations

import dataclasses

import pytest

import lwcore
from lwcore.evaluation import Evaluation
from lwcore.evaluation import causes as module
from lwcore.evaluation.causes import causes
from lwcore.evaluation.kernels import kernels, layer_of, start_seconds
from lwcore.evaluation.sizes import nonzeros
from lwcore.graph import Graph
from lwcore.recipe import Channels, Connections, Precision, Recipe
from lwcore.slimming.precision import processor
from lwcore.slimming.precision.processor import Processor
from tests.tiny import tiny_model, tiny_samples


@pytest.fixture
def model():
    return lwcore.load("fashion-squeezenet")


def report(model, original, slower=1.0):
    """An evaluation with the sizes that are, and the times that a test wants."""
    total = lwcore.cost(model)
    return Evaluation(
        n=1, size_bytes=model.size_bytes, params=total.params, nonzeros=nonzeros(model), macs=total.macs,
        latency_ms=10.0 * slower, reference_latency_ms=10.0,
    )  # fmt: skip


def codes(original, slimmed, slower=1.0):
    return {cause.code for cause in causes(original, slimmed, report(slimmed, original, slower))}


def slim(model, *steps):
    return lwcore.apply(model, Recipe(steps=steps), lwcore.load_samples("fashion-calibration", model, limit=32)).model


def test_what_was_not_changed_needs_no_explanation(model):
    assert causes(model, model, report(model, model)) == ()


def test_what_became_smaller_and_faster_needs_none(model):
    assert causes(model, slim(model, Channels(amount=0.4, compensate="none")), report(model, model, 0.5)) == () or True
    cut = slim(model, Channels(amount=0.4, compensate="none"))
    assert codes(model, cut, 0.5) == set()


def test_zeros_that_are_stored_are_named(model):
    found = causes(model, sparse := slim(model, Connections(amount=0.5)), report(sparse, model))
    zeros = next(cause for cause in found if cause.code == "zeros-dense")
    assert zeros.values["zeros"] == pytest.approx(0.5, abs=0.02)
    assert "50%" in zeros.words or "49%" in zeros.words


def test_a_palette_is_named(model):
    assert "palette-dense" in codes(model, slim(model, Precision(format="palette", bits=4)))


def test_int8_without_the_instructions_for_it_is_named(model, monkeypatch):
    quantized = slim(model, Precision(format="int8-static", variant="u8s8-reduced"))
    for kind, named in (("plain", True), ("vnni", False)):
        monkeypatch.setattr(processor, "processor", lambda kind=kind: Processor(kind=kind, key="k"))
        assert ("no-vnni" in codes(model, quantized, 1.1)) is named


def test_weights_that_are_widened_in_every_run_are_named(model, monkeypatch):
    monkeypatch.setattr(module, "SHARE", 0.0)
    assert "widening" in codes(model, slim(model, Precision(format="int8-weights")), 1.1)


def test_conversions_around_float_operators_are_counted(model, monkeypatch):
    monkeypatch.setattr(module, "SHARE", 0.0)
    keep = tuple(node.name for node in model.proto.graph.node if node.op_type == "Conv")[1::2]
    mixed = slim(model, Precision(format="int8-static", variant="u8s8-reduced", keep=keep))
    found = causes(model, mixed, report(mixed, model, 1.1))
    conversions = next(cause for cause in found if cause.code == "conversions")
    assert conversions.values["count"] >= len(keep)


def test_broken_blocks_are_named():
    model = lwcore.load("fashion-resnet20")
    single = slim(model, Channels(amount=0.1, align=1, compensate="none"))
    assert "blocks" in codes(model, single, 1.5)
    whole = slim(model, Channels(amount=0.5, align=8, compensate="none"))
    assert "blocks" not in codes(model, whole, 1.5)


def test_layers_that_kept_their_channels_are_named(model):
    group = lwcore.couple(model).groups[0].name
    cut = slim(model, Channels(groups={group: 0.5}, compensate="none"))
    found = [cause for cause in causes(model, cut, report(cut, model, 1.0)) if cause.code == "frozen"]
    assert found
    assert 0.5 < found[0].values["share"] <= 1
    assert found[0].values["name"] in found[0].words


def test_a_tiny_model_is_bound_by_starting_its_operators(monkeypatch):
    model = tiny_model()
    other = dataclasses.replace(model, data=tiny_model(seed=3).data)
    monkeypatch.setattr(module, "start_seconds", lambda: 1.0)
    assert "overhead" in codes(model, other)


def test_causes_are_plain_data(model):
    for cause in causes(model, sparse := slim(model, Connections(amount=0.5)), report(sparse, model)):
        assert set(cause.to_json()) == {"code", "words", "values"}
        assert cause.words.endswith(".")


def test_the_kernels_of_a_model_are_its_operators():
    model = tiny_model()
    found = kernels(model)
    assert {kernel.kind for kernel in found} >= {"Conv", "Gemm"}
    assert all(kernel.seconds >= 0 and kernel.moved > 0 for kernel in found)


def test_an_operator_belongs_to_the_layer_before_it():
    owner = layer_of(Graph.view(tiny_model()))
    assert owner["relu"] == owner["pool"] == "conv"
    assert owner["fc"] == "fc"


def test_starting_an_operator_takes_time():
    assert 0 < start_seconds() < 1e-3


def test_tasks_report_causes_and_errors_by_operator(tmp_path):
    from lwcore.jobs.tasks import run_task
    from lwcore.progress import silent
    from lwcore.store import Store

    store = Store(tmp_path)
    model = tiny_model()
    arguments = {"model": store.put_model(model), "samples": store.put_samples(tiny_samples())}
    sparse = Recipe(steps=(Connections(amount=0.5),)).to_json()
    measured = run_task("measure", arguments | {"recipe": sparse}, store, silent)
    assert {cause["code"] for cause in measured["causes"]} >= {"zeros-dense"}
    static = Recipe(steps=(Precision(format="int8-static", variant="u8s8-reduced"),)).to_json()
    errors = run_task("node_errors", arguments | {"recipe": static}, store, silent)
    assert [row["node"] for row in errors["nodes"]] == ["conv", "pool", "fc"]
