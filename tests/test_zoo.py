"""torchvision's models: the exported graph is the network, with torchvision's own parameter and operation counts."""

from __future__ import annotations

import dataclasses
import pickle  # noqa: TID251 - to write the file that must never be unpickled
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torchvision import models

from lwcore.analysis.cost import cost
from lwcore.errors import ModelError
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.sources import zoo


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the tests' own, shared by them."""
    folder = tmp_path_factory.getbasetemp() / "zoo-home"
    monkeypatch.setattr(zoo, "SETTINGS", dataclasses.replace(zoo.SETTINGS, home=str(folder)))


def outputs(model: Model, x: np.ndarray) -> np.ndarray:
    return np.asarray(ort.InferenceSession(model.data).run(None, {Graph.view(model).inputs[0]: x})[0])


SLOW = ("shufflenet_v2_x0_5", "mobilenet_v3_small", "efficientnet_b0", "densenet121", "convnext_tiny")


@pytest.mark.parametrize("name", ["squeezenet1_1", *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
def test_the_graph_computes_what_the_network_computes(name: str) -> None:
    model = zoo.load_torchvision(name, pretrained=False)
    meta = models.get_model_weights(name).DEFAULT.meta
    x = np.random.default_rng(0).standard_normal((2, 3, *model.card.input.size)).astype(np.float32)
    torch.manual_seed(zoo.SEED)
    network = models.get_model(name, weights=None).eval()
    with torch.no_grad():
        wanted = network(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(outputs(model, x), wanted, atol=1e-4 * max(1.0, float(np.abs(wanted).max())))
    total = cost(model)
    assert total.params == meta["num_params"]
    assert total.macs / 1e9 == pytest.approx(meta["_ops"], abs=0.0006)


def test_random_weights_are_the_same_every_time_and_leave_the_random_state_alone() -> None:
    state = torch.random.get_rng_state()
    first = zoo._export("squeezenet1_1", zoo._weights("squeezenet1_1"), pretrained=False)
    assert torch.equal(state, torch.random.get_rng_state())
    assert first == zoo.load_torchvision("squeezenet1_1", pretrained=False).data


def test_the_second_load_comes_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    first = zoo.load_torchvision("squeezenet1_1", pretrained=False)
    monkeypatch.setattr(zoo, "_export", lambda *_: pytest.fail("exported again"))
    assert zoo.load_torchvision("squeezenet1_1", pretrained=False).fingerprint == first.fingerprint


def test_the_card_has_the_classes_and_the_preprocessing_of_the_weights() -> None:
    card = zoo._card("efficientnet_b1", zoo._weights("efficientnet_b1"), pretrained=True)
    assert card.input.size == (240, 240)
    assert card.input.resize == 255
    assert (len(card.classes), card.classes[0]) == (1000, "tench")
    assert not card.random_weights
    assert zoo._card("resnet18", zoo._weights("resnet18"), pretrained=False).random_weights


@pytest.mark.parametrize(
    ("name", "words"),
    [("resnet81", "resnet"), ("r3d_18", "video"), ("fasterrcnn_resnet50_fpn", "detection"), ("vit_h_14", "2 GB")],
)
def test_names_that_cannot_be_loaded_say_why(name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        zoo.load_torchvision(name, pretrained=False)


def test_without_a_network_the_message_names_the_ways_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    with pytest.raises(ModelError, match=r"torchvision:resnet18:none") as caught:
        zoo.load_torchvision("resnet18", pretrained=True)
    assert "resnet18-f37072fd.pth" in str(caught.value)


class Payload:
    """Unpickling this touches a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.target,)


def test_a_weights_file_in_torchs_cache_is_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    file = Path(zoo._weights("squeezenet1_1").url).name
    torch.save({"x": Payload(tmp_path / "ran")}, folder / file, pickle_module=pickle)
    with pytest.raises(ModelError, match="cannot be read safely"):
        zoo.load_torchvision("squeezenet1_1", pretrained=True)
    assert not (tmp_path / "ran").exists()


def test_weights_in_torchs_cache_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(7)
    network = models.get_model("squeezenet1_1", weights=None)
    torch.save(network.state_dict(), folder / Path(zoo._weights("squeezenet1_1").url).name)
    model = zoo.load_torchvision("squeezenet1_1", pretrained=True)
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in model.proto.graph.initializer}
    np.testing.assert_array_equal(stored["features.0.weight"], network.features[0].weight.detach().numpy())
