"""Families of named models: what stands before the colon in `torchvision:resnet18`, and the module that makes them.

A family's module has `load(name, pretrained, progress) -> Model` and, where state dicts can be fitted to its
structures, `architecture(name) -> Architecture`. It is imported when it is asked for, because most import torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from lwcore.errors import ModelError
from lwcore.model import Card, Model
from lwcore.progress import Progress, silent
from lwcore.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from lwcore.sources.weights import State


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The structure of a named model.

    Attributes:
        build: number of classes (None: as published) → the network with seeded random weights.
        export: the network as a normalised ONNX file.
        card: how it is fed; its classes are those of the published weights.
        spare: beginnings of the names of tensors that only training needs; a state dict may lack them.
        adapt: a state dict → the structure with the sizes that a file decides (a vocabulary), and the tensors that
            belong to it under its own names.
        notes: what a person should know of a model made of it.
    """

    build: Callable[[int | None], nn.Module]
    export: Callable[[nn.Module], bytes]
    card: Card
    spare: tuple[str, ...] = ()
    adapt: Callable[[State], tuple[Architecture, State]] | None = None
    notes: tuple[str, ...] = ()


FAMILIES: Registry[str] = Registry("family of models")
FAMILIES.add("torchvision", "lwcore.sources.zoo")
FAMILIES.add("timm", "lwcore.sources.zoo_timm")
FAMILIES.add("huggingface", "lwcore.sources.zoo_huggingface")
FAMILIES.add("transformers", "lwcore.sources.text.family")


def is_named(ref: str) -> bool:
    """Whether a reference names a model of a family."""
    return ":" in ref and ref.partition(":")[0] in FAMILIES


def load_named(ref: str, progress: Progress = silent) -> Model:
    """Load `FAMILY:NAME`, or `FAMILY:NAME:none` for the structure with seeded random weights; raises `ModelError`."""
    family, _, rest = ref.partition(":")
    name, _, weights = rest.partition(":")
    if not name or weights not in ("", "none") or rest.endswith(":"):
        raise ModelError(f"Expected {family}:NAME or {family}:NAME:none, found {ref[:120]!r}.")
    model: Model = import_module(FAMILIES[family]).load(name, not weights, progress)
    return model


def find_architecture(ref: str) -> Architecture:
    """The structure that `FAMILY:NAME` names; raises `ModelError`."""
    family, _, name = ref.partition(":")
    if not is_named(ref) or ":" in name or not hasattr(module := import_module(FAMILIES[family]), "architecture"):
        raise ModelError(
            f"Expected an architecture as torchvision:NAME, timm:NAME or transformers:NAME, found {ref[:120]!r}. "
            "`python -m lwcore hub WORDS` lists their names."
        )
    found: Architecture = module.architecture(name)
    return found
