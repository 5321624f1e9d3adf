"""Hostile files: each is refused with a plain sentence, quickly, and nothing in them runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lwcore.domains import domain
from lwcore.errors import LwcoreError, ModelError
from lwcore.jobs.pool import Jobs
from lwcore.model import Model
from lwcore.progress import silent
from lwcore.settings import Settings
from lwcore.sources.upload import read_upload
from lwcore.sources.weights import is_weights, read_weights
from tests.hostile.files import MARK, MODELS, NAMED, PICTURES
from tests.hostile.fuzz import Tally, run
from tests.tiny import tiny_model


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """A payload would leave a file behind."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path(MARK).exists()


def taken(data: bytes, name: str) -> object:
    """What the upload box does with a file: weights are told by content, everything else is read as a model."""
    return read_weights(data) if is_weights(data) else read_upload(data, name)


@pytest.mark.parametrize("name", MODELS)
def test_every_hostile_model_is_refused_in_words(name: str) -> None:
    """One sentence that says what was expected; no file takes ten seconds of the processor."""
    data, began = MODELS[name](), time.process_time()
    with pytest.raises(ModelError) as caught:
        taken(data, name)
    assert time.process_time() - began < 10
    assert len(str(caught.value)) < 700
    assert str(caught.value).rstrip().endswith((".", ").", '"))'))


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_no_link_is_followed_to_data_outside(link: Callable[[str, str], None]) -> None:
    """Weights "beside" the model, which are a link to something else (onnxruntime once followed a hard link)."""
    Path("secret").write_bytes(bytes(48))
    link("secret", "weights.bin")
    with pytest.raises(ModelError, match="points to another file"):
        read_upload(MODELS["external-beside.onnx"](), "model.onnx")


@pytest.mark.parametrize("name", NAMED)
def test_names_inside_a_file_do_no_harm(name: str) -> None:
    """Such a file is read; its names are text."""
    assert isinstance(read_upload(NAMED[name](), name), Model)


@pytest.mark.parametrize("name", PICTURES)
def test_every_hostile_archive_is_refused_in_words(name: str) -> None:
    """Nothing of them is written anywhere."""
    model = tiny_model()
    with pytest.raises(LwcoreError):
        domain(model).read(PICTURES[name](), model, name, silent)
    assert not list(Path.cwd().iterdir())


@pytest.mark.slow
def test_in_a_worker_they_fail_as_jobs_and_the_next_job_runs(tmp_path: Path) -> None:
    """Whatever a file does to its process, the answer is a sentence, and others go on."""
    jobs = Jobs(Settings(home=str(tmp_path), parse_seconds=30))
    try:
        wanted = ("payload-renamed.onnx", "bomb-loop.onnx", "deep.onnx", "nodes-100000.onnx", "not-utf8.onnx")
        asked = {
            name: jobs.submit("ingest", {"upload": jobs.store.put_upload(MODELS[name]()), "name": name})
            for name in wanted
        }
        for name, job in asked.items():
            status = jobs.wait(job, 120)
            assert status.state == "failed", name
            assert status.error, name
        good = {"upload": jobs.store.put_upload(tiny_model().data), "name": "good.onnx"}
        assert jobs.wait(jobs.submit("ingest", good), 120).state == "done"
    finally:
        jobs.close()


def test_mutated_files_are_read_or_refused() -> None:
    """A short run of the fuzzer: nothing but models and sentences comes out."""
    tally = run(inputs=250, seed=1)
    assert isinstance(tally, Tally)
    assert tally.total == 250
    assert tally.surprises == ()
    assert tally.refused > 60
