"""Text models that somebody else exported: known by their inputs and by the tokenizer that lies beside them."""

from __future__ import annotations

import io
import json
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import lwcore
from lwcore.answers import feed
from lwcore.errors import ModelError
from lwcore.graph import Graph
from lwcore.model import TextSpec
from lwcore.runtime import session
from lwcore.samples.tokens import travelling
from lwcore.sources.text.files import holds_encoder, holds_graph
from lwcore.sources.text.packed import read_packed
from lwcore.sources.upload import read_upload
from tests.texts import classifier, configuration, texts, vocabulary_file

pytestmark = pytest.mark.filterwarnings("ignore")  # the exporters warn at every shape that Python code looks at
CONFIG = {"model_type": "bert", "id2label": {"0": "ham", "1": "spam"}, "max_position_embeddings": 40}


@lru_cache(maxsize=4)
def foreign(kind: str = "bert", dynamo: bool = False) -> tuple[torch.nn.Module, bytes]:
    """A classifier, and its file as torch's own exporters write it for people who use them directly."""
    wanted = configuration(kind)
    config = transformers.AutoConfig.for_model(kind, **wanted.settings)
    config._attn_implementation = "eager"
    torch.manual_seed(1)
    factory = {"bert": "BertForSequenceClassification", "distilbert": "DistilBertForSequenceClassification"}[kind]
    network = getattr(transformers, factory)(config).eval()
    names = ["input_ids", "attention_mask"]
    example = {name: torch.ones(2, 16, dtype=torch.int64) for name in names}
    buffer = io.BytesIO()
    if dynamo:
        sizes = {0: torch.export.Dim("batch_size"), 1: torch.export.Dim("sequence_length", max=40)}
        shapes = dict.fromkeys(names, sizes)
        torch.onnx.export(network, kwargs=example, dynamic_shapes=shapes, dynamo=True, verbose=False).save(buffer)
        return network, buffer.getvalue()
    axes = {name: {0: "batch_size", 1: "sequence_length"} for name in names}
    torch.onnx.export(
        network, tuple(example.values()), buffer, input_names=names, output_names=["logits"], dynamic_axes=axes,
        opset_version=17, dynamo=False,
    )  # fmt: skip
    return network, buffer.getvalue()


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"mine/{name}", data)
    return buffer.getvalue()


def packed(graph: bytes) -> bytes:
    tokenizer = travelling({"vocab.txt": vocabulary_file()})["tokenizer.json"]
    files = {"model.onnx": graph, "tokenizer.json": tokenizer, "config.json": json.dumps(CONFIG).encode()}
    return zipped(**files)


@pytest.mark.parametrize(
    ("kind", "dynamo"), [("bert", False), ("distilbert", False), pytest.param("bert", True, marks=pytest.mark.slow)]
)
def test_a_network_beside_its_tokenizer_reads_texts_and_is_slimmed(kind: str, dynamo: bool, tmp_path: Path) -> None:
    """Length and batch stay free, the classes are those of config.json, the answers those of the network."""
    network, graph = foreign(kind, dynamo)
    (tmp_path / "mine.zip").write_bytes(packed(graph))
    model, samples = lwcore.load(tmp_path / "mine.zip"), texts(8)
    assert (model.card.task, model.card.classes) == ("text-classification", ("ham", "spam"))
    assert model.card.input == TextSpec(length=40)
    assert Graph.view(model).free["input_ids"] == {0: "batch", 1: "sequence"}
    batch = feed(model, samples, 0, 8)
    with torch.no_grad():
        wanted = network(**{name: torch.from_numpy(array) for name, array in batch.items()}).logits.numpy()
    np.testing.assert_allclose(session(model.data).run(None, batch)[0], wanted, atol=1e-5)
    slim = lwcore.apply(model, lwcore.Recipe(steps=(lwcore.Channels(amount=0.3),)), samples=samples)
    assert slim.after.params < slim.before.params
    assert lwcore.evaluate(slim.model, samples, latency=False).n == 8


def test_without_a_tokenizer_it_is_generic_and_says_what_is_missing() -> None:
    """The note names the files to bring; a zip of the file alone is the same."""
    _, graph = foreign()
    alone = zipped(**{"model.onnx": graph})
    assert holds_graph(alone)
    for model in (read_upload(graph, "x.onnx"), read_packed(alone, "x.zip")):
        assert model.card.task == "generic"
        assert "tokenizer.json" in model.notes[-1]


def test_what_a_zip_holds_is_seen_by_its_names() -> None:
    """Weights to build a network of go before an exported one; two exported ones are one too many."""
    _, graph = foreign()
    assert not holds_encoder(packed(graph))
    whole = zipped(**{"model.onnx": graph, "model.safetensors": b"", "config.json": b"{}"})
    assert holds_encoder(whole)
    assert not holds_graph(whole)
    with pytest.raises(ModelError, match=r"one \.onnx file in the zip, found a\.onnx, b\.onnx"):
        read_packed(zipped(**{"a.onnx": graph, "b.onnx": graph}), "x.zip")


def test_a_text_model_of_ours_is_read_again_as_it_was() -> None:
    """Imported from another workspace, its length stays free."""
    again = read_upload(classifier().data, "again.onnx")
    assert Graph.view(again).free["input_ids"] == {0: "batch", 1: "sequence"}
