"""What is known of text encoders: the settings that make each kind, published sizes, and what a file may ask for."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lwcore.errors import ModelError
from lwcore.registry import Registry

Settings = Mapping[str, Any]

LONGEST = 512  # tokens that are fed at most; longer texts are cut off


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of encoder, as `transformers` has it.

    Attributes:
        prefix: what stands before the encoder's tensors in a file of a whole classifier.
        encoder, classifier: names of the classes.
        settings: fields of `config.json` that shape the network; all others are ignored.
        types: whether it reads `token_type_ids`.
    """

    prefix: str
    encoder: str
    classifier: str
    settings: frozenset[str]
    types: bool = True


_SHARED = frozenset({"vocab_size", "max_position_embeddings", "pad_token_id"})
_BERT = _SHARED | {
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "type_vocab_size",
    "layer_norm_eps",
}
_MOBILE = {
    "embedding_size",
    "intra_bottleneck_size",
    "use_bottleneck",
    "use_bottleneck_attention",
    "key_query_shared_bottleneck",
    "num_feedforward_networks",
    "normalization_type",
    "trigram_input",
    "classifier_activation",
}
KINDS: Registry[Kind] = Registry("kind of text encoder")
KINDS.add(
    "bert",
    Kind(prefix="bert.", encoder="BertModel", classifier="BertForSequenceClassification", settings=_BERT),
)
KINDS.add(
    "distilbert",
    Kind(
        prefix="distilbert.",
        encoder="DistilBertModel",
        classifier="DistilBertForSequenceClassification",
        settings=_SHARED | {"dim", "n_layers", "n_heads", "hidden_dim", "activation", "sinusoidal_pos_embds"},
        types=False,
    ),
)
KINDS.add(
    "electra",
    Kind(
        prefix="electra.",
        encoder="ElectraModel",
        classifier="ElectraForSequenceClassification",
        settings=_BERT | {"embedding_size"},
    ),
)
KINDS.add(
    "mobilebert",
    Kind(
        prefix="mobilebert.",
        encoder="MobileBertModel",
        classifier="MobileBertForSequenceClassification",
        settings=_BERT | _MOBILE,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Structure:
    """A published encoder without its weights.

    Attributes:
        title: for people.
        kind: a name in `KINDS`.
        params: of the encoder alone, as published.
        settings: where they differ from the kind's own defaults in `transformers`.
        source: the paper.
    """

    title: str
    kind: str
    params: int
    source: str
    settings: Settings = field(default_factory=dict)


def _bert(width: int, layers: int, heads: int, inner: int) -> Settings:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
    }


_TURC, _TINY, _MINI = "arXiv 1908.08962", "arXiv 1909.10351", "arXiv 2002.10957"
STRUCTURES: Registry[Structure] = Registry("text encoder")
for _name, _structure in {
    "bert-base": Structure(title="BERT base", kind="bert", params=109_482_240, source="arXiv 1810.04805"),
    "bert-medium": Structure(
        title="BERT medium", kind="bert", params=41_373_184, source=_TURC, settings=_bert(512, 8, 8, 2048)
    ),
    "bert-small": Structure(
        title="BERT small", kind="bert", params=28_763_648, source=_TURC, settings=_bert(512, 4, 8, 2048)
    ),
    "bert-mini": Structure(
        title="BERT mini", kind="bert", params=11_170_560, source=_TURC, settings=_bert(256, 4, 4, 1024)
    ),
    "bert-tiny": Structure(
        title="BERT tiny", kind="bert", params=4_385_920, source=_TURC, settings=_bert(128, 2, 2, 512)
    ),
    "distilbert-base": Structure(
        title="DistilBERT base", kind="distilbert", params=66_362_880, source="arXiv 1910.01108"
    ),
    "tinybert-4": Structure(
        title="TinyBERT 4 × 312", kind="bert", params=14_350_248, source=_TINY, settings=_bert(312, 4, 12, 1200)
    ),
    "tinybert-6": Structure(
        title="TinyBERT 6 × 768", kind="bert", params=66_955_008, source=_TINY, settings=_bert(768, 6, 12, 3072)
    ),
    "minilm-6": Structure(
        title="MiniLM 6 × 384", kind="bert", params=22_713_216, source=_MINI, settings=_bert(384, 6, 12, 1536)
    ),
    "minilm-12": Structure(
        title="MiniLM 12 × 384", kind="bert", params=33_360_000, source=_MINI, settings=_bert(384, 12, 12, 1536)
    ),
    "electra-small": Structure(
        title="ELECTRA small",
        kind="electra",
        params=13_483_008,
        source="arXiv 2003.10555",
    ),
    "mobilebert": Structure(title="MobileBERT", kind="mobilebert", params=24_844_544, source="arXiv 2004.02984"),
}.items():
    STRUCTURES.add(_name, _structure)


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What a `config.json` asks for, checked.

    Attributes:
        kind: a name in `KINDS`.
        settings: fields of that kind, and nothing else.
        classes: names of the classes; empty for an encoder alone.
    """

    kind: str
    settings: Settings
    classes: tuple[str, ...] = ()


_SIZE = frozenset(
    {
        "vocab_size", "max_position_embeddings", "hidden_size", "num_hidden_layers", "num_attention_heads",
        "intermediate_size", "dim", "n_layers", "n_heads", "hidden_dim", "embedding_size", "intra_bottleneck_size",
        "num_feedforward_networks", "type_vocab_size",
    }
)  # fmt: skip
_MOST = 1_000_000
_ACTIVATIONS = frozenset({"gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "silu", "swish", "tanh"})


def read_configuration(data: bytes) -> Configuration:
    """Read a `config.json`; raises `ModelError` for what it asks for and cannot have."""
    try:
        table = json.loads(data)
    except (ValueError, RecursionError):
        table = None
    if not isinstance(table, dict):
        raise ModelError("Expected config.json to be a table of settings, found something else. Download it again.")
    kind = table.get("model_type")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ModelError(
            f"config.json: expected model_type {', '.join(KINDS)}; found {str(kind)[:40]!r}. Export other models as "
            "ONNX and bring the .onnx file."
        )
    settings = {name: value for name, value in table.items() if name in KINDS[kind].settings and value is not None}
    for name, value in settings.items():
        _check(name, value)
    wanted = table.get("architectures") or [""]
    classifies = isinstance(wanted, list) and str(wanted[0]).endswith("ForSequenceClassification")
    return Configuration(kind=kind, settings=settings, classes=class_names(table) if classifies else ())


def _check(name: str, value: object) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if name in _SIZE and not (number and isinstance(value, int) and 1 <= value <= _MOST):
        raise ModelError(f"config.json: expected {name} to be a whole number 1–{_MOST:,}, found {str(value)[:40]!r}.")
    if name in ("hidden_act", "activation") and value not in _ACTIVATIONS:
        raise ModelError(
            f"config.json: expected {name} to be one of {', '.join(sorted(_ACTIVATIONS))}; found {str(value)[:40]!r}."
        )
    if name in ("layer_norm_eps", "pad_token_id") and not number:
        raise ModelError(f"config.json: expected {name} to be a number, found {str(value)[:40]!r}.")


def class_names(table: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes by a `config.json`, or numbers where it has none; raises `ModelError`."""
    names = table.get("id2label")
    if not isinstance(names, dict) or not 2 <= len(names) <= 10_000:
        count = table.get("num_labels", 2)
        return tuple(f"LABEL_{i}" for i in range(count if isinstance(count, int) and 2 <= count <= 10_000 else 2))
    try:
        return tuple(str(names[key])[:80] for key in sorted(names, key=int))
    except ValueError:
        raise ModelError("config.json: expected id2label to name the classes by number, found other keys.") from None
