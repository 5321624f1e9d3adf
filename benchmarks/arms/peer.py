"""Torch-Pruning 1.6.1 on the same images, with and without fresh batch-norm statistics.

The gallery's files have their batch norms folded, and Torch-Pruning needs a torch module with batch norms. So the
module is rebuilt from `tools/networks.py` with the folded weights, and each batch norm is set to the identity on the
dense model with real statistics of its input: recalibrating the pruned module then gives every channel back the mean
and the spread that it had in the dense model, exactly what recalibration does to an unfolded network.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from networks import NETWORKS, ConvNorm
from onnx import numpy_helper
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import lwcore
from arms.cases import BATCH, Case, narrowest_cut
from arms.outcomes import PLAIN, RECALIBRATED, Outcome
from lwcore.answers import feed
from lwcore.evaluation import reference
from lwcore.settings import SETTINGS

torch.set_num_threads(SETTINGS.threads)
PARITY = 1e-3  # largest difference of a logit between the rebuilt module and the ONNX file


def inputs(case: Case, samples: lwcore.SampleSet) -> list[Tensor]:
    """Samples in batches, as the model reads them."""
    batches = (feed(case.model, samples, i, i + BATCH) for i in range(0, len(samples), BATCH))
    return [torch.from_numpy(array) for batch in batches for array in batch.values()]


def rebuild(case: Case) -> nn.Module:
    """The network of `tools/networks.py` with the file's weights and batch norms that change nothing."""
    stored = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in case.model.proto.graph.initializer}
    net = NETWORKS[case.name]().eval()
    shifts = {}
    for path, layer in _normed(net):
        layer.conv.weight.data.copy_(stored.pop(f"{path}.conv.weight"))
        shifts[path] = stored.pop(f"{path}.conv.bias", torch.zeros(layer.conv.out_channels))
        _set(layer.norm, torch.zeros_like(shifts[path]), torch.ones_like(shifts[path]), shifts[path])
    plain = {name: p for name, p in net.named_parameters() if ".conv." not in name and ".norm." not in name}
    for name, parameter in plain.items():
        parameter.data.copy_(stored[name])
    for path, (mean, variance) in _statistics(net, inputs(case, case.calibration)).items():
        _set(net.get_submodule(path).norm, mean, variance, shifts[path])
    _check(case, net)
    return net


def _normed(net: nn.Module) -> Iterator[tuple[str, ConvNorm]]:
    return ((path, layer) for path, layer in net.named_modules() if isinstance(layer, ConvNorm))


def _set(norm: Any, mean: Tensor, variance: Tensor, shift: Tensor) -> None:
    """Make a batch norm add `shift` and nothing else, whatever its statistics."""
    spread = torch.sqrt(variance + norm.eps)
    for target, value in (
        (norm.running_mean, mean),
        (norm.running_var, variance),
        (norm.weight.data, spread),
        (norm.bias.data, mean + shift),
    ):
        target.copy_(value)


@torch.no_grad()
def _statistics(net: nn.Module, batches: list[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and variance of every normed convolution's output channels, over all images and positions."""
    sums: dict[str, list[Tensor]] = {path: [] for path, _ in _normed(net)}

    def note(path: str, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        flat = output.double().transpose(0, 1).flatten(1)
        sums[path].append(torch.stack([flat.sum(1), (flat**2).sum(1), torch.full_like(flat[:, 0], flat.shape[1])]))

    hooks = [layer.conv.register_forward_hook(partial(note, path)) for path, layer in _normed(net)]
    for batch in batches:
        net(batch)
    for hook in hooks:
        hook.remove()
    found = {}
    for path, parts in sums.items():
        total, squares, count = torch.stack(parts).sum(0)
        found[path] = (total / count, (squares / count - (total / count) ** 2).clamp_min(0))
    return found


def _check(case: Case, net: nn.Module) -> None:
    want = reference(case.model, case.test).logits
    worst = float(np.abs(want - logits(net, inputs(case, case.test))).max())
    if worst > PARITY:
        raise SystemExit(f"{case.name}: the rebuilt module is {worst:.1e} off the file, expected at most {PARITY:.0e}.")
    if macs(net) != case.macs:
        raise SystemExit(f"{case.name}: expected {case.macs} MACs of the rebuilt module too, found {macs(net)}.")


@torch.no_grad()
def logits(net: nn.Module, batches: list[Tensor]) -> np.ndarray:
    """(N, classes) of a module in eval mode."""
    return torch.cat([net.eval()(batch) for batch in batches]).numpy()


def macs(net: nn.Module) -> int:
    """Multiply–accumulates of the operators that run on one image."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        net.eval()(torch.zeros(1, 1, 28, 28))
    return counter.get_total_flops() // 2


def torch_pruned(net: nn.Module, ratio: float) -> nn.Module:
    """A copy pruned by Torch-Pruning: group magnitude (p = 2), the same ratio everywhere, the classifier left whole."""
    import torch_pruning as tp

    small = copy.deepcopy(net).eval()
    *_, last = (m for m in small.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    pruner = tp.pruner.BasePruner(
        small, torch.zeros(1, 1, 28, 28), importance, pruning_ratio=ratio, ignored_layers=[last]
    )
    pruner.step()
    return small


@torch.no_grad()
def recalibrate(net: nn.Module, batches: list[Tensor]) -> nn.Module:
    """Fresh batch-norm statistics: the plain average over the batches, nothing else in training mode."""
    for norm in (m for m in net.eval().modules() if isinstance(m, nn.BatchNorm2d)):
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    for batch in batches:
        net(batch)
    return net.eval()


def torch_pruning(case: Case, keep: float) -> Iterator[Outcome]:
    """Both of Torch-Pruning's arms at a share of the MACs."""
    about = partial(Outcome, model=case.name, draw=case.draw, keep=keep)
    start = time.perf_counter()
    module = rebuild(case)
    try:
        ratio = narrowest_cut(lambda r: macs(torch_pruned(module, r)), keep * case.macs)
        net = torch_pruned(module, ratio)
    except Exception as error:  # whatever a foreign library ends in is its result on this model
        yield from (about(arm=arm, error=type(error).__name__) for arm in (PLAIN, RECALIBRATED))
        return
    seconds = time.perf_counter() - start
    share, labels, images = macs(net) / case.macs, case.test.labels, inputs(case, case.test)
    before = float((logits(net, images).argmax(1) == labels).mean())
    yield about(arm=PLAIN, score=before, share=share, seconds=seconds)
    after = float((logits(recalibrate(net, inputs(case, case.calibration)), images).argmax(1) == labels).mean())
    yield about(arm=RECALIBRATED, score=after, share=share, seconds=seconds)
