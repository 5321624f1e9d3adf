"""Tasks: JSON in, JSON out, and what is worked out once is kept."""

import json

import numpy as np
import pytest

from lwcore.errors import LwcoreError, ModelError, RecipeError, SampleError
from lwcore.jobs.tasks import TASKS, run_task
from lwcore.kept import find_reference, find_samples
from lwcore.model import Card, InputSpec, Model
from lwcore.progress import silent
from lwcore.recipe import Channels, Recipe
from lwcore.samples.builtin import load_set
from lwcore.store import Store
from tests.test_samples import picture, zipped
from tests.test_upload import network

MODEL = "fashion-squeezenet"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def few(store):
    return store.put_samples(load_set("fashion-test").take(64))


def ask(store, task, progress=silent, /, **arguments):
    result = run_task(task, json.loads(json.dumps(arguments)), store, progress)
    return json.loads(json.dumps(result))


def test_an_uploaded_model_and_pictures_can_be_measured(store):
    upload = store.put_upload(network(shape=("n", 3, 8, 8)).SerializeToString())
    model = ask(store, "ingest", upload=upload, name="net.onnx")
    assert model["card"]["input"]["size"] == [8, 8]
    assert store.model(model["model"]).notes == tuple(model["notes"])
    pictures = store.put_upload(zipped(("0/a.png", picture()), ("1/b.png", picture())))
    samples = ask(store, "ingest_samples", upload=pictures, model=model["model"], name="mine")
    assert (samples["n"], samples["labelled"]) == (2, True)
    result = ask(
        store, "measure", model=model["model"], recipe=Recipe().to_json(), samples=samples["samples"], latency=False
    )
    assert result["evaluation"]["agreement"] == 1.0


def test_a_card_overrides_what_is_guessed(store):
    upload = store.put_upload(network(shape=("n", 3, "h", "w")).SerializeToString())
    card = {"input": {"size": [20, 24], "mean": [0.1] * 3}, "classes": ["a", "b", "c", "d"]}
    model = ask(store, "ingest", upload=upload, name="net.onnx", card=card)
    assert store.model(model["model"]).card.input == InputSpec(
        size=(20, 24), mean=(0.1,) * 3, std=(1.0,) * 3, resize=store.model(model["model"]).card.input.resize
    )
    assert model["card"]["classes"] == card["classes"]


def test_measuring_slims_and_tells_how_far_it_is(store, few):
    told = []
    result = ask(
        store,
        "measure",
        lambda share, words: told.append(share),
        model=MODEL,
        samples=few,
        calibration=few,
        recipe=Recipe(steps=(Channels(amount=0.3),)).to_json(),
        latency=False,
    )
    assert result["after"]["params"] < result["before"]["params"]
    assert store.model(result["model"]).size_bytes == result["after"]["size_bytes"]
    assert result["evaluation"]["n"] == 64
    assert result["evaluation"]["params"] == result["after"]["params"]
    assert told == sorted(told)
    assert 0 <= told[0] <= told[-1] <= 1


def test_the_originals_answers_are_worked_out_once(store, few, monkeypatch):
    import lwcore.evaluation

    model = Model(
        data=store.model(
            ask(store, "ingest", upload=store.put_upload(network().SerializeToString()), name="n")["model"]
        ).data,
        card=Card(input=InputSpec(size=(8, 8))),
    )
    samples = find_samples(store, "photos", model)
    first = find_reference(store, model, samples)
    monkeypatch.setattr(lwcore.evaluation, "reference", lambda *_: pytest.fail("it was worked out again"))
    again = find_reference(store, model, samples)
    np.testing.assert_array_equal(first.logits, again.logits)
    assert again.fits(model, samples)


def test_bad_arguments_are_sentences(store, few):
    with pytest.raises(RecipeError):
        ask(store, "measure", model=MODEL, recipe={"steps": [{"kind": "magic"}]}, samples=few)
    with pytest.raises(ModelError, match="built-in"):
        ask(store, "measure", model="../../etc/passwd", recipe=Recipe().to_json(), samples=few)
    with pytest.raises(LwcoreError, match="sample set"):
        ask(store, "measure", model=MODEL, recipe=Recipe().to_json(), samples="/etc")
    with pytest.raises(ModelError, match="torchvision"):
        ask(store, "load", ref="/etc/passwd")
    with pytest.raises(ModelError, match="Upload it again"):
        ask(store, "ingest", upload="0" * 64, name="x")
    with pytest.raises(SampleError):
        ask(store, "ingest_samples", upload=store.put_upload(b"no zip"), model=MODEL)


def test_every_task_that_reads_strangers_bytes_has_the_parse_limits_and_no_network():
    assert {name for name, task in TASKS.items() if task.untrusted} >= {"ingest", "ingest_samples"}
    assert [name for name, task in TASKS.items() if task.network] == ["load"]
