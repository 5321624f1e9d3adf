"""A text classifier small enough for tests: its tokenizer, its network, and texts that it can be asked about."""

from __future__ import annotations

import json
from functools import lru_cache

import numpy as np

from lwcore.model import Card, Model, TextSpec
from lwcore.samples import SampleSet
from lwcore.samples.texts import read_texts
from lwcore.samples.tokens import TOKENIZER
from lwcore.sources.text.structures import Configuration

WORDS = [
    "hello",
    "friend",
    "buy",
    "now",
    "cheap",
    "offer",
    "meet",
    "me",
    "at",
    "noon",
    "free",
    "money",
    "report",
    "due",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [mark + letter for letter in "abcdefghijklmnopqrstuvwxyz" for mark in ("", "##")]
VOCABULARY = [*SPECIAL, *LETTERS, *WORDS]
LENGTH = 16
SETTINGS = {
    "bert": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    },
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    "electra": {
        "embedding_size": 16,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    },
    "mobilebert": {
        "embedding_size": 16,
        "hidden_size": 48,
        "intra_bottleneck_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    },
}


def configuration(kind: str = "bert", classes: tuple[str, ...] = ("ham", "spam")) -> Configuration:
    """A small network of a kind."""
    shared = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 40}
    return Configuration(kind=kind, settings={**shared, **SETTINGS[kind]}, classes=classes)


def vocabulary_file() -> bytes:
    """`vocab.txt`."""
    return "\n".join(VOCABULARY).encode()


@lru_cache(maxsize=4)
def classifier(kind: str = "bert") -> Model:
    """A small classifier with loud random weights, so that its answers differ."""
    import torch

    from lwcore.samples.tokens import travelling
    from lwcore.sources.text.network import build, export

    network = build(configuration(kind))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8.0)
    card = Card(name="tiny", task="text-classification", input=TextSpec(length=LENGTH), classes=("ham", "spam"))
    files = travelling({"vocab.txt": vocabulary_file()})
    return Model(data=export(network, configuration(kind), LENGTH), card=card, files=files)


def texts(count: int = 48, seed: int = 0) -> SampleSet:
    """Labelled texts of random words."""
    rng = np.random.default_rng(seed)
    rows = [
        {"text": " ".join(rng.choice(WORDS[:12], rng.integers(3, 12))), "label": int(rng.integers(2))}
        for _ in range(count)
    ]
    return read_texts("\n".join(map(json.dumps, rows)).encode(), ("ham", "spam"), "Words")


__all__ = ["LENGTH", "TOKENIZER", "VOCABULARY", "WORDS", "classifier", "configuration", "texts", "vocabulary_file"]
