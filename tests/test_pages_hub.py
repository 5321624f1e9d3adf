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

    def ingest_weights(self, upload: str, name: str, architecture: str) -> dict:
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
        "ingest_weights",
        "torchvision:resnet18",
        "mine.bin",
    )
    assert app.session_state["slimlab"].draft
    assert app.session_state["slimlab"].weights is None
