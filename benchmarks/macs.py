"""MACs and parameters against torchvision's published `_ops` and `num_params`, beside torchinfo, fvcore and ptflops.

    python benchmarks/macs.py [NAME ...]

Needs requirements-bench.txt. The first run exports every architecture (minutes); later runs read the cache.
`_ops` is published in GMACs with three decimals, so errors below half of the last digit are rounding.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torchvision import models

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lwcore.analysis.cost import cost
from lwcore.sources import zoo

NAMES = (
    "alexnet",
    "squeezenet1_1",
    "resnet18",
    "resnext50_32x4d",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0",
    "mnasnet0_5",
    "mnasnet1_0",
    "efficientnet_b0",
    "efficientnet_b1",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "densenet121",
    "googlenet",
    "convnext_tiny",
    "swin_t",
    "vit_b_16",
)
ROUNDING_GMACS = 0.0005

Counter = Callable[[nn.Module, int], tuple[float, float]]  # (network, input size) → GMACs, parameters


def by_torchinfo(network: nn.Module, size: int) -> tuple[float, float]:
    """torchinfo's own `total_mult_adds`."""
    from torchinfo import summary

    found = summary(network, (1, 3, size, size), verbose=0, device="cpu")
    return found.total_mult_adds / 1e9, found.total_params


def by_fvcore(network: nn.Module, size: int) -> tuple[float, float]:
    """fvcore's operator count (one multiply–add is one "flop" there)."""
    from fvcore.nn import FlopCountAnalysis, parameter_count

    counted = FlopCountAnalysis(network, torch.zeros(1, 3, size, size))
    counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return counted.total() / 1e9, parameter_count(network)[""]


def by_ptflops(network: nn.Module, size: int) -> tuple[float, float]:
    """ptflops with its default (aten) backend."""
    from ptflops import get_model_complexity_info

    macs, params = get_model_complexity_info(
        network, (3, size, size), as_strings=False, print_per_layer_stat=False, verbose=False
    )
    return (macs or float("nan")) / 1e9, params or float("nan")


TOOLS: dict[str, Counter] = {"torchinfo": by_torchinfo, "fvcore": by_fvcore, "ptflops": by_ptflops}


def error(found: float, published: float, rounding: float) -> float:
    """Relative error beyond what the published digits can show."""
    return max(abs(found - published) - rounding, 0.0) / published  # in this order, not-a-number stays not-a-number


def measure(name: str) -> dict[str, tuple[float, float]]:
    """(GMACs, parameters) by every tool; not-a-number where one fails."""
    model = zoo.load(name, pretrained=False)
    total = cost(model)
    results = {"SlimLab": (total.macs / 1e9, float(total.params))}
    for tool, count in TOOLS.items():
        network = models.get_model(name, weights=None).eval()
        try:
            with torch.no_grad():
                results[tool] = count(network, model.card.input.size[0])
        except Exception as failure:  # a tool that fails is a result of the comparison, and is printed
            print(f"{tool} fails on {name}: {type(failure).__name__}: {str(failure)[:100]}", file=sys.stderr)
            results[tool] = (float("nan"), float("nan"))
    return results


def main(names: tuple[str, ...]) -> None:
    """Print the table and the worst relative error of every tool."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    tools = ["SlimLab", *TOOLS]
    errors: dict[str, list[tuple[float, float]]] = {tool: [] for tool in tools}
    print("GMACs, and parameters in M".ljust(34), *(f"{tool:>20}" for tool in tools))
    for name in names:
        meta = models.get_model_weights(name).DEFAULT.meta
        results = measure(name)
        published = f"{name:20} {meta['_ops']:6.3f} {meta['num_params'] / 1e6:6.2f}"
        print(published, *(f"{m:12.4f} {p / 1e6:7.3f}" for m, p in results.values()), flush=True)
        for tool, (gmacs, params) in results.items():
            errors[tool].append((error(gmacs, meta["_ops"], ROUNDING_GMACS), error(params, meta["num_params"], 0)))
    for tool, pairs in errors.items():
        counted = [pair for pair in pairs if pair[0] == pair[0]]
        worst_macs, worst_params = (max(pair[i] for pair in counted) for i in (0, 1))
        exact = sum(pair[0] == 0 for pair in counted)
        print(
            f"{tool:10} worst relative error: MACs {worst_macs:.4f}, parameters {worst_params:.4f}; "
            f"MACs as published for {exact} of {len(pairs)}, failed on {len(pairs) - len(counted)}"
        )


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or NAMES)
