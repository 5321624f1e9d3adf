"""torchvision's models: the exported graph is the network, with torchvision's own parameter and operation counts."""

from __future__ import annotations

import dataclasses
import pickle  # noqa: TID251 - to write the file that must never be unpickled
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from safetensors.torch import save
from torchvision import models

from lwcore.analysis.cost import cost
from lwcore.errors import ModelError
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.sources import export, zoo, zoo_timm
from lwcore.sources.families import load_named
from lwcore.sources.hub import cache, fetch, places
from tests.standin import serving


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the tests' own, shared by them."""
    folder = tmp_path_factory.getbasetemp() / "zoo-home"
    monkeypatch.setattr(cache, "SETTINGS", dataclasses.replace(cache.SETTINGS, home=str(folder)))


def outputs(model: Model, x: np.ndarray) -> np.ndarray:
    return np.asarray(ort.InferenceSession(model.data).run(None, {Graph.view(model).inputs[0]: x})[0])


SLOW = ("shufflenet_v2_x0_5", "mobilenet_v3_small", "efficientnet_b0", "densenet121", "convnext_tiny")


@pytest.mark.parametrize("name", ["squeezenet1_1", *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
def test_the_graph_computes_what_the_network_computes(name: str) -> None:
    model = zoo.load(name, pretrained=False)
    meta = models.get_model_weights(name).DEFAULT.meta
    x = np.random.default_rng(0).standard_normal((2, 3, *model.card.input.size)).astype(np.float32)
    torch.manual_seed(export.SEED)
    network = models.get_model(name, weights=None).eval()
    with torch.no_grad():
        wanted = network(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(outputs(model, x), wanted, atol=1e-4 * max(1.0, float(np.abs(wanted).max())))
    total = cost(model)
    assert total.params == meta["num_params"]
    assert total.macs / 1e9 == pytest.approx(meta["_ops"], abs=0.0006)


def test_random_weights_are_the_same_every_time_and_leave_the_random_state_alone() -> None:
    state = torch.random.get_rng_state()
    first = export.to_onnx(zoo._random("squeezenet1_1"), (3, 224, 224))
    assert torch.equal(state, torch.random.get_rng_state())
    assert first == zoo.load("squeezenet1_1", pretrained=False).data


def test_the_second_load_comes_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    first = zoo.load("squeezenet1_1", pretrained=False)
    monkeypatch.setattr(zoo, "to_onnx", lambda *_: pytest.fail("exported again"))
    assert zoo.load("squeezenet1_1", pretrained=False).fingerprint == first.fingerprint


def test_the_card_has_the_classes_and_the_preprocessing_of_the_weights() -> None:
    card = zoo._card("efficientnet_b1", zoo._weights("efficientnet_b1"), pretrained=True)
    assert card.input.size == (240, 240)
    assert card.input.resize == 255
    assert (len(card.classes), card.classes[0]) == (1000, "tench")
    assert not card.random_weights
    assert zoo._card("resnet18", zoo._weights("resnet18"), pretrained=False).random_weights


@pytest.mark.parametrize(
    ("name", "words"),
    [("resnet81", "resnet"), ("fasterrcnn_resnet50_fpn", "detection"), ("vit_h_14", "2 GB")],
)
def test_names_that_cannot_be_loaded_say_why(name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        zoo.load(name, pretrained=False)


def test_without_a_network_the_message_names_the_ways_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence: what to put where, or the structure."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    mirror(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"torchvision:resnet18:none") as caught:
        zoo.load("resnet18", pretrained=True)
    assert "resnet18-f37072fd.pth" in str(caught.value)


def mirror(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(places, "SETTINGS", dataclasses.replace(places.SETTINGS, mirror=url))


def test_torchvision_weights_are_downloaded_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the mirror, by the checksum in the file's name, read without unpickling, with progress."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(cache, "SETTINGS", dataclasses.replace(cache.SETTINGS, home=str(tmp_path)))
    network = models.get_model("squeezenet1_1", weights=None)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    path = urlsplit(zoo._weights("squeezenet1_1").url).path
    told: list[str] = []
    with serving(files={path: (tmp_path / "w.pth").read_bytes()}) as hub:
        mirror(monkeypatch, hub.url)
        with pytest.raises(ModelError, match="checksum"):
            zoo.load("squeezenet1_1", pretrained=True)
        monkeypatch.setattr(fetch, "_is_right", lambda *_: True)
        model = zoo.load("squeezenet1_1", pretrained=True, progress=lambda _, words: told.append(words))
    assert f"Downloading {Path(path).name}: 4.96 MB of 4.96 MB" in told
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in model.proto.graph.initializer}
    np.testing.assert_array_equal(stored["features.0.weight"], network.features[0].weight.detach().numpy())


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
    with pytest.raises(ModelError, match=r"cannot be read safely.*state dict"):
        zoo.load("squeezenet1_1", pretrained=True)
    assert not (tmp_path / "ran").exists()


def test_weights_in_torchs_cache_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(7)
    network = models.get_model("squeezenet1_1", weights=None)
    torch.save(network.state_dict(), folder / Path(zoo._weights("squeezenet1_1").url).name)
    model = zoo.load("squeezenet1_1", pretrained=True)
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in model.proto.graph.initializer}
    np.testing.assert_array_equal(stored["features.0.weight"], network.features[0].weight.detach().numpy())


# -- timm ----------------------------------------------------------------------------------------------------------


def test_timm_weights_come_from_hugging_face_as_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exported graph computes what timm's network with these weights computes."""
    import timm

    monkeypatch.setattr(cache, "SETTINGS", dataclasses.replace(cache.SETTINGS, home=str(tmp_path)))
    torch.manual_seed(3)
    network = timm.create_model("test_resnet.r160_in1k", pretrained=False).eval()
    files = {"/timm/test_resnet.r160_in1k/resolve/main/model.safetensors": save(network.state_dict())}
    with serving(files=files) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        model = zoo_timm.load("test_resnet", pretrained=True)
    x = torch.zeros(1, 3, *model.card.pictures.size)
    with torch.no_grad():
        np.testing.assert_allclose(outputs(model, x.numpy()), network(x).numpy(), atol=1e-4)
    assert (model.card.name, len(model.card.classes)) == ("test_resnet.r160_in1k", 1000)
    assert zoo_timm.load("test_resnet.r160_in1k", pretrained=True).fingerprint == model.fingerprint


@pytest.mark.parametrize("name", ["resnet81", "resnet18.zz", "", "vit_base_patch16_224/../x"])
def test_timm_names_that_are_not_known_are_told(name: str) -> None:
    """With names that are near."""
    with pytest.raises(ModelError, match=r"Expected the name of a timm model.*Did you mean"):
        zoo_timm.load(name, pretrained=False)


def test_a_named_model_is_exactly_family_and_name() -> None:
    """Anything else is refused before any library is asked."""
    for ref in ("torchvision:", "torchvision:resnet18:", "torchvision:resnet18:x", "timm:a:none:none"):
        with pytest.raises(ModelError, match=r"FAMILY|:NAME or"):
            load_named(ref)
