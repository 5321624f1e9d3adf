"""Weights of a text encoder without their configuration: fitted to a published structure, or told how they differ."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save

from lwcore.answers import feed
from lwcore.errors import ModelError
from lwcore.model import Model
from lwcore.runtime import session
from lwcore.samples.numbers import random_inputs
from lwcore.sources.state import load_state

NAME = "transformers:bert-tiny"  # two layers, 128 wide; its file decides the vocabulary


def network(factory: str, **settings: int) -> torch.nn.Module:
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
    config = transformers.BertConfig(**{**sizes, "vocab_size": 60, "max_position_embeddings": 40, **settings})
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    return getattr(transformers, factory)(config).eval()


def checkpoint(state: dict[str, torch.Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def same_answers(model: Model, wanted: torch.nn.Module) -> bool:
    """On random token ids."""
    batch = feed(model, random_inputs(model, 4), 0, 4)
    with torch.no_grad():
        said = wanted(**{name: torch.from_numpy(array) for name, array in batch.items()})[0].numpy()
    return np.allclose(session(model.data).run(None, batch)[0], said, atol=1e-5)


@pytest.mark.parametrize("renamed", [False, True], ids=["by name", "by order"])
@pytest.mark.parametrize(
    ("factory", "settings"), [("BertModel", {}), ("BertForSequenceClassification", {"num_labels": 3})]
)
def test_weights_fill_the_structure_with_their_own_vocabulary_and_classes(
    factory: str, settings: dict[str, int], renamed: bool
) -> None:
    """By name, else by order and shape; without a tokenizer the model is fed ids, and says so."""
    wanted = network(factory, **settings)
    state = {f"x{i}" if renamed else f"module.{n}": t for i, (n, t) in enumerate(wanted.state_dict().items())}
    model = load_state(checkpoint(state), "mine.pt", NAME)
    assert ("by order" if renamed else "by name") in model.notes[0]
    assert "tokenizer" in model.notes[-1]
    assert (model.card.name, model.card.task, model.files) == ("mine", "generic", {})
    assert same_answers(model, wanted)


def test_heads_of_other_tasks_are_left_over_and_named() -> None:
    """What was trained to fill gaps gives its encoder."""
    wanted = network("BertForPreTraining")
    state = {name: tensor.clone() for name, tensor in wanted.state_dict().items()}
    model = load_state(save(state), "mine.safetensors", NAME)
    assert any(note.startswith("Left over") and "cls.predictions" in note for note in model.notes)
    assert same_answers(model, wanted.bert)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_hidden_layers": 1}, r"16 missing \(encoder\.layer\.1\.attention\.self\.query\.weight"),
        ({"num_hidden_layers": 3}, r"16 unexpected \(encoder\.layer\.2\."),
        ({"intermediate_size": 256}, r"layer\.0\.intermediate\.dense\.weight: expected 512×128, found 256×128"),
    ],
)
def test_what_does_not_fit_is_told_tensor_by_tensor(settings: dict[str, int], words: str) -> None:
    """Missing, unexpected, of another shape."""
    with pytest.raises(ModelError, match=words):
        load_state(checkpoint(network("BertModel", **settings).state_dict()), "mine", NAME)


def test_an_unknown_structure_is_told_with_its_nearest_name() -> None:
    """As everywhere where a name is asked for."""
    with pytest.raises(ModelError, match="Did you mean bert-tiny"):
        load_state(checkpoint(network("BertModel").state_dict()), "mine", "transformers:bert-tinny")
