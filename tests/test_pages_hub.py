"""Start: the list of hub models and the question for an architecture, by AppTest."""

from __future__ import annotations

import io

import pytest
import torch
from streamlit.testing.v1 import AppTest

from lwcore.model import Model
from pages.ui import service
from tests.test_pages import InstantJobs, opened
from tests.tiny import tiny_model


class HubJobs(InstantJobs):
    """Brings a tiny model, whatever was asked for."""

    def load(self, ref: str) -> dict:
        return self._brought(tiny_model())

    def decode(self, upload: str) -> dict:
        return {"decoded": upload, "encoder": False}

    def protections(self, server: str) -> dict:
        return {
            "memory_mb": 2048,
            "file_mb": None,
            "files": 256,
            "processor_seconds": 120,
            "network": False,
            "programs": True,
            "signals": True,
            "elsewhere": True,
            "rights": True,
            "user": False,
        }

    def build(self, decoded: str, name: str, architecture: str) -> dict:
        model = tiny_model()
        return self._brought(Model(data=model.data, card=model.card, notes=(f"{name} as {architecture}",)))

    def _brought(self, model: Model) -> dict:
        return {"model": service.store().put_model(model), "card": model.card.to_json(), "notes": list(model.notes)}


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> HubJobs:
    made = HubJobs()
    monkeypatch.setattr(service, "jobs", lambda: made)
    return made


def start(language: str) -> AppTest:
    app = opened(language, model="")
    app.session_state["hub"] = True
    return app.run()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_words_narrow_the_list_and_a_name_is_brought(jobs: HubJobs, language: str) -> None:
    """The table has what the words find; OWNER/NAME goes to Hugging Face; the model that comes is opened."""
    app = start(language)
    assert len(app.dataframe[0].value) > 90
    app.text_input(key="hub-words").set_value("torchvision resnet18").run()
    assert app.dataframe[0].value["params"].tolist() == [11_689_512]
    app.text_input(key="hub-words").set_value("somebody/their-model").run()
    assert not app.dataframe
    app.button(key="hub-open").click().run()
    assert not app.exception
    assert ("load", {"ref": "huggingface:somebody/their-model"}) in jobs.asked
    assert app.session_state["slimlab"].model in app.session_state["slimlab"].uploads


def test_a_refused_download_is_one_sentence(jobs: HubJobs) -> None:
    """It stands on the page, and another try is one click."""
    app = start("en")
    jobs.refuse = "The download of the weights of x failed."
    app.text_input(key="hub-words").set_value("a/b").run()
    app.button(key="hub-open").click().run()
    assert any("download" in e.value for e in app.error)
    assert app.button(key="hub-open")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_weights_are_asked_for_their_architecture(jobs: HubJobs, language: str) -> None:
    """A state dict is known by its content; once fitted, the model is described like any upload."""
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer)
    app = opened(language, model="")
    app.file_uploader[0].set_value(("mine.bin", buffer.getvalue(), "application/octet-stream")).run()
    app.selectbox(key="weights-architecture").set_value("torchvision:resnet18").run()
    app.button(key="weights-fit").click().run()
    assert not app.exception
    task, arguments = jobs.asked[-1]
    assert (task, arguments["architecture"], arguments["name"]) == (
        "build",
        "torchvision:resnet18",
        "mine.bin",
    )
    assert app.session_state["slimlab"].draft
    assert app.session_state["slimlab"].weights is None


@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_protects_the_server_is_told_as_a_worker_found_it(jobs: HubJobs, language: str) -> None:
    """What holds has a tick and its number, what does not has a warning; nothing is asked before the fold is opened."""
    app = opened(language, model="")
    assert not jobs.asked
    app.session_state["safety"] = True
    app.run()
    app.run()
    assert not app.exception
    assert [task for task, _ in jobs.asked] == ["protections"]
    told = next(m.value for m in app.markdown if ":material/shield" not in m.value and "2,048 MB" in m.value)
    lines = told.split("  \n")
    assert [":material/warning:" in line for line in lines] == [line in (2, 4, 9) for line in range(10)]
    assert any("20,000" in caption.value for caption in app.caption)
