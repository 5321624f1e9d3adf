"""Text encoders as sources: published sizes, an export that is the network, files read without running anything."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest

from lwcore.analysis.cost import cost
from lwcore.errors import ModelError
from lwcore.graph import Graph
from lwcore.model import Card, Model, TextSpec
from lwcore.runtime import session
from lwcore.sources.text.files import holds_encoder, read_files, read_folder, read_zip
from lwcore.sources.text.structures import KINDS, STRUCTURES, read_configuration
from tests.texts import LENGTH, SETTINGS, VOCABULARY, configuration, vocabulary_file


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures_have_their_published_number_of_parameters(name: str) -> None:
    """DistilBERT base has 66,362,880, TinyBERT 4 × 312 has 14,350,248."""
    import torch
    import transformers

    structure = STRUCTURES[name]
    config = transformers.AutoConfig.for_model(structure.kind, **structure.settings)
    with torch.device("meta"):
        network = getattr(transformers, KINDS[structure.kind].encoder)(config)
    assert sum(p.numel() for p in network.parameters()) == structure.params


@pytest.mark.parametrize(("kind", "classes"), [("bert", ()), *((kind, ("ham", "spam", "other")) for kind in SETTINGS)])
def test_the_file_is_the_network_at_every_batch_and_length(kind: str, classes: tuple[str, ...]) -> None:
    """Padding included; parameters are those of the network."""
    import torch

    from lwcore.sources.text.network import build, export

    wanted = configuration(kind, classes)
    network = build(wanted).eval()
    data = export(network, wanted, LENGTH)
    graph, runner = Graph.view(Model(data=data)), session(data)
    for batch, length in ((1, LENGTH), (3, 7), (2, 33)):
        rng = np.random.default_rng(length)
        feed = {name: np.zeros((batch, length), np.int64) for name in graph.inputs}
        feed["input_ids"] = rng.integers(0, len(VOCABULARY), (batch, length))
        feed["attention_mask"] = (np.arange(length) < length - rng.integers(0, 4, (batch, 1))).astype(np.int64)
        with torch.no_grad():
            found = network(**{name: torch.from_numpy(array) for name, array in feed.items()})
        for got, want in zip(runner.run(None, feed), [v for v in found.values() if v is not None], strict=True):
            np.testing.assert_allclose(got, want.numpy(), atol=1e-5)
    assert cost(Model(data=data)).params == sum(p.numel() for p in network.parameters())
    assert graph.free["input_ids"] == {0: "batch", 1: "sequence"}
    assert graph.shape("input_ids") == (1, LENGTH)


def _files(kind: str = "bert") -> dict[str, bytes]:
    from safetensors.numpy import save

    from lwcore.sources.text.network import build

    wanted = configuration(kind)
    state = {name: tensor.numpy() for name, tensor in build(wanted).state_dict().items()}
    names = dict(enumerate(wanted.classes))
    table = {"model_type": kind, **wanted.settings, "id2label": names, "architectures": ["XForSequenceClassification"]}
    return {
        "config.json": json.dumps(table).encode(),
        "model.safetensors": save(state),
        "vocab.txt": vocabulary_file(),
        "README.md": b"not read",
    }


def _zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"my model/{name}", data)
    return buffer.getvalue()


def test_a_zip_and_a_folder_give_the_same_model_with_its_tokenizer(tmp_path) -> None:
    """Classes come from config.json, and the tokenizer travels with the model."""
    files = _files()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    packed = _zipped(files)
    assert holds_encoder(packed)
    one, other = read_zip(packed, "mine"), read_folder(tmp_path)
    assert one.data == other.data
    assert one.card.classes == ("ham", "spam")
    assert one.card.task == "text-classification"
    assert one.card.input == TextSpec(length=40)
    assert set(one.files) == {"tokenizer.json"}


def test_an_old_checkpoint_of_another_task_gives_the_encoder() -> None:
    """LayerNorm's old names are understood, heads of other tasks are left over."""
    from safetensors.numpy import load, save

    files = _files()
    table = json.loads(files["config.json"])
    table["architectures"] = ["BertForMaskedLM"]
    state = {n.replace("LayerNorm.weight", "LayerNorm.gamma"): a for n, a in load(files["model.safetensors"]).items()}
    model = read_files({"config.json": json.dumps(table).encode(), "model.safetensors": save(state)}, "mine")
    assert model.card.task == "text-embedding"
    assert not model.card.classes
    assert Graph.view(model).outputs == ["last_hidden_state", "pooler_output"]
    assert any("tokenizer" in note for note in model.notes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "gpt2"}, "expected model_type bert"),
        ({"hidden_size": 10**9}, "hidden_size"),
        ({"num_attention_heads": 5}, "fit together"),
        ({"hidden_act": "__import__('os')"}, "hidden_act"),
        ({"intermediate_size": 65}, "expected the shape"),
        ({"num_hidden_layers": 3}, "without"),
    ],
)
def test_a_configuration_that_does_not_fit_is_a_sentence(change: dict[str, object], words: str) -> None:
    """What was expected, what was found."""
    files = _files()
    files["config.json"] = json.dumps({**json.loads(files["config.json"]), **change}).encode()
    with pytest.raises(ModelError, match=words):
        read_files(files, "mine")


def test_pickled_weights_are_refused_with_the_way_on() -> None:
    """pytorch_model.bin can run code."""
    files = _files()
    with pytest.raises(ModelError, match="save_pretrained"):
        read_files({"config.json": files["config.json"], "pytorch_model.bin": b"\x80\x02"}, "mine")


def test_settings_that_say_where_code_is_are_ignored() -> None:
    """Only sizes and names of activations leave a config.json."""
    files = _files()
    table = {**json.loads(files["config.json"]), "auto_map": {"AutoModel": "evil.Model"}, "trust_remote_code": True}
    assert set(read_configuration(json.dumps(table).encode()).settings) <= KINDS["bert"].settings


def test_a_zip_of_two_models_is_refused() -> None:
    """Which one is meant cannot be known."""
    buffer = io.BytesIO(_zipped(_files()))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("other/config.json", b"{}")
    with pytest.raises(ModelError, match="two files"):
        read_zip(buffer.getvalue(), "mine")


def test_a_card_of_a_text_model_survives_json() -> None:
    """Its input is the length."""
    card = Card(task="text-classification", input=TextSpec(length=77), classes=("a", "b"))
    assert Card.from_json(card.to_json()) == card
