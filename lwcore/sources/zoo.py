"""torchvision's classifiers of pictures or clips: built or downloaded once, exported to ONNX once, then read back."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lwcore.errors import ModelError
from lwcore.model import Card, ClipSpec, InputSpec, Model
from lwcore.progress import Progress, part, silent
from lwcore.sources.export import LARGEST, made_with, seeded, to_onnx
from lwcore.sources.families import Architecture
from lwcore.sources.hub import cache, places

if TYPE_CHECKING:
    from torch import nn

FRAMES = 16  # of a clip: what torchvision's video models were trained on, or near it
_SIDE_CLASSIFIERS = ("aux1.", "aux2.", "AuxLogits.")  # of GoogLeNet and Inception, for training


def load(name: str, pretrained: bool, progress: Progress = silent) -> Model:
    """Load a torchvision model that classifies pictures or clips.

    Args:
        name: torchvision's name, such as "resnet18".
        pretrained: with torchvision's default weights (from torch's cache, else downloaded), or with random ones from
            a fixed seed.
        progress: told how far it is.

    Raises:
        ModelError: no such model, no network for its weights, or a model too large or of another kind.
    """
    weights = _weights(name)
    kind = weights.name.lower() if pretrained else "none"

    def export() -> bytes:
        network = _pretrained(name, weights, part(progress, 0.0, 0.7)) if pretrained else _random(name)
        progress(0.7, "Exporting it as ONNX")
        return to_onnx(network, _shape(input_spec(weights)))

    data = cache.kept(f"torchvision-{name}-{kind}-{made_with('torchvision')}.onnx", export)
    return Model(data=data, card=_card(name, weights, pretrained))


def architecture(name: str) -> Architecture:
    """The structure of a torchvision model, to be filled with somebody's weights; raises `ModelError`."""
    weights = _weights(name)
    card = dataclasses.replace(_card(name, weights, pretrained=False), name=name, description="", random_weights=False)
    return Architecture(
        build=lambda classes: _random(name, classes),
        export=lambda network: to_onnx(network, _shape(card.pictures)),
        card=card,
        spare=_SIDE_CLASSIFIERS,
    )


def names() -> list[str]:
    """The models that can be loaded: those for pictures, then those for clips."""
    from torchvision import models

    return [n for n in _classifiers() if models.get_model_weights(n).DEFAULT.meta["num_params"] <= LARGEST]


def _classifiers() -> list[str]:
    from torchvision import models

    return [*models.list_models(module=models), *models.list_models(module=models.video)]


def _shape(spec: InputSpec) -> tuple[int, ...]:
    """Of one input: (C, H, W) of a picture, (C, T, H, W) of a clip."""
    return (3, *((spec.frames,) if isinstance(spec, ClipSpec) else ()), *spec.size)


def _weights(name: str) -> Any:
    """torchvision's default weights for a name, which also tell size, classes and preprocessing."""
    from torchvision import models

    if name not in _classifiers():
        if name in models.list_models():
            raise ModelError(
                f"Expected a torchvision model that classifies pictures or clips, found {name!r}, which is for "
                "detection, segmentation or motion. Export it as ONNX and bring the file."
            )
        near = difflib.get_close_matches(name, _classifiers(), 3) or ["resnet18", "mobilenet_v2"]
        raise ModelError(f"Expected the name of a torchvision model, found {name!r}. Did you mean {' or '.join(near)}?")
    weights = models.get_model_weights(name).DEFAULT
    if weights.meta["num_params"] > LARGEST:
        raise ModelError(
            f"Expected a model of at most {LARGEST:,} parameters, found {name} with "
            f"{weights.meta['num_params']:,}: it does not fit into one ONNX file of 2 GB."
        )
    return weights


def _random(name: str, classes: int | None = None) -> nn.Module:
    from torchvision import models

    with seeded():
        options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
        network: nn.Module = models.get_model(name, weights=None, **options)
    return network


def _pretrained(name: str, weights: Any, progress: Progress) -> nn.Module:
    from torchvision import models

    path = places.torchvision_file(name, weights.url, progress)
    try:
        with _answered(path.read_bytes()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network: nn.Module = models.get_model(name, weights=weights)
    except Exception as error:  # what a damaged or foreign file makes the reader or torchvision raise
        raise ModelError(
            f"Expected the weights of {name} in the cached file {path.name}, found a file that cannot be read safely "
            f"({str(error)[:160]}). Remove it, so that it is downloaded again."
        ) from None
    return network


@contextlib.contextmanager
def _answered(data: bytes) -> Iterator[None]:
    """Give torchvision's constructors, which ask for their weights by address, the bytes at hand, read by our reader.

    They also know what else to do with them: older files have other names, GoogLeNet's side classifiers go.
    """
    import torch
    from torchvision.models import _api

    from lwcore.sources.weights import read_weights

    def load(url: str, *args: Any, **options: Any) -> dict[str, Any]:
        return {key: torch.from_numpy(array.copy()) for key, array in read_weights(data).items()}

    before = _api.load_state_dict_from_url
    _api.load_state_dict_from_url = load
    try:
        yield
    finally:
        _api.load_state_dict_from_url = before


def input_spec(weights: Any) -> InputSpec:
    """Size and preprocessing as the weights' own transforms have them."""
    transforms = weights.transforms()
    side = int(transforms.crop_size[0])
    frame: dict[str, Any] = {
        "size": (side, side),
        "mean": tuple(transforms.mean),
        "std": tuple(transforms.std),
        "resize": int(transforms.resize_size[0]),
        "interpolation": "bicubic" if transforms.interpolation.value == "bicubic" else "bilinear",
    }
    return ClipSpec(frames=FRAMES, **frame) if "Kinetics-400" in weights.meta["_metrics"] else InputSpec(**frame)


def _card(name: str, weights: Any, pretrained: bool) -> Card:
    import torchvision

    spec = input_spec(weights)
    ((measured_on, measured),) = weights.meta["_metrics"].items()
    clips = isinstance(spec, ClipSpec)
    known = Card(
        name=name,
        family=name,
        task="video-classification" if clips else "image-classification",
        input=spec,
        classes=tuple(weights.meta["categories"]),
        licence="BSD-3-Clause",
        source=f"torchvision {torchvision.__version__}",
        sample_sets=("motion-few",) if clips else ("photos",),
    )
    if not pretrained:
        return dataclasses.replace(
            known,
            name=f"{name} · random weights",
            random_weights=True,
            description="Structure only: its weights are random, its answers mean nothing.",
        )
    return dataclasses.replace(
        known,
        source=f"{known.source}, {weights.name}",
        data=measured_on,
        description=re.sub(r"\s+", " ", weights.meta.get("_docs", "")).strip(),
        accuracy={"top1": measured["acc@1"] / 100, "set": f"{measured_on} validation", "by": "torchvision"},
    )
