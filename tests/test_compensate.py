"""Compensation: regression, sums, streams, elimination, and the law that it never makes matters worse."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

import lwcore
from lwcore import Channels, Recipe
from lwcore.analysis.coupling import couple
from lwcore.answers import feed
from lwcore.graph import Graph, written
from lwcore.model import Model
from lwcore.runtime import run, session
from lwcore.samples import SampleSet
from lwcore.slimming.pruning import channels
from lwcore.slimming.pruning.basis import directions, spread, streams
from lwcore.slimming.pruning.rebuild import Reader, elimination
from lwcore.slimming.refit import judging
from lwcore.slimming.refit.calibration import answers, draw
from lwcore.slimming.refit.compensate import Cut, gather_moments, sequential
from lwcore.slimming.refit.judging import no_worse
from lwcore.slimming.refit.linear import linear_layers
from lwcore.slimming.refit.regression import Batch, fitted, fitted_few
from lwcore.slimming.rewrite import cut
from tests.helpers import noise
from tests.tiny import finish, tiny_samples

TRAINED = [name for name in lwcore.gallery() if name.startswith("fashion-")]
QUICK = ("fashion-squeezenet", "fashion-resnet20")  # of the trained ones: laws that run each take seconds on others


def _batches(weight: np.ndarray, count: int = 8, size: int = 200, groups: int = 1, **edges: float) -> list[Batch]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        x = rng.standard_normal((groups, weight.shape[2], size)).astype(np.float32)
        found.append(Batch(x, (weight @ x + 3).astype(np.float32), **edges))
    return found


@pytest.mark.parametrize("groups", [1, 5])
def test_regression_finds_the_weight_and_the_mean_that_made_the_targets(groups: int) -> None:
    truth = np.random.default_rng(1).standard_normal((groups, 3, 6))
    weight, shift = fitted(_batches(truth, groups=groups), np.zeros_like(truth), centred=True)
    assert np.allclose(weight, truth, atol=2e-3)
    assert np.allclose(shift, 3, atol=2e-3)


def test_regression_on_noise_keeps_the_weight_at_hand() -> None:
    rng = np.random.default_rng(2)
    plain = rng.standard_normal((1, 4, 40))
    batches = []
    for _ in range(8):
        x = rng.standard_normal((1, 40, 12)).astype(np.float32)
        batches.append(Batch(x, (plain @ x + 9 * rng.standard_normal((1, 4, 12))).astype(np.float32)))
    weight, _ = fitted(batches, plain, centred=True)
    assert np.linalg.norm(weight - plain) < 0.5 * np.linalg.norm(plain)


def test_fewer_vectors_than_inputs_give_the_weight_that_fits_them() -> None:
    truth = np.random.default_rng(3).standard_normal((1, 3, 500))
    batches = _batches(truth, count=2, size=60)
    weight, shift = fitted_few(batches, np.zeros_like(truth), centred=True)
    for batch in batches:
        assert np.abs(weight @ batch.x + shift[:, :, None] - batch.y).max() < 0.2 * np.abs(batch.y).max()


def test_targets_that_a_relu_cuts_off_need_not_be_met() -> None:
    batch = Batch(np.zeros((1, 1, 3), np.float32), np.array([[[-5.0, 2.0, -1.0]]], np.float32), low=np.float32(0))
    window = batch.window()
    assert window is not None
    assert batch.met(window, np.array([[[-9.0, -3.0, 4.0]]])).tolist() == [[[-9.0, 2.0, 0.0]]]
    assert Batch(batch.x, batch.y).window() is None


def test_elimination_drops_a_copy_first_and_what_nobody_reads_before_it() -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((5, 4000))
    x[3] = x[1] + 0.01 * rng.standard_normal(4000)
    weight = rng.standard_normal((7, 5))
    weight[:, 4] = 0
    reader = Reader(np.arange(5), weight.T @ weight, np.cov(x))
    rank = elimination([reader], 5)
    assert rank[4] == 0
    assert min(rank[1], rank[3]) == 1


def test_elimination_is_the_order_of_brute_force() -> None:
    rng = np.random.default_rng(5)
    mixed = rng.standard_normal((6, 6)) @ rng.standard_normal((6, 3000))
    weight, covariance = rng.standard_normal((4, 6)), np.cov(mixed)

    def harm(kept: list[int]) -> float:
        rebuild = covariance[:, kept] @ np.linalg.inv(covariance[np.ix_(kept, kept)])
        return float(np.trace(weight @ (covariance - rebuild @ covariance[kept]) @ weight.T))

    left = list(range(6))
    order = []
    while len(left) > 1:
        order.append(min(left, key=lambda j: harm([i for i in left if i != j])))
        left.remove(order[-1])
    rank = elimination([Reader(np.arange(6), weight.T @ weight, covariance)], 6)
    assert np.argsort(rank).tolist() == [*order, *left]


@pytest.mark.parametrize("name", ["fashion-mobilenetv2", "fashion-efficientnet"])
def test_a_stream_in_another_basis_computes_the_same(name: str) -> None:
    model = lwcore.load(name)
    samples = lwcore.load_samples("fashion-calibration", model).take(64)
    graph, moments = Graph.of(model), dict(gather_moments(model, samples))
    assert streams(model)
    for stream in streams(model):
        stream.change(graph, moments, *directions(stream, graph, moments))
        stream.change(graph, moments, *spread(stream, np.ones(couple(model).units, dtype=bool)))
    inputs = [feed(model, samples)]
    truth = answers(Graph.view(model), inputs)[0]
    assert np.abs(answers(graph, inputs)[0] - truth).max() < 1e-4 * np.abs(truth).max()


def test_streams_with_an_activation_keep_their_basis() -> None:
    assert not streams(lwcore.load("fashion-resnet20"))


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in TRAINED])
@pytest.mark.parametrize("how", ["one-shot", "sequential"])
def test_compensation_never_lowers_agreement_on_unseen_samples(name: str, how: str) -> None:
    model = lwcore.load(name)
    test = lwcore.load_samples("fashion-test", model).take(300)
    calibration = lwcore.load_samples("fashion-calibration", model).take(160)

    def agreement(compensate: str) -> float:
        step = Channels(amount=0.3, compensate=compensate)  # type: ignore[arg-type]
        slim = lwcore.apply(model, Recipe(steps=(step,)), calibration).model
        inputs = [feed(model, test)]
        a, b = (answers(Graph.view(m), inputs)[0].argmax(axis=1) for m in (slim, model))
        return float((a == b).mean())

    assert agreement(how) >= agreement("none")


@pytest.mark.parametrize("work", [judging.WORK, 0])
def test_a_refit_is_no_worse_exactly_when_it_agrees_as_often(work: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortcuts that stop early, sooner for a large model, decide as counting everything would."""
    monkeypatch.setattr(judging, "WORK", work)
    model = lwcore.load("fashion-squeezenet")
    samples = lwcore.load_samples("fashion-calibration", model).take(96)
    held = draw(model, samples).check
    dense, worse = Graph.of(model), Graph.of(model)
    head = linear_layers(worse)[-1].weight
    worse.constants[head] = -worse.constants[head]
    assert no_worse(model, samples, written(model, dense), worse, held)
    assert no_worse(model, samples, written(model, worse), worse, held)
    assert not no_worse(model, samples, written(model, worse), dense, held)


