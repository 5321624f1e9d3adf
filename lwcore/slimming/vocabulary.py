"""Tokens that never occur: out of the embedding table, out of the tokenizer, and every other token renumbered.

Only WordPiece vocabularies: their pieces stand for themselves, so one that is not used can go without changing how
other texts are cut. Texts with words of pieces that went are spelled with shorter pieces, letters in the end.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np

from lwcore.errors import SlimError
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.recipe import Vocabulary
from lwcore.samples import SampleSet
from lwcore.samples.tokens import TOKENIZER, encoded

WHOLE = 1024  # tokens of a text that are counted, whatever the model reads of it
_AHEAD = "##"  # what marks a piece that goes on with a word


def trim(model: Model, step: Vocabulary, samples: SampleSet | None) -> tuple[Model, list[str]]:
    """The model with fewer tokens, and notes.

    Raises:
        SlimError: it reads no texts, its vocabulary is of another kind, or there are no samples.
    """
    graph = Graph.view(model)
    table = table_of(graph)
    if table is None or TOKENIZER not in model.files:
        raise SlimError("Vocabulary: expected a model that reads texts and has its tokenizer with it, found another.")
    if samples is None:
        raise SlimError("Tokens are kept by what occurs in calibration texts; give some.")
    tokenizer = json.loads(model.files[TOKENIZER])
    if tokenizer["model"].get("type") != "WordPiece":
        raise SlimError(
            f"Vocabulary: expected a WordPiece tokenizer (BERT and its kin), found {tokenizer['model'].get('type')}. "
            "Leave this step out."
        )
    rows = graph.constants[table].shape[0]
    keep = _kept(tokenizer, encoded(model, samples, WHOLE)["input_ids"], rows, step.least)
    number = {int(old): new for new, old in enumerate(keep)}
    slim = graph.copy()
    slim.set_constant(table, np.ascontiguousarray(graph.constants[table][keep]))
    files = {**model.files, TOKENIZER: json.dumps(_renumbered(tokenizer, number), ensure_ascii=False).encode()}
    note = f"Vocabulary: {len(keep):,} of {rows:,} tokens stay."
    return dataclasses.replace(model, data=slim.serialize(), files=files), [note]


def table_of(graph: Graph) -> str | None:
    """The embedding table that only token ids index; None where there is none, or it is read otherwise too."""
    for node in graph.nodes:
        if node.op_type != "Gather" or node.input[0] not in graph.constants or node.input[1] not in graph.inputs:
            continue
        name, ids = str(node.input[0]), str(node.input[1])
        alone = len(graph.consumers()[name]) == 1 and graph.constants[name].ndim == 2
        if alone and not any(word in ids for word in ("mask", "type", "segment", "position")):
            return name
    return None


def _kept(tokenizer: dict[str, Any], ids: np.ndarray, rows: int, least: int) -> np.ndarray:
    """Old numbers of the tokens that stay, ascending."""
    counts = np.bincount(ids.ravel(), minlength=rows)
    keep = counts >= least
    keep[[token["id"] for token in tokenizer.get("added_tokens", [])]] = True
    for piece, number in tokenizer["model"]["vocab"].items():
        letter = piece.removeprefix(_AHEAD)
        if (len(letter) == 1 and letter.isascii()) or piece == tokenizer["model"].get("unk_token"):
            keep[number] = True
    return np.flatnonzero(keep[:rows])


def _renumbered(tokenizer: dict[str, Any], number: dict[int, int]) -> dict[str, Any]:
    """The tokenizer without the tokens that went; every place that names a token's number follows."""
    model = tokenizer["model"]
    vocab = {piece: number[old] for piece, old in model["vocab"].items() if old in number}
    added = [{**token, "id": number[token["id"]]} for token in tokenizer.get("added_tokens", [])]
    found = {**tokenizer, "model": {**model, "vocab": vocab}, "added_tokens": added}
    for part in ("padding", "post_processor"):
        if found.get(part):
            found[part] = _followed(found[part], vocab)
    return found


def _followed(part: Any, vocab: dict[str, int]) -> Any:
    """Settings with the numbers of named tokens as they are now."""
    if isinstance(part, list):
        if len(part) == 2 and isinstance(part[0], str) and isinstance(part[1], int):  # ["[SEP]", 3]
            return [part[0], vocab.get(part[0], part[1])]
        return [_followed(item, vocab) for item in part]
    if not isinstance(part, dict):
        return part
    if "tokens" in part and "ids" in part:  # a template's special token
        return {**part, "ids": [vocab[token] for token in part["tokens"]]}
    if "pad_token" in part:
        return {**part, "pad_id": vocab.get(part["pad_token"], 0)}
    return {key: _followed(value, vocab) for key, value in part.items()}
