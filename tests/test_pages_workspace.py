"""A workspace on the pages: found again by its link, nobody else's, exported, shared, behind a door where one is."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from lwcore.jobs.table import UNKNOWN, JobStatus
from lwcore.jobs.tasks import run_task
from lwcore.model import Card, Model
from lwcore.recipe import Channels, Recipe
from lwcore.samples import SampleSet
from lwcore.settings import SETTINGS
from lwcore.sources.builtin import load_builtin
from lwcore.store import Store
from lwcore.workspaces import Owned, identify, new_token
from pages.ui import service
from pages.ui.workspaces import door, keeping, links, saved
from tests.test_pages import MAIN, MODEL, InstantJobs, at, opened

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    """What the server does before its first visitor, so that no run has to wait for it."""
    for ref in service.gallery():
        service.outline(ref)


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> InstantJobs:
    made = InstantJobs()
    monkeypatch.setattr(service, "jobs", lambda: made)
    return made


def token(app: AppTest) -> str:
    """The workspace in the URL."""
    found = app.query_params["w"]
    return found[0] if isinstance(found, list) else found


def reopened(app: AppTest) -> AppTest:
    """F5, or the bookmark: a new session that knows only the workspace's link."""
    again = AppTest.from_file(MAIN, default_timeout=60)
    again.query_params["w"] = token(app)
    return again.run()


def state(app: AppTest):
    return app.session_state["slimlab"]


def slimmed(amount: int = 30) -> AppTest:
    app = at(opened(), "slim")
    app.slider(key="channels-amount").set_value(amount).run()
    return app.run()


def test_a_visitor_who_only_looks_leaves_nothing(jobs: InstantJobs) -> None:
    """No workspace and no link to one before there is something to keep."""
    app = at(opened(), "layers")
    assert "w" not in app.query_params
    assert service.workspaces().find(state(app).owner) is None


def test_everything_is_found_again_by_the_link(jobs: InstantJobs) -> None:
    """Sliders, attempts, samples, goal and way are those of before, with the numbers that they had."""
    app = slimmed()
    app.segmented_control(key="slim-way").set_value("find").run()
    app.number_input(key="goal-drop").set_value(2.5).run()
    again = at(reopened(app), "slim")
    assert not again.exception
    for name in ("model", "recipe", "methods", "seed", "way", "goal", "samples", "log", "owner"):
        assert getattr(state(again), name) == getattr(state(app), name), name
    assert len(state(again).log.attempts) == 2
    again.segmented_control(key="slim-way").set_value("hand").run()
    assert again.slider(key="channels-amount").value == 30


def test_a_search_is_found_again_and_begun_only_once(jobs: InstantJobs) -> None:
    """The panel of a search that ended stands there after a reload; the workers are not asked again."""
    app = at(opened(), "slim")
    app.segmented_control(key="slim-way").set_value("find").run()
    app.button(key="find").click().run()
    app.run()
    again = at(reopened(app), "slim")
    assert not again.exception
    assert any("Not within reach" in m.value for m in again.markdown)
    assert [task for task, _ in jobs.asked].count("search") == 1