def test_the_cut_graph_is_not_asked_where_the_refit_agrees_on_many(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lwcore.load("fashion-squeezenet")
    samples = lwcore.load_samples("fashion-calibration", model)
    monkeypatch.setattr(judging, "session", None)  # only the cut graph has a session of its own
    assert judging.no_worse(model, samples, model, Graph.of(model), draw(model, samples).check)


def test_the_cut_graph_is_asked_where_few_samples_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lwcore.load("fashion-squeezenet")
    samples = lwcore.load_samples("fashion-calibration", model).take(300)
    monkeypatch.setattr(judging, "WORK", 0)
    asked = []
    monkeypatch.setattr(judging, "session", lambda data: asked.append(1) or session(data))
    assert judging.no_worse(model, samples, model, Graph.of(model), draw(model, samples).check)
    assert asked


def test_compensation_that_makes_matters_worse_is_dropped_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lwcore.load("fashion-squeezenet")
    samples = lwcore.load_samples("fashion-calibration", model).take(96)

    def spoil(both: Cut, *_: object) -> None:
        for layer in both.pair.layers:
            both.pair.small.write(layer.weight, -both.pair.small.read(layer.weight))

    monkeypatch.setattr(channels, "sequential", spoil)
    slim = lwcore.apply(model, Recipe(steps=(Channels(amount=0.1),)), samples)
    assert any("Compensation was dropped" in note for note in slim.notes)


def test_the_best_criterion_says_which_it_was() -> None:
    model = lwcore.load("fashion-squeezenet")
    samples = lwcore.load_samples("fashion-calibration", model).take(96)
    slim = lwcore.apply(model, Recipe(steps=(Channels(amount=0.3, criterion="best"),)), samples)
    assert any(note.startswith("Best on held-out calibration samples") for note in slim.notes)


def _residual(seed: int = 0) -> Model:
    """Two convolutions, a depthwise one between, a sum with the shortcut, a grouped one, and a classifier."""
    rng = np.random.default_rng(seed)
    tensors = {
        "a": rng.standard_normal((8, 1, 3, 3)), "ab": rng.standard_normal(8),
        "d": rng.standard_normal((8, 1, 3, 3)), "db": rng.standard_normal(8),
        "p": 0.3 * rng.standard_normal((8, 8, 1, 1)), "pb": rng.standard_normal(8),
        "g": 0.3 * rng.standard_normal((8, 4, 3, 3)), "gb": rng.standard_normal(8),
        "f": rng.standard_normal((3, 8)), "fb": rng.standard_normal(3),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "a", "ab"], ["1"], pads=[1, 1, 1, 1], name="first"),
        helper.make_node("Relu", ["1"], ["2"], name="relu1"),
        helper.make_node("Conv", ["2", "d", "db"], ["3"], pads=[1, 1, 1, 1], group=8, name="depthwise"),
        helper.make_node("Relu", ["3"], ["4"], name="relu2"),
        helper.make_node("Conv", ["4", "p", "pb"], ["5"], name="point"),
        helper.make_node("Add", ["5", "2"], ["6"], name="sum"),
        helper.make_node("Relu", ["6"], ["7"], name="relu3"),
        helper.make_node("Conv", ["7", "g", "gb"], ["8"], pads=[1, 1, 1, 1], group=2, name="grouped"),
        helper.make_node("GlobalAveragePool", ["8"], ["9"], name="pool"),
        helper.make_node("Flatten", ["9"], ["10"], name="flat"),
        helper.make_node("Gemm", ["10", "f", "fb"], ["y"], transB=1, name="head"),
    ]
    return finish(nodes, tensors)


