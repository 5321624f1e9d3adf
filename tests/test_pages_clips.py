"""Clips brought through the page: a single one, and a zip of class folders, read by the worker's own task."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

import lwcore
from lwcore.jobs.tasks import run_task
from lwcore.progress import silent
from lwcore.store import Store
from pages.ui import service
from tests.clips import encoded
from tests.test_pages import InstantJobs, opened

MODEL = "motion-mc3"


class ClipJobs(InstantJobs):
    """Reads uploads as a worker does."""

    def ingest_samples(self, **arguments: str) -> dict:
        return run_task("ingest_samples", arguments, service.store(), silent)


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ClipJobs:
    service.workspaces()  # remembered with the server's own store, which later tests use
    made, store = ClipJobs(), Store(tmp_path)
    monkeypatch.setattr(service, "jobs", lambda: made)
    monkeypatch.setattr(service, "store", lambda: store)
    return made


def folders() -> bytes:
    """Two clips, each in the folder of its class, and one that is none."""
    buffer, classes = io.BytesIO(), lwcore.gallery()[MODEL].classes
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"mine/{classes[0]}/a.mp4", encoded(8))
        archive.writestr(f"mine/{classes[1]}/b.gif", encoded(8, "gif", "gif"))
        archive.writestr(f"mine/{classes[1]}/c.mp4", b"no clip")
    return buffer.getvalue()


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(
    ("name", "data", "n", "labelled"), [("a.mp4", encoded(8), 1, False), ("mine.zip", folders(), 2, True)]
)
def test_clips_are_read_and_chosen_to_measure_on(
    jobs: ClipJobs, language: str, name: str, data: bytes, n: int, labelled: bool
) -> None:
    """The set is the chosen one at once; what could not be read is said."""
    app = opened(language, model=MODEL)
    app.file_uploader[-1].set_value((name, data, "application/octet-stream")).run()
    app.run()
    assert not app.exception
    assert not app.error
    own = app.session_state["slimlab"].own[MODEL][0]
    assert (own.n, own.labelled, own.name) == (n, labelled, name)
    assert app.selectbox(key="sample-choice").value == own.ref
    assert any("c.mp4" in note for note in own.notes) == (name == "mine.zip")
    clip = service.store().samples(own.ref).pixels
    assert clip.shape[0] == n
