"""Accuracy without any training at fixed shares of the MACs, beside Torch-Pruning 1.6.1 on the same images.

    python benchmarks/accuracy.py [--models resnet20 …] [--draws 3] [--quick]

Every arm removes whole channels, is held to MACs *not above* the target (an amount found by bisection; the share that
is really left is printed), may look at the same 512 unlabelled images and is judged on the same 2,000 test images.

The gallery's files have their batch norms folded, and Torch-Pruning needs a torch module with batch norms. So the
module is rebuilt from `tools/networks.py` with the folded weights, and each batch norm is set to the identity on the
dense model with real statistics of its input: recalibrating the pruned module then gives every channel back the mean
and the spread that it had in the dense model, exactly what recalibration does to an unfolded network.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from networks import NETWORKS, ConvNorm  # noqa: E402  (the path above comes first)

import lwcore  # noqa: E402
from lwcore.evaluation import reference  # noqa: E402
from lwcore.recipe import MOST  # noqa: E402
from lwcore.settings import SETTINGS  # noqa: E402
from lwcore.slimming.allocate import Sensitivity, measure_sensitivity  # noqa: E402

KEEP = (0.7, 0.5)  # shares of the MACs
CALIBRATION = 512  # images
STEPS = 12  # of a bisection: finer than one channel in the widest layer of the gallery
BATCH = 128
PARITY = 1e-3  # largest difference of a logit between the rebuilt module and the ONNX file
DENSE, PLAIN, RECALIBRATED = "dense", "Torch-Pruning", "Torch-Pruning + BN recalibration"
BUDGET = lwcore.Budget(of="macs")
OURS = {"ours": lwcore.Channels(),
        "ours, MACs budget": lwcore.Channels(budget=BUDGET),
        "ours, no blocks of 8": lwcore.Channels(align=1),
        "ours, one-shot": lwcore.Channels(compensate="one-shot"),
        "ours, L2": lwcore.Channels(criterion="l2"),
        "ours, L2, MACs budget": lwcore.Channels(criterion="l2", budget=BUDGET)}
ARMS = (*OURS, PLAIN, RECALIBRATED)


@dataclass(frozen=True)
class Outcome:
    """What one arm reached: accuracy (0–1) at a share of the MACs, or the name of the error that it ended in."""

    accuracy: float = 0.0
    share: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class Case:
    """One model with the images that every arm gets."""

    name: str
    model: lwcore.Model
    test: lwcore.SampleSet
    calibration: lwcore.SampleSet

    @cached_property
    def macs(self) -> int:
        """Of the dense model."""
        return lwcore.cost(self.model).macs

    @cached_property
    def sensitivity(self) -> Sensitivity:
        """Measured once for all budgets."""
        return measure_sensitivity(self.model, self.calibration)

    @cached_property
    def module(self) -> nn.Module:
        """The torch module that gives the same answers as the model."""
        return rebuild(self)

    def inputs(self, samples: lwcore.SampleSet) -> list[Tensor]:
        """The samples in batches, as the model reads them."""
        spec = self.model.card.input
        return [torch.from_numpy(samples.inputs(spec, i, i + BATCH)) for i in range(0, len(samples), BATCH)]


def narrowest_cut(price: Callable[[float], int], limit: float) -> float:
    """The smallest amount (to one part in 2^STEPS) whose MACs are not above the limit; MACs fall with the amount."""
    low, high = 0.0, MOST
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if price(middle) <= limit else (middle, high)
    if price(high) > limit:
        raise ValueError(f"expected at most {limit:.0f} MACs within reach, found {price(high)} at {high:.2f}")
    return high


# -- ours --------------------------------------------------------------------------------------------------------------


def ours(step: lwcore.Channels, case: Case, keep: float) -> Outcome:
    """One of our recipes at a share of the MACs."""
    if step.budget is not None:
        recipe = lwcore.Recipe(steps=(replace(step, budget=replace(step.budget, keep=keep)),))
        slim = lwcore.apply(case.model, recipe, case.calibration, case.sensitivity)
    else:
        def recipe_at(amount: float) -> lwcore.Recipe:
            return lwcore.Recipe(steps=(replace(step, amount=amount),))

        amount = narrowest_cut(lambda a: lwcore.plan(case.model, recipe_at(a)).after.macs, keep * case.macs)
        slim = lwcore.apply(case.model, recipe_at(amount), case.calibration)
    return Outcome(accuracy(case, slim.model), slim.after.macs / case.macs)


def accuracy(case: Case, model: lwcore.Model) -> float:
    """Top-1 of an ONNX model on the test images."""
    return lwcore.evaluate(model, case.test, latency=False).top1 or 0.0


# -- Torch-Pruning -----------------------------------------------------------------------------------------------------


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
    for path, (mean, variance) in _statistics(net, case.inputs(case.calibration)).items():
        _set(net.get_submodule(path).norm, mean, variance, shifts[path])
    _check(case, net)
    return net


def _normed(net: nn.Module) -> Iterator[tuple[str, ConvNorm]]:
    return ((path, layer) for path, layer in net.named_modules() if isinstance(layer, ConvNorm))


def _set(norm: Any, mean: Tensor, variance: Tensor, shift: Tensor) -> None:
    """Make a batch norm add `shift` and nothing else, whatever its statistics."""
    spread = torch.sqrt(variance + norm.eps)
    for target, value in ((norm.running_mean, mean), (norm.running_var, variance), (norm.weight.data, spread),
                          (norm.bias.data, mean + shift)):
        target.copy_(value)


@torch.no_grad()
def _statistics(net: nn.Module, inputs: list[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and variance of every normed convolution's output channels, over all images and positions."""
    sums: dict[str, list[Tensor]] = {path: [] for path, _ in _normed(net)}

    def note(path: str, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        flat = output.double().transpose(0, 1).flatten(1)
        sums[path].append(torch.stack([flat.sum(1), (flat**2).sum(1), torch.full_like(flat[:, 0], flat.shape[1])]))

    hooks = [layer.conv.register_forward_hook(partial(note, path)) for path, layer in _normed(net)]
    for batch in inputs:
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
    worst = float(np.abs(want - logits(net, case.inputs(case.test))).max())
    if worst > PARITY:
        raise SystemExit(f"{case.name}: the rebuilt module is {worst:.1e} off the file, expected at most {PARITY:.0e}.")
    if macs(net) != case.macs:
        raise SystemExit(f"{case.name}: expected {case.macs} MACs of the rebuilt module too, found {macs(net)}.")


@torch.no_grad()
def logits(net: nn.Module, inputs: list[Tensor]) -> np.ndarray:
    """(N, classes) of a module in eval mode."""
    return torch.cat([net.eval()(batch) for batch in inputs]).numpy()


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
    pruner = tp.pruner.BasePruner(small, torch.zeros(1, 1, 28, 28), importance, pruning_ratio=ratio,
                                  ignored_layers=[last])
    pruner.step()
    return small


@torch.no_grad()
def recalibrate(net: nn.Module, inputs: list[Tensor]) -> nn.Module:
    """Fresh batch-norm statistics: the plain average over the batches, nothing else in training mode."""
    for norm in (m for m in net.eval().modules() if isinstance(m, nn.BatchNorm2d)):
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    for batch in inputs:
        net(batch)
    return net.eval()


def torch_pruning(case: Case, keep: float) -> dict[str, Outcome]:
    """Both of Torch-Pruning's arms at a share of the MACs."""
    try:
        ratio = narrowest_cut(lambda r: macs(torch_pruned(case.module, r)), keep * case.macs)
        net = torch_pruned(case.module, ratio)
    except Exception as error:  # whatever a foreign library ends in is its result on this model
        return dict.fromkeys((PLAIN, RECALIBRATED), Outcome(error=type(error).__name__))
    share, labels, images = macs(net) / case.macs, case.test.labels, case.inputs(case.test)
    before = float((logits(net, images).argmax(1) == labels).mean())
    after = float((logits(recalibrate(net, case.inputs(case.calibration)), images).argmax(1) == labels).mean())
    return {PLAIN: Outcome(before, share), RECALIBRATED: Outcome(after, share)}


# -- the table ---------------------------------------------------------------------------------------------------------

Results = dict[tuple[str, float, str], list[Outcome]]  # (model, share kept, arm) → one outcome a draw


def drawn(samples: lwcore.SampleSet, draw: int, count: int) -> lwcore.SampleSet:
    """The product's own calibration images (the first ones) for draw 0, a seeded choice of all for the others."""
    if draw == 0:
        return samples.take(count)
    chosen = np.sort(np.random.default_rng(draw).choice(len(samples), count, replace=False))
    return replace(samples, pixels=samples.pixels[chosen], labels=None, names=())


def measure(name: str, draw: int, quick: bool, results: Results) -> None:
    """All arms on one model and one draw."""
    model = lwcore.load(f"fashion-{name}")
    test = lwcore.load_samples("fashion-test", model, limit=500 if quick else None)
    calibration = lwcore.load_samples("fashion-calibration", model)
    case = Case(name, model, test, drawn(calibration, draw, 128 if quick else CALIBRATION))
    dense = Outcome(accuracy(case, model), 1.0)
    for keep in KEEP:
        found = {DENSE: dense} | {arm: ours(step, case, keep) for arm, step in OURS.items()} | torch_pruning(case, keep)
        for arm, outcome in found.items():
            results.setdefault((name, keep, arm), []).append(outcome)
        print(f"{name}, draw {draw}, {keep:.0%}: " + ", ".join(f"{a} {_cell([o])}" for a, o in found.items()),
              file=sys.stderr, flush=True)


def _cell(outcomes: list[Outcome]) -> str:
    if outcomes[0].error:
        return outcomes[0].error
    values = [100 * o.accuracy for o in outcomes]
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 and len(set(values)) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread} ({statistics.mean(o.share for o in outcomes):.3f})"


