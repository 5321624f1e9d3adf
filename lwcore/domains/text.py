"""Texts: kept as they are, read by a model through the tokenizer that travels with it."""

from __future__ import annotations

import dataclasses

import numpy as np
from onnx import helper

from lwcore.domains import Domain
from lwcore.errors import ModelError
from lwcore.graph import Graph
from lwcore.model import Model, TextSpec
from lwcore.progress import Progress
from lwcore.runtime import Feed
from lwcore.samples import SampleSet
from lwcore.samples.texts import read_texts
from lwcore.samples.tokens import encoded, texts_of


def length_of(model: Model) -> int:
    """Tokens a text is cut off or filled up to: what the file fixes, else what the card says."""
    graph, spec = Graph.view(model), model.card.input
    if not isinstance(spec, TextSpec):
        raise ModelError(f"Expected a model that reads texts, found one for {model.card.task}.")
    first = graph.inputs[0]
    fixed = graph.shape(first)[1:2] if 1 not in graph.free.get(first, {}) else ()
    return fixed[0] if fixed else spec.length


def _feed(samples: SampleSet, model: Model, start: int, stop: int) -> Feed:
    tokens = encoded(model, samples, length_of(model))
    ids, mask = tokens["input_ids"][start:stop], tokens["attention_mask"][start:stop]
    found: Feed = {}
    graph = Graph.view(model)
    for name in graph.inputs:
        values = mask if "mask" in name else np.zeros_like(ids) if "type" in name or "segment" in name else ids
        found[name] = values.astype(helper.tensor_dtype_to_np_dtype(graph.types[name]), copy=False)
    return found


def _read(data: bytes, model: Model, name: str, progress: Progress) -> SampleSet:
    return read_texts(data, model.card.classes, name or "Your texts", progress)


def _show(samples: SampleSet, index: int) -> str:
    return texts_of(samples.pick(slice(index, index + 1)))[0]


DOMAIN = Domain(
    task="text-classification",
    accepts=("csv", "tsv", "jsonl", "txt"),
    read=_read,
    feed=_feed,
    show=_show,
)
EMBEDDING = dataclasses.replace(DOMAIN, task="text-embedding", classes=False)
