"""Workspaces on SQLite and on PostgreSQL: what was written comes back, to its owner only, within its limits."""

import dataclasses
import io
import json
import threading
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from lwcore.errors import EvaluationError, LwcoreError, WorkspaceError
from lwcore.fields import check_fields
from lwcore.model import Card, Model
from lwcore.samples import SampleSet
from lwcore.scenarios import Attempt
from lwcore.sources.builtin import load_builtin
from lwcore.store import Store
from lwcore.workspaces import Owned, Workspaces, bundle, identify, is_token, new_token
from tests import kept, postgres


@pytest.fixture(scope="module")
def postgres_url():
    folder = postgres.programs()
    if folder is None:
        pytest.skip("no PostgreSQL server on this machine; apt-get install postgresql brings one")
    with postgres.server(folder) as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database(request):
    """The URL of an empty database."""
    if request.param == "sqlite":
        return ""
    url = request.getfixturevalue("postgres_url")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return url


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def made(store, tmp_path, database):
    found = Workspaces(store, kept.settings(tmp_path, database=database))
    yield found
    found.close()


def begun(made, person=""):
    workspace = identify(new_token())
    made.create(workspace, person)
    return workspace


def test_a_token_is_unguessable_and_its_name_is_no_token():
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(map(is_token, tokens))
    assert not any(is_token(wrong) for wrong in (identify("x"), "", None, "a" * 21, "../" + "a" * 19, 7))


def test_attempts_come_back_as_they_went_in_after_a_restart(made, store, tmp_path, database):
    workspace = begun(made)
    for seed in (5, 3, 9):
        assert made.add(workspace, kept.attempt(seed), known=0)[-1].recipe.seed == seed
    made.put_state(workspace, {"choices": "1", "jobs": "2"})
    made.put_state(workspace, {"choices": "3"})
    made.close()
    again = Workspaces(store, kept.settings(tmp_path, database=database))
    wanted = tuple(dataclasses.replace(kept.attempt(seed), number=i) for i, seed in enumerate((5, 3, 9)))
    assert again.attempts(workspace) == wanted
    assert again.state(workspace) == {"choices": "3", "jobs": "2"}
    again.close()


def test_the_same_attempt_is_there_once_and_the_others_are_told(made):
    workspace = begun(made)
    made.add(workspace, kept.attempt(1))
    assert [a.recipe.seed for a in made.add(workspace, kept.attempt(2), known=0)] == [1, 2]
    assert [a.recipe.seed for a in made.add(workspace, kept.attempt(1), known=1)] == [2]
    assert len(made.attempts(workspace)) == 2