def _lost(results: Results, names: list[str], keep: float, arm: str) -> float:
    """Mean points of accuracy lost over models and draws."""
    return statistics.mean(100 * (d.accuracy - o.accuracy) for name in names
                           for d, o in zip(results[name, keep, DENSE], results[name, keep, arm], strict=True))


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def report(results: Results, names: list[str]) -> None:
    """Print both tables."""
    print(_row(["model", "MACs to keep", DENSE, *ARMS]) + "\n" + _row(["---"] * (len(ARMS) + 3)))
    for name in names:
        for keep in KEEP:
            dense = f"{100 * results[name, keep, DENSE][0].accuracy:.1f}"
            print(_row([name, f"{keep:.0%}", dense, *(_cell(results[name, keep, arm]) for arm in ARMS)]))
    print("\nAccuracy in per cent, in brackets the share of the MACs really left.\n")
    both = [n for n in names if not any(results[n, keep, PLAIN][0].error for keep in KEEP)]
    heads = ["MACs to keep", "arm", "points lost, all models", "points lost, where Torch-Pruning works",
             "lost by Torch-Pruning + recalibration ÷ lost here"]
    print(_row(heads) + "\n" + _row(["---"] * len(heads)))
    for keep in KEEP:
        for arm in ARMS:
            everywhere = "–" if arm not in OURS and both != names else f"{_lost(results, names, keep, arm):.2f}"
            here = _lost(results, both, keep, arm) if both else 0.0
            ratio = f"{_lost(results, both, keep, RECALIBRATED) / here:.1f}" if here > 0 else "–"
            print(_row([f"{keep:.0%}", arm, everywhere, f"{here:.2f}" if both else "–", ratio]))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--draws", type=int, default=1, help="calibration draws; the table shows mean and deviation")
    parser.add_argument("--quick", action="store_true", help="500 test and 128 calibration images: does it run at all?")
    args = parser.parse_args()
    torch.set_num_threads(SETTINGS.threads)
    results: Results = {}
    for name in args.models:
        for draw in range(args.draws):
            measure(name, draw, args.quick, results)
    report(results, args.models)


if __name__ == "__main__":
    main()
