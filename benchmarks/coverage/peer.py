"""Prune one nn.Module with Torch-Pruning 1.6.1: its MagnitudePruner at 30 %, as its README shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.coverage.networks import Network
from benchmarks.coverage.ours import AMOUNT


def prune(name: str, stage: Callable[..., None]) -> dict[str, Any]:
    """Prune a network; the layers that make the network's outputs are ignored, as its README asks for."""
    import torch
    import torch_pruning as tp

    stage("read")
    network = Network(name)
    module, sample = network.build(), torch.zeros(network.shape)
    before = _channels(module)
    last = _output_layers(module)
    stage("prune")
    pruner = tp.pruner.MagnitudePruner(
        module,
        sample,
        importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=AMOUNT,
        ignored_layers=last,
    )
    pruner.step()
    with torch.no_grad():
        module.eval()(sample)
    stage("check")
    removable = sum(before.values()) - sum(before[id(layer)] for layer in last)
    after = _channels(module)
    gone = sum(size - after.get(key, size) for key, size in before.items())
    return {"runs": gone > 0, "removed": gone / max(1, removable), "error": "" if gone > 0 else "removed nothing"}


def _channels(module: Any) -> dict[int, int]:
    """Weight-carrying layer → output channels."""
    from torch import nn

    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    return {id(m): int(m.weight.shape[0]) for m in module.modules() if isinstance(m, kinds)}


def _output_layers(module: Any) -> list[Any]:
    """The layers that give as many outputs as there are classes."""
    from torch import nn

    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    classes = 400 if any("video" in type(m).__module__ for m in module.modules()) else 1000
    return [m for m in module.modules() if isinstance(m, kinds) and m.weight.shape[0] == classes]