def test_depthwise_grouped_and_summed_layers_are_refitted_too() -> None:
    model, samples = _residual(), tiny_samples(120)
    coupling, dense = couple(model), Graph.of(model)
    keep = np.ones(coupling.units, dtype=bool)
    keep[coupling.groups[0].units[:2]] = False
    slim = cut(dense, coupling, keep)
    before = {name: array.copy() for name, array in slim.constants.items()}
    inputs = draw(model, samples)
    truth = answers(dense, inputs.check)[0]
    plain = float(np.mean((answers(slim, inputs.check)[0] - truth) ** 2))
    sequential(Cut(dense, slim, coupling, keep), inputs.fit)
    assert float(np.mean((answers(slim, inputs.check)[0] - truth) ** 2)) < 0.5 * plain
    for name in ("p", "g", "f"):
        assert not np.array_equal(before[name], slim.constants[name]), name


def test_nothing_removed_leaves_every_weight_as_it_was() -> None:
    model, samples = _residual(), tiny_samples(40)
    coupling, dense = couple(model), Graph.of(model)
    slim = dense.copy()
    sequential(Cut(dense, slim, coupling, np.ones(coupling.units, dtype=bool)), draw(model, samples).fit)
    assert all(np.array_equal(slim.constants[n], dense.constants[n]) for n in dense.constants)


def test_a_handful_of_samples_is_enough_to_run() -> None:
    model = lwcore.load("fashion-squeezenet")
    few: SampleSet = noise(model, count=3)
    slim = lwcore.apply(model, Recipe(steps=(Channels(amount=0.3),)), few).model
    assert np.isfinite(run(session(slim.data), feed(model, few))[0]).all()
