"""Text models by OWNER/NAME: repositories as `transformers` itself writes them, from a stand-in to a slimmed file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from tokenizers import Tokenizer

import lwcore
from lwcore.settings import SETTINGS
from lwcore.sources.hub import cache, fetch, places
from tests.standin import StandIn, serving
from tests.texts import VOCABULARY, configuration, texts

FACTORIES = {
    "bert": "BertForSequenceClassification",
    "distilbert": "DistilBertForSequenceClassification",
    "electra": "ElectraForSequenceClassification",
    "mobilebert": "MobileBertForSequenceClassification",
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in for Hugging Face, and an empty cache."""
    for module in (cache, fetch, places):
        monkeypatch.setattr(module, "SETTINGS", dataclasses.replace(SETTINGS, home=str(tmp_path)), raising=False)
    with serving() as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        yield made


def published(kind: str, folder: Path) -> torch.nn.Module:
    """A small classifier with its tokenizer, saved as people save theirs."""
    names = dict(enumerate(("ham", "spam")))
    config = transformers.AutoConfig.for_model(kind, **configuration(kind).settings, id2label=names)
    torch.manual_seed(0)
    network = getattr(transformers, FACTORIES[kind])(config).eval()
    network.save_pretrained(folder)
    vocabulary = {word: i for i, word in enumerate(VOCABULARY)}
    transformers.BertTokenizerFast(vocab=vocabulary).save_pretrained(folder)
    return network


@pytest.mark.parametrize("kind", FACTORIES)
def test_a_published_classifier_is_fetched_slimmed_and_runs_with_its_tokenizer(
    kind: str, hub: StandIn, tmp_path: Path
) -> None:
    """The answers before are those of `transformers`; afterwards file and tokenizer are all that is needed."""
    folder = tmp_path / "repository"
    network = published(kind, folder)
    hub.files = {f"/somebody/{kind}/resolve/main/{path.name}": path.read_bytes() for path in folder.iterdir()}
    model, samples = lwcore.load(f"huggingface:somebody/{kind}"), texts(24)
    assert model.card.classes == ("ham", "spam")
    told = transformers.BertTokenizerFast.from_pretrained(folder)(["meet me at noon"], return_tensors="pt")
    names = {i.name for i in onnxruntime.InferenceSession(model.data).get_inputs()}
    with torch.no_grad():
        wanted = network(**{name: tensor for name, tensor in told.items() if name in names}).logits.numpy()
    np.testing.assert_allclose(_asked(model.data, model.files["tokenizer.json"]), wanted, atol=1e-4)
    slim = lwcore.apply(model, lwcore.Recipe(steps=(lwcore.Channels(amount=0.25),)), samples=samples)
    assert slim.after.params < slim.before.params
    assert _asked(slim.model.data, slim.model.files["tokenizer.json"]).shape == (1, 2)


def _asked(data: bytes, tokenizer: bytes) -> np.ndarray:
    """A text through a downloaded file and the tokenizer beside it, and nothing of ours."""
    runner, found = onnxruntime.InferenceSession(data), Tokenizer.from_buffer(tokenizer).encode("meet me at noon")
    ids = {"input_ids": found.ids, "attention_mask": found.attention_mask, "token_type_ids": found.type_ids}
    return np.asarray(runner.run(None, {i.name: np.array([ids[i.name]], np.int64) for i in runner.get_inputs()})[0])
