"""Models that are no classifiers: fed with arrays, compared by their outputs as numbers."""

from __future__ import annotations

import io

import numpy as np
import pytest

import lwcore
from lwcore import Budget, Channels, Evaluation, LowRank, Precision, Recipe
from lwcore.answers import outputs, per_run
from lwcore.domains import domain, load_samples
from lwcore.errors import SampleError
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.runtime import session
from lwcore.samples import SampleSet
from lwcore.samples.numbers import random_inputs
from lwcore.scenarios import quality
from lwcore.similarity import likeness, relative_error
from tests.generic import FILES, network

STEPS = {
    "channels": Channels(amount=0.25, align=1),
    "low rank": LowRank(budget=Budget(keep=0.88)),
    "int8": Precision(format="int8-static"),
    "fp16": Precision(format="fp16"),
}


@pytest.fixture(scope="module", params=list(FILES))
def model(request: pytest.FixtureRequest) -> Model:
    return network(request.param)


def _npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _read(model: Model, data: bytes) -> SampleSet:
    return domain(model).read(data, model, "mine", lambda share, words: None)


def test_an_upload_that_is_no_classifier_is_generic_and_says_why(model: Model) -> None:
    assert model.card.task == "generic"
    assert any("compared as numbers" in note for note in model.notes)


def test_random_inputs_have_the_declared_shapes_and_are_the_same_every_time(model: Model) -> None:
    one, two = load_samples("random", model), random_inputs(model, 64)
    assert one.fingerprint == two.fingerprint
    found = outputs(session(model.data), model, one)
    assert [len(rows) for rows in found] == [len(one)] * len(Graph.view(model).outputs)
    assert all(np.isfinite(rows).all() for rows in found)


def test_positions_in_a_table_stay_inside_it() -> None:
    places = random_inputs(network("regressor"), 64).arrays["place"]
    assert places.dtype == np.int64
    assert 0 <= places.min() <= places.max() == 8


def test_samples_that_cannot_be_stacked_are_run_one_by_one() -> None:
    assert [per_run(network(name)) for name in FILES] == [None, 1, None]


@pytest.mark.parametrize("step", list(STEPS))
def test_it_is_slimmed_and_compared_by_its_outputs(model: Model, step: str) -> None:
    samples = random_inputs(model, 48)
    slim = lwcore.apply(model, Recipe(steps=(STEPS[step],)), samples=samples)
    found = lwcore.evaluate(slim.model, samples, against=model, latency=False)
    assert slim.after.size_bytes < slim.before.size_bytes or slim.after.macs < slim.before.macs
    assert found.top1 is None
    assert found.agreement is None
    assert [row.name for row in found.outputs] == Graph.view(model).outputs
    assert found.similarity is not None
    assert -1 <= found.similarity_low <= found.similarity <= found.similarity_high <= 1
    assert found.similarity > (0.7 if step in ("channels", "low rank") else 0.98)
    assert quality(found) == max(0.0, found.similarity)
    assert Evaluation.from_json(found.to_json()) == found
    assert "similarity" in str(found)


def test_an_unchanged_model_has_similarity_one_and_no_error(model: Model) -> None:
    found = lwcore.evaluate(model, random_inputs(model, 8), against=model, latency=False)
    assert (found.similarity, found.relative_error) == (1.0, 0.0)


def test_it_is_profiled_and_its_plan_is_exact(model: Model) -> None:
    recipe = Recipe(steps=(Channels(amount=0.25, align=1, compensate="none"),))
    before, planned = lwcore.cost(model), lwcore.plan(model, recipe).after
    slim = lwcore.apply(model, recipe, samples=random_inputs(model, 8))
    assert sum(row.macs for row in lwcore.profile(model).layers) == before.macs
    assert (planned.params, planned.macs) == (slim.after.params, slim.after.macs)
    assert planned.macs < before.macs


def test_compensation_brings_the_outputs_nearer(model: Model) -> None:
    samples = random_inputs(model, 64)
    errors = []
    for how in ("none", "sequential"):
        slim = lwcore.apply(model, Recipe(steps=(Channels(amount=0.25, align=1, compensate=how),)), samples=samples)
        errors.append(lwcore.evaluate(slim.model, samples, against=model, latency=False).relative_error)
    assert errors[1] < errors[0]


def test_a_budget_is_shared_out_by_the_error_of_the_outputs() -> None:
    model = network("detector")
    slim = lwcore.apply(model, Recipe(steps=(Channels(budget=Budget(keep=0.6)),)), samples=random_inputs(model, 12))
    assert slim.after.macs <= 0.6 * slim.before.macs


def test_whole_numbers_are_compared_by_how_many_are_equal() -> None:
    model = network("detector")
    samples = random_inputs(model, 16)
    slim = lwcore.apply(model, Recipe(steps=(Precision(format="int8-static"),)), samples=samples)
    rows = {row.name: row for row in lwcore.evaluate(slim.model, samples, against=model, latency=False).outputs}
    assert rows["best"].agreement == rows["best"].similarity == pytest.approx(1 - rows["best"].error)
    assert rows["box_table"].agreement is None


def test_arrays_of_ones_own_are_read_by_name() -> None:
    model = network("regressor")
    rng = np.random.default_rng(0)
    own = _read(model, _npz(x=rng.standard_normal((5, 8)), place=np.arange(5)))
    assert len(own) == 5
    assert (own.arrays["x"].dtype, own.arrays["place"].dtype) == (np.float32, np.int64)
    single = network("detector")
    buffer = io.BytesIO()
    np.save(buffer, rng.standard_normal((2, 3, 32, 32)).astype(np.float32))
    assert len(_read(single, buffer.getvalue())) == 2
    assert "x (3, 32, 32)" in domain(single).show(_read(single, buffer.getvalue()), 0)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.zeros((5, 8))}, "one array an input"),
        ({"x": np.zeros((5, 7)), "place": np.arange(5)}, "samples of shape"),
        ({"x": np.zeros((5, 8)), "place": np.arange(4)}, "same number of samples"),
        ({"x": np.zeros((5, 8)), "place": np.zeros(5)}, "values of type int64"),
        ({"x": np.full((5, 8), np.nan), "place": np.arange(5)}, "finite numbers"),
        ({"x": np.array([{"a": 1}] * 5, dtype=object), "place": np.arange(5)}, "cannot be read"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_in_a_sentence(arrays: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(SampleError, match=words):
        _read(network("regressor"), _npz(**arrays))


def test_bytes_that_are_no_arrays_are_refused() -> None:
    for data in (b"hello", b"PK\x03\x04 damaged", b"\x93NUMPY"):
        with pytest.raises(SampleError, match=r"\.npz"):
            _read(network("regressor"), data)


def test_likeness_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    before, noise = rng.standard_normal((200, 3)), rng.standard_normal((200, 3))
    found = likeness(before + 0.5 * noise, before)
    flat = np.stack([(before + 0.5 * noise).ravel(), before.ravel()])
    assert found.value == pytest.approx(flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1]))
    assert 0 < found.error < 0.05
    assert relative_error(2 * before, before) == pytest.approx(1.0)
    assert likeness(-before, before).value == pytest.approx(-1.0)
    assert likeness(np.full((3, 2), np.nan), np.ones((3, 2))).value == 0.0
