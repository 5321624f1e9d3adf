"""From texts to token ids with the tokenizer that travels with a model: `tokenizer.json`, or BERT's `vocab.txt`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from lwcore.errors import ModelError, SampleError
from lwcore.model import Model
from lwcore.runtime import Feed
from lwcore.samples import SampleSet

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER, VOCABULARY, SETTINGS = "tokenizer.json", "vocab.txt", "tokenizer_config.json"
_LARGEST = 40_000_000  # bytes of a tokenizer's file
_KNOWN: dict[tuple[str, str, int], Feed] = {}
_KEPT = 6  # sample sets whose tokens are remembered


def travelling(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """What must travel with a model of these files: its tokenizer as one `tokenizer.json`, or nothing.

    Raises:
        ModelError: there is one that cannot be read.
    """
    if TOKENIZER in files:
        data = files[TOKENIZER]
    elif VOCABULARY in files:
        data = _from_vocabulary(files[VOCABULARY], files.get(SETTINGS, b"{}"))
    else:
        return {}
    if len(data) > _LARGEST:
        raise ModelError(f"Expected a tokenizer of at most {_LARGEST // 1_000_000} MB, found {len(data) // 1_000_000}.")
    _parsed(data)
    return {TOKENIZER: data}


def encoded(model: Model, samples: SampleSet, length: int) -> Feed:
    """All texts as `input_ids` and `attention_mask`, int64, shape (N, `length`): cut off or filled up.

    Raises:
        SampleError: the model has no tokenizer.
    """
    if TOKENIZER not in model.files:
        raise SampleError(
            "Expected a model with its tokenizer beside it, found none, so it cannot read texts. Bring the folder or "
            "zip with config.json, the weights and tokenizer.json or vocab.txt."
        )
    data = model.files[TOKENIZER]
    key = (hashlib.sha256(data).hexdigest(), samples.fingerprint, length)
    if key not in _KNOWN:
        while len(_KNOWN) >= _KEPT:
            _KNOWN.pop(next(iter(_KNOWN)), None)
        rows = tokenizer(data, length).encode_batch(texts_of(samples))
        _KNOWN[key] = {
            "input_ids": np.array([row.ids for row in rows], np.int64),
            "attention_mask": np.array([row.attention_mask for row in rows], np.int64),
        }
    return _KNOWN[key]


def texts_of(samples: SampleSet) -> list[str]:
    """The texts of a sample set."""
    return [bytes(text).decode("utf-8", "replace") for text in samples.arrays["text"]]


@lru_cache(maxsize=8)
def tokenizer(data: bytes, length: int) -> Tokenizer:
    """The tokenizer of a `tokenizer.json` that cuts texts off, or fills them up, at `length` tokens."""
    made = _parsed(data)
    filler = (made.padding or {}).get("pad_token", "[PAD]")
    place = made.token_to_id(filler)
    made.enable_truncation(length)
    made.enable_padding(length=length, pad_token=filler, pad_id=0 if place is None else place)
    return made


def _parsed(data: bytes) -> Tokenizer:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # workers fork, and its threads would not come along
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(data.decode("utf-8"))
    except Exception as error:  # a foreign parser raises plain exceptions
        raise ModelError(
            f"Expected a tokenizer.json that can be read, found one that cannot ({str(error)[:120]}). Download it "
            "again."
        ) from None


def _from_vocabulary(words: bytes, settings: bytes) -> bytes:
    """BERT's tokenizer of a plain list of words, as its settings say."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    try:
        listed = words.decode("utf-8").splitlines()
        options = json.loads(settings)
        lower = bool(options.get("do_lower_case", True))
    except (ValueError, RecursionError, AttributeError):
        raise ModelError(
            "Expected vocab.txt and tokenizer_config.json as text, found something else. Download them again."
        ) from None
    vocabulary = {word: i for i, word in enumerate(listed)}
    missing = [word for word in ("[UNK]", "[CLS]", "[SEP]", "[PAD]") if word not in vocabulary]
    if missing:
        raise ModelError(
            f"Expected a BERT vocabulary with {missing[0]} in vocab.txt, found none. Bring tokenizer.json."
        )
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lower)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    return bytes(made.to_str().encode())
