"""Batch norms put back for training where they were folded into convolutions, and folded in again afterwards.

Without them a slimmed MobileNetV2 diverged at rates at which it learns with them (measured on the built-in models).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lwcore.bridge import Network

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_KINDS: Mapping[int, type[nn.modules.batchnorm._BatchNorm]] = {3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_NORMALISING = ("BatchNormalization", "LayerNormalization", "GroupNormalization", "InstanceNormalization")

Norms = dict[nn.Module, nn.modules.batchnorm._BatchNorm]


def put_back(network: Network, inputs: Sequence[torch.Tensor]) -> Norms:
    """A batch norm behind every convolution with a bias, unless the network has normalisations of its own.

    Each begins as the identity: its statistics are measured on `inputs`, its scale and shift undo them.
    """
    if any(step.node.op_type in _NORMALISING for step in network.steps):
        return {}
    norms: Norms = {}
    for module, (mean, var) in _statistics(network, _biased(network), inputs).items():
        norm = _KINDS[weight_of(module).ndim](len(mean))
        norm.running_mean, norm.running_var = mean.clone(), var.clone()
        norm.weight.data, norm.bias.data = (var + norm.eps).sqrt(), mean.clone()
        norms[module] = norm
        module.register_forward_hook(lambda _, __, out, norm=norm: norm(out))  # type: ignore[misc]
    return norms


def _biased(network: Network) -> list[nn.Module]:
    """Convolutions with a bias that share neither it nor their weight with another layer."""
    readers = Counter(name for step in network.steps for name in step.node.input)
    return [
        step.module
        for step in network.steps
        if isinstance(step.module, CONVOLUTIONS)
        and step.module.bias is not None
        and all(readers[name] == 1 for name in step.node.input[1:3])
    ]


def _statistics(
    network: Network, modules: Iterable[nn.Module], inputs: Sequence[torch.Tensor]
) -> dict[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    """Mean and variance of each channel; a layer that answers one number a channel (a gate) has none of use."""
    seen: dict[nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}

    def look(module: nn.Module, _: Any, out: torch.Tensor) -> None:
        if out[0, 0].numel() > 1:
            axes = [axis for axis in range(out.ndim) if axis != 1]
            seen[module] = out.mean(axes), out.var(axes)

    hooks = [module.register_forward_hook(look) for module in modules]
    with torch.no_grad():
        network(*inputs)
    for hook in hooks:
        hook.remove()
    return seen


def weight_of(module: nn.Module) -> torch.Tensor:
    """Weight of a convolution."""
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight


def statistics(norm: nn.modules.batchnorm._BatchNorm) -> tuple[torch.Tensor, torch.Tensor]:
    """Running mean and variance."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var


def folded(module: nn.Module, norm: nn.modules.batchnorm._BatchNorm) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of the convolution alone that computes what it and its norm compute in evaluation."""
    mean, var = statistics(norm)
    weight, bias = weight_of(module), module.bias
    assert isinstance(bias, torch.Tensor)
    scale = norm.weight / (var + norm.eps).sqrt()
    return weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), (bias - mean) * scale + norm.bias