def test_many_threads_number_attempts_without_a_gap(made):
    workspace = begun(made)

    def add(first):
        for seed in range(first, first + 5):
            made.add(workspace, kept.attempt(seed))

    threads = [threading.Thread(target=add, args=(100 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [a.number for a in made.attempts(workspace)] == list(range(20))


def test_a_workspace_opens_for_its_person_only(made):
    mine = begun(made, "ada")
    made.create(mine, "bob")  # nothing happens to one that is there
    assert made.find(mine, "ada") == ""
    assert made.find(mine, "bob") is None
    assert made.find(mine) is None
    assert made.find(identify(new_token())) is None
    with pytest.raises(WorkspaceError, match="not here"):
        made.add(identify(new_token()), kept.attempt(1))


def test_what_a_workspace_owns_is_pinned_until_it_lets_go(made, store):
    first, second = begun(made), begun(made)
    key = store.put_model(kept.model("m"))
    file = Owned(kind="model", key=key, about={"name": "m"})
    for workspace in (first, second):
        made.own(workspace, file)
    assert made.owned(first)[0].name == "m"
    assert made.owned(first)[0].size_bytes == store.size_bytes("models", key)
    made.disown(first, "model", key)
    assert store._pinned() == {key}
    assert made.owned(first) == ()
    made.disown(second, "model", key)
    assert store._pinned() == set()
    with pytest.raises(WorkspaceError, match="Upload it again"):
        made.own(first, Owned(kind="model", key="0" * 64))
    assert store._pinned() == set()


def test_a_full_workspace_and_a_full_server_are_sentences(store, tmp_path, database):
    small = kept.settings(tmp_path, database=database, person_mb=1, kept_mb=2, attempts=2)
    made = Workspaces(store, small)
    keys = [store.put_model(Model(data=bytes([i]) * 700_000, card=Card(name=str(i)))) for i in range(4)]
    people = [begun(made) for _ in range(3)]
    for person, key in zip(people, keys, strict=False):
        if key == keys[2]:
            with pytest.raises(WorkspaceError, match="all people together"):
                made.own(person, Owned(kind="model", key=key))
        else:
            made.own(person, Owned(kind="model", key=key))
    with pytest.raises(WorkspaceError, match="Remove one under Take home"):
        made.own(people[0], Owned(kind="model", key=keys[3]))
    made.own(people[1], Owned(kind="model", key=keys[1], model="again"))  # what is there needs no room
    with pytest.raises(WorkspaceError, match="Remove one"):
        made.check_room(people[0], 500_000)
    made.add(people[0], kept.attempt(1))
    made.add(people[0], kept.attempt(2))
    with pytest.raises(WorkspaceError, match="at most 2 attempts"):
        made.add(people[0], kept.attempt(3))
    made.close()


def test_a_person_who_logs_in_has_one_quota_for_all_workspaces(store, tmp_path, database):
    made = Workspaces(store, kept.settings(tmp_path, database=database, person_mb=1))
    keys = [store.put_model(Model(data=bytes([i]) * 700_000)) for i in range(2)]
    first, second = begun(made, "ada"), begun(made, "ada")
    made.own(first, Owned(kind="model", key=keys[0]))
    with pytest.raises(WorkspaceError, match="Remove one"):
        made.own(second, Owned(kind="model", key=keys[1]))
    made.own(second, Owned(kind="model", key=keys[0]))
    made.close()


def test_pins_follow_the_database_when_a_server_starts(made, store):
    workspace, key = begun(made), store.put_model(kept.model("m"))
    made.own(workspace, Owned(kind="model", key=key))
    store.unpin(key)
    made.pin_all()
    assert store._pinned() == {key}


def test_a_database_that_cannot_be_opened_is_a_sentence_without_its_password(store, tmp_path):
    for url in (
        "nonsense",
        "mysterydb://u:hidden@h/d",
        "postgresql+psycopg://u:hidden@127.0.0.1:1/d?connect_timeout=2",
    ):
        with pytest.raises(WorkspaceError, match="SLIMLAB_DATABASE") as caught:
            Workspaces(store, kept.settings(tmp_path, database=url))
        assert "hidden" not in str(caught.value)


def test_an_attempt_survives_json_and_strange_json_is_an_error():
    found = kept.attempt(3)
    data = json.loads(json.dumps(found.to_json()))
    assert Attempt.from_json(data) == found
    for name in data:
        if name not in ("seconds", "notes", "causes"):
            with pytest.raises(LwcoreError):
                Attempt.from_json({k: v for k, v in data.items() if k != name})
    check_fields(found.evaluation)
    for wrong in ({"n": "10"}, {"top1": float("nan")}, {"notes": (1,)}, {"per_class": ("x",)}, {"threads": True}):
        with pytest.raises(EvaluationError, match=next(iter(wrong))):
            check_fields(dataclasses.replace(found.evaluation, **wrong))


# -- one file --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("from"))
    model = store.put_model(load_builtin("fashion-squeezenet"))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), dtype=np.uint8)
    samples = store.put_samples(
        SampleSet(name="four", arrays={"pixels": pixels}, labels=np.arange(4), names=("a",) * 4)
    )
    files = [
        Owned(kind="model", key=model, size_bytes=1, about={"name": "x"}),
        Owned(kind="samples", key=samples, model=model, size_bytes=1, about={"name": "four"}),
    ]
    return bundle.write(store, files, [kept.attempt(1, model, samples)], {"model": model, "way": "hand"})


def changed(data, name, body=None, **how):
    """The archive with one member replaced, left out (None), or added."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for info in old.infolist():
            if info.filename != name:
                new.writestr(info, old.read(info))
        if body is not None:
            new.writestr(name, body, **how)
    return buffer.getvalue()


def member(data, name):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return json.loads(archive.read(name))


def read(data, tmp_path):
    return bundle.read(data, Store(tmp_path), lambda *_: None)


def test_an_export_is_the_same_bytes_and_is_read_back(exported, tmp_path):
    found = read(exported, tmp_path)
    model, samples = (file["key"] for file in found["files"])
    assert [file["kind"] for file in found["files"]] == ["model", "samples"]
    assert found["choices"] == {"model": model, "way": "hand"}
    assert Attempt.from_json(found["attempts"][0]) == kept.attempt(1, model, samples)
    assert Store(tmp_path).samples(samples).names == ("a",) * 4


def test_an_import_trusts_nothing(exported, tmp_path):
    """Each change to the file is refused in one sentence, before anything of it is kept."""
    head = member(exported, "manifest.json")
    path = f"models/{head['files'][0]['key']}"
    attempts = member(exported, "attempts.json")
    evil = {**attempts[0], "evaluation": {**attempts[0]["evaluation"], "top1": "<b>"}}
    for data, words in (
        (b"no zip", "no whole zip"),
        (exported[:-30], "no whole zip|no 'manifest"),  # a sample set is a zip, too
        (changed(exported, "manifest.json"), "no 'manifest.json'"),
        (changed(exported, "manifest.json", "{"), "other than JSON"),
        (changed(exported, "manifest.json", "[]"), "manifest"),
        (changed(exported, "manifest.json", json.dumps({**head, "version": 9})), "manifest"),
        (changed(exported, "manifest.json", json.dumps({**head, "files": [{"kind": "model", "key": "../x"}]})), "list"),
        (changed(exported, "../../evil", b"x"), "not in its manifest"),
        (changed(exported, path, b"other"), "digest"),
        (changed(exported, path), "no 'models"),
        (changed(exported, "attempts.json", b"0" * 65_000_000, compress_type=zipfile.ZIP_DEFLATED), "more than 64 MB"),
        (changed(exported, "attempts.json", json.dumps([evil])), "top1"),
        (changed(exported, "attempts.json", "[" * 100_000), "zip|JSON"),
    ):
        with pytest.raises(WorkspaceError, match=words):
            read(data, tmp_path)


def test_a_model_inside_passes_the_checks_of_an_upload(tmp_path):
    store = Store(tmp_path / "from")
    key = store.put_model(Model(data=b"\x80\x04\x95 a pickle", card=Card(name="evil")))
    data = bundle.write(store, [Owned(kind="model", key=key, about={"name": "evil"})], [], {})
    with pytest.raises(LwcoreError, match="Expected an ONNX file"):
        read(data, tmp_path / "to")
    assert not list((tmp_path / "to").glob("store/models/*/*"))


@given(st.binary(max_size=300), st.integers(0, 3000))
def test_flipped_bytes_are_an_error_in_words(exported, tmp_path_factory, noise, place):
    data = bytearray(exported[:20_000])
    data[place : place + len(noise)] = noise
    with pytest.raises(LwcoreError):
        read(bytes(data), tmp_path_factory.getbasetemp() / "flipped")