def test_a_job_that_the_server_forgot_is_asked_for_again(jobs: InstantJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart the workers know no jobs: what ran goes on by itself, as the same work."""
    monkeypatch.setattr(jobs, "status", lambda job, owner="": JobStatus(job_id=job, task="measure", state="running"))
    app = slimmed(60)
    assert state(app).measuring is not None
    monkeypatch.undo()
    monkeypatch.setattr(service, "jobs", lambda: jobs)
    lost = state(app).measuring.job
    known = InstantJobs.status
    forgotten = JobStatus(job_id=lost, task="", state="failed", error_kind=UNKNOWN, error="not known")
    monkeypatch.setattr(jobs, "status", lambda job, owner="": forgotten if job == lost else known(jobs, job))
    again = at(reopened(app), "slim")
    assert not again.exception
    assert state(again).measuring is None
    assert state(again).log.attempts[-1].recipe.steps[0].amount == 0.6


def test_two_tabs_of_one_workspace_keep_both_attempts(jobs: InstantJobs) -> None:
    """Numbers are given by the database: what one tab adds is there for the other with its next attempt."""
    one = slimmed(30)
    two = at(reopened(one), "slim")
    one.slider(key="channels-amount").set_value(50).run()
    one.run()
    two.slider(key="channels-amount").set_value(60).run()
    two.run()
    amounts = [a.recipe.steps[0].amount if a.recipe.steps else 0 for a in state(two).log.attempts]
    assert amounts == [0, 0.3, 0.5, 0.6]
    assert [a.number for a in state(two).log.attempts] == [0, 1, 2, 3]


@pytest.mark.parametrize("forged", ["x", "../../etc", "A" * 22, "A" * 5000, "0" * 64])
def test_a_forged_workspace_opens_nothing(jobs: InstantJobs, forged: str) -> None:
    """Neither a guess nor the name that the database has for a workspace is its token."""
    app = slimmed()
    for guess in (forged, state(app).owner):
        stranger = AppTest.from_file(MAIN, default_timeout=60)
        stranger.query_params["w"] = guess
        stranger.run()
        assert not stranger.exception
        assert stranger.toast
        assert "w" not in stranger.query_params
        assert not state(stranger).log.attempts
        assert state(stranger).owner != state(app).owner


def test_a_share_link_shows_the_same_numbers_and_no_workspace(jobs: InstantJobs) -> None:
    """Whoever opens it measures the same recipe and reads that the numbers are those of the link."""
    app = at(slimmed(), "take_home")
    address = next(c.value for c in app.code if "figures=" in c.value)
    query = {key: values[0] for key, values in parse_qs(urlsplit(address).query).items()}
    assert query.keys() == {"model", "samples", "recipe", "figures"}
    assert token(app) not in address
    visitor = AppTest.from_file(MAIN, default_timeout=60)
    for key, value in query.items():
        visitor.query_params[key] = value
    visitor = at(visitor.run(), "slim")
    visitor.run()
    assert not visitor.exception
    assert any("same byte for byte" in m.value for m in visitor.markdown)
    promised = links.unpack(query["figures"])
    visitor = AppTest.from_file(MAIN, default_timeout=60)
    for key, value in {**query, "figures": links.pack({**promised, "top1": 0.5, "x": "<b>"})}.items():
        visitor.query_params[key] = value
    visitor = at(visitor.run(), "slim")
    visitor.run()
    assert not visitor.exception
    table = next(d.value for d in visitor.dataframe if "then" in d.value.columns)
    assert table.to_dict("records") == [{"what": "Accuracy (top-1)", "then": "50.0 %", "now": "90.0 %"}]


@pytest.mark.parametrize("text", ["", "x", "====", links.pack([1]), links.pack({"top1": "9" * 99, "file": {}})])
def test_a_damaged_share_link_does_no_harm(jobs: InstantJobs, text: str) -> None:
    """Figures that are none are left out or said."""
    app = AppTest.from_file(MAIN, default_timeout=60)
    app.query_params["model"], app.query_params["figures"], app.query_params["samples"] = MODEL, text, "f" * 64
    app = at(app.run(), "slim")
    app.run()
    assert not app.exception


def own_model() -> tuple[str, SampleSet]:
    original = load_builtin(MODEL)
    ref = service.store().put_model(dataclasses.replace(original, card=dataclasses.replace(original.card, name="Mine")))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 28, 28, 1), dtype=np.uint8)
    return ref, SampleSet(name="eight", arrays={"pixels": pixels}, labels=np.arange(8) % 2, names=tuple("abcdefgh"))


def test_an_exported_workspace_comes_back_whole(jobs: InstantJobs, tmp_path: Path) -> None:
    """Export → import into an empty place: same attempts, same uploads by digest, same sliders."""
    ref, samples = own_model()
    app = at(opened(model=ref), "slim")
    key = service.store().put_samples(samples)
    about = {"name": "eight", "n": 8, "labelled": True, "notes": []}
    owner = state(app).owner
    app.slider(key="channels-amount").set_value(40).run()
    app.run()
    service.workspaces().own(owner, Owned(kind="samples", key=key, model=ref, about=about))
    again = at(reopened(app), "take_home")
    assert not again.exception
    assert [own.ref for own in state(again).own[ref]] == [key]
    from lwcore.workspaces import bundle

    data = bundle.write(
        service.store(), service.workspaces().owned(owner), state(again).log.attempts, saved.choices(state(again))
    )
    elsewhere = Store(tmp_path)
    arguments = {"upload": elsewhere.put_upload(data)}
    found = json.loads(json.dumps(run_task("import_workspace", arguments, elsewhere, lambda *_: None)))
    assert {(f["kind"], f["key"], f["model"]) for f in found["files"]} == {("model", ref, ""), ("samples", key, ref)}
    assert elsewhere.samples(key).fingerprint == samples.fingerprint
    assert elsewhere.model(ref) == service.store().model(ref)
    fields = saved.read_choices(found["choices"])
    assert fields["recipe"] == Recipe(steps=(Channels(amount=0.4),))
    assert fields["model"] == ref
    given = [{**a.to_json(), "number": 0} for a in state(again).log.attempts]
    assert found["attempts"] == json.loads(json.dumps(given))


def test_an_import_adds_to_the_workspace(jobs: InstantJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was imported stands beside what was there, is kept, and its settings are taken over."""
    donor = slimmed(50)
    found = {
        "files": [],
        "attempts": [a.to_json() for a in state(donor).log.attempts],
        "choices": saved.choices(state(donor)),
    }
    monkeypatch.setattr(InstantJobs, "import_workspace", lambda self, upload: found, raising=False)
    app = at(slimmed(30), "take_home")
    app.file_uploader(key=f"workspace-{state(app).drops}").upload("w.zip", b"PK", "application/zip").run()
    assert not app.exception
    amounts = [a.recipe.steps[0].amount for a in state(app).log.attempts if a.recipe.steps]
    assert amounts == [0.3, 0.5]
    assert state(app).recipe == Recipe(steps=(Channels(amount=0.5),))
    assert any("Imported: 2 attempts" in message.value for message in app.success)
    assert len(state(reopened(app)).log.attempts) == 3


def test_a_file_that_was_swept_away_is_made_again(jobs: InstantJobs) -> None:
    """Take home asks for the same recipe once more and offers the same bytes."""
    app = slimmed()
    known = state(app).log.attempts[-1]
    gone = dataclasses.replace(known, slimmed="0" * 64)
    log = dataclasses.replace(state(app).log, attempts=(*state(app).log.attempts[:-1], gone))
    app.session_state["slimlab"] = dataclasses.replace(state(app), log=log)
    asked = len(jobs.asked)
    app = at(app, "take_home")
    assert not app.exception
    assert [task for task, _ in jobs.asked[asked:]].count("measure") == 1
    assert any("another one" in e.value for e in app.error)  # these made-up jobs give another fingerprint


def test_a_full_workspace_says_so_and_removing_makes_room(jobs: InstantJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence with the figures and the way on."""
    ref, _ = own_model()
    small = dataclasses.replace(SETTINGS, person_mb=1)
    monkeypatch.setattr(service.workspaces(), "_settings", small)
    app = at(opened(model=ref), "slim")
    assert not app.toast or "may take" not in app.toast[0].value
    other = service.store().put_model(Model(data=b"x" * 900_000, card=Card(name="Large")))
    s = state(app)
    app.session_state["slimlab"] = dataclasses.replace(s, uploads={**s.uploads, other: "Large"})
    app.run()
    assert not app.exception
    assert any("Remove one under Take home" in toast.value.replace("\\", "") for toast in app.toast)
    app = at(app, "take_home")
    assert app.selectbox(key="workspace-upload").options
    app.button(key="workspace-remove").click().run()
    assert not app.exception
    assert service.workspaces().owned(s.owner) == ()


def test_the_door_asks_for_the_code_before_anything_else(jobs: InstantJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong code is told, the right one opens, and a workspace begun with it opens without asking again."""
    monkeypatch.setattr(door, "code", lambda: "läb 7")
    guesses = door.Guesses()
    monkeypatch.setattr(door, "guesses", lambda: guesses)
    app = opened()
    assert not app.exception
    assert [w.key for w in app.text_input] == ["door-code"]
    assert not app.selectbox
    app.text_input(key="door-code").input("lab 7")
    app.button(key="door-enter").click().run()
    assert "code of this class" in app.error[0].value
    app.text_input(key="door-code").input("läb 7")
    app.button(key="door-enter").click().run()
    assert not app.exception
    app = at(app, "slim")
    app.slider(key="channels-amount").set_value(30).run()
    app.run()
    assert not reopened(app).text_input
    monkeypatch.setattr(door, "code", lambda: "another")
    assert [w.key for w in reopened(app).text_input] == ["door-code"]


def test_too_many_wrong_codes_make_everybody_wait() -> None:
    """Ten in a minute, whoever typed them; after a minute one may try again."""
    guesses = door.Guesses()
    for second in range(10):
        assert guesses.may_try(second)
        guesses.wrong(second)
    assert not guesses.may_try(10)
    assert not guesses.may_try(60)
    assert guesses.may_try(60.1)


def test_a_login_binds_a_workspace_to_its_person(jobs: InstantJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a login provider nobody comes in unknown, and a link alone does not open somebody's workspace."""
    monkeypatch.setattr(door, "get_secrets_auth_section", lambda: {"client_id": "x"})
    assert [b.key for b in opened().button] == ["door-login"]
    link = new_token()
    monkeypatch.setattr(keeping.who, "person", lambda: "ada")
    service.workspaces().create(identify(link), "ada")
    monkeypatch.setattr(door, "needs_login", lambda: False)
    for person, found in (("ada", True), ("bob", False)):
        monkeypatch.setattr(keeping.who, "person", lambda person=person: person)
        app = AppTest.from_file(MAIN, default_timeout=60)
        app.query_params["w"] = link
        app.run()
        assert not app.exception
        assert (state(app).owner == identify(link)) == found
