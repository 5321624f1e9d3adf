"""timm's picture classifiers: safetensors from Hugging Face or random weights, exported to ONNX once, then cached."""

from __future__ import annotations

import dataclasses
import difflib
import json
import warnings
from typing import TYPE_CHECKING, Any, Literal

from lwcore.errors import ModelError
from lwcore.model import Card, InputSpec, Model
from lwcore.progress import Progress, part, silent
from lwcore.settings import ASSETS
from lwcore.sources.export import LARGEST, made_with, quiet, seeded, to_onnx
from lwcore.sources.families import Architecture
from lwcore.sources.hub import cache, places

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = "model.safetensors"
_IMAGENET = 1000  # classes; timm numbers them as everybody does


def load(name: str, pretrained: bool, progress: Progress = silent) -> Model:
    """Load a timm classifier.

    Args:
        name: timm's name, such as "resnet18.a1_in1k", or the structure's alone, "resnet18", for its default weights.
        pretrained: with the weights of that name, or with random ones from a fixed seed.
        progress: told how far it is.

    Raises:
        ModelError: no such model, no network for its weights, or a model too large or of another kind.
    """
    cfg = _config(name)
    full = f"{cfg.architecture}.{cfg.tag}" if cfg.tag else str(cfg.architecture)

    def export() -> bytes:
        network = _pretrained(full, cfg, part(progress, 0.0, 0.7)) if pretrained else _random(full)
        if sum(p.numel() for p in network.parameters()) > LARGEST:
            raise ModelError(
                f"Expected a model of at most {LARGEST:,} parameters, found more in {full}: it does not fit into one "
                "ONNX file of 2 GB."
            )
        progress(0.7, "Exporting it as ONNX")
        return _exported(full, network, tuple(cfg.input_size))

    kind = "pretrained" if pretrained else "none"
    data = cache.kept(f"timm-{full}-{kind}-{made_with('timm')}.onnx", export)
    return Model(data=data, card=_card(full, cfg, pretrained))


def architecture(name: str) -> Architecture:
    """The structure of a timm model, to be filled with somebody's weights; raises `ModelError`."""
    cfg = _config(name)
    card = dataclasses.replace(_card(name, cfg, pretrained=False), name=name, description="", random_weights=False)
    return Architecture(
        build=lambda classes: _random(name, classes),
        export=lambda network: to_onnx(network, tuple(cfg.input_size)),
        card=card,
    )


def _config(name: str) -> Any:
    """timm's facts about a model: size, preprocessing, classes, where its weights are."""
    import timm

    structure, _, tag = name.partition(".")
    if not timm.is_model(structure) or (tag and name not in timm.list_pretrained(f"{structure}*")):
        known = [*timm.list_pretrained(), *timm.list_models()]
        near = difflib.get_close_matches(name, known, 3) or ["resnet18.a1_in1k", "mobilenetv3_small_100"]
        raise ModelError(f"Expected the name of a timm model, found {name!r}. Did you mean {' or '.join(near)}?")
    cfg = timm.get_pretrained_cfg(name)
    if cfg is None or cfg.input_size[0] != 3:
        raise ModelError(f"Expected a timm model that reads colour pictures, found {name!r}. Take another one.")
    return cfg


def _random(name: str, classes: int | None = None) -> nn.Module:
    import timm

    with seeded(), quiet("timm"):
        options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
        network: nn.Module = timm.create_model(name, pretrained=False, exportable=True, **options)
    return network


def _pretrained(name: str, cfg: Any, progress: Progress) -> nn.Module:
    import timm
    import torch

    from lwcore.sources.weights import read_weights

    otherwise = f"Or use timm:{name}:none for the structure with random weights."
    if not cfg.hf_hub_id:
        raise ModelError(
            f"Expected a timm model with weights at Hugging Face, found {name}, which has none. {otherwise}"
        )
    what = f"the weights of {name}"
    path = places.hub_file(cfg.hf_hub_id, cfg.hf_hub_filename or WEIGHTS, what, otherwise, progress)
    state = {key: torch.from_numpy(array.copy()) for key, array in read_weights(path.read_bytes()).items()}
    try:
        with warnings.catch_warnings(), quiet("timm"):
            warnings.simplefilter("ignore")
            overlay = {"state_dict": state}
            network: nn.Module = timm.create_model(
                name, pretrained=True, exportable=True, pretrained_cfg_overlay=overlay
            )
    except Exception as error:  # timm's own checks raise whatever they like
        raise ModelError(
            f"Expected {what} in the file {path.name}, found others ({str(error)[:160]}). {otherwise}"
        ) from None
    return network


def _exported(name: str, network: nn.Module, shape: tuple[int, ...]) -> bytes:
    try:
        return to_onnx(network, shape)
    except ModelError:
        raise
    except Exception as error:  # torch's exporter raises whatever an operator that it does not know makes it raise
        raise ModelError(
            f"The structure of {name} cannot be exported as ONNX ({str(error).strip().splitlines()[0][:160]}). Take "
            "another model of the list."
        ) from None


def _card(name: str, cfg: Any, pretrained: bool) -> Card:
    import timm

    known = Card(
        name=name,
        family=str(cfg.architecture),
        input=_input_spec(cfg),
        classes=tuple(json.loads((ASSETS / "labels" / "imagenet.json").read_text(encoding="utf-8")))
        if cfg.num_classes == _IMAGENET
        else (),
        licence=cfg.license or "",
        source=f"timm {timm.__version__}",
        sample_sets=("photos",),
    )
    if pretrained:
        return dataclasses.replace(known, source=f"{known.source}, {cfg.hf_hub_id}", description=cfg.description or "")
    return dataclasses.replace(
        known,
        name=f"{name} · random weights",
        random_weights=True,
        description="Structure only: its weights are random, its answers mean nothing.",
    )


def _input_spec(cfg: Any) -> InputSpec:
    """timm's evaluation transform: the shorter side to size / crop_pct (rounded down), then the centre."""
    height, width = cfg.input_size[1:]
    bicubic: Literal["bicubic", "bilinear"] = "bilinear" if cfg.interpolation == "bilinear" else "bicubic"
    squash = cfg.crop_mode == "squash"
    return InputSpec(
        size=(height, width),
        mean=tuple(cfg.mean),
        std=tuple(cfg.std),
        resize=None if squash else int(min(height, width) / cfg.crop_pct),
        interpolation=bicubic,
    )
