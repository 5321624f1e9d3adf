"""Low rank, dropped blocks and removed channels at the same share of multiply–accumulates, without training.

Accuracy lost in points on the built-in models, on test images that took no part in calibration. A budget in MACs is
given to low rank and to channels; of the residual blocks as many are dropped as come nearest to it from above
("–" where a model has too few); the mixture gives half of the saving (in logarithms) to channels and the rest to low
rank. What is really left is in brackets.

    python benchmarks/lowrank.py [--models NAME …] [--keep 0.7 0.5 0.3] [--quick]
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lwcore
from lwcore.errors import LwcoreError
from lwcore.slimming.blocks import blocks, dropping_order
from lwcore.slimming.budget.allocate import Sensitivity
from lwcore.slimming.budget.sensitivity import measure_sensitivity
from lwcore.slimming.lowrank.spectra import Layers, measure_layers

KEEP = (0.7, 0.5, 0.3)
NEAR = 0.05  # blocks may leave so much more or less than asked for, as a share of the MACs
CALIBRATION = 640  # images: 512 to fit, 128 to check


@dataclass(frozen=True)
class Case:
    """A model with its images, and what is measured once for all shares."""

    model: lwcore.Model
    test: lwcore.SampleSet
    calibration: lwcore.SampleSet
    macs: int
    accuracy: float

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Its blocks in the order in which they are dropped."""
        return dropping_order(self.model, self.calibration)

    @cached_property
    def sensitivity(self) -> Sensitivity:
        """Of its groups of channels."""
        return measure_sensitivity(self.model, self.calibration)

    @cached_property
    def layers(self) -> Layers:
        """What its layers keep at every rank."""
        return measure_layers(self.model, self.calibration)


@dataclass(frozen=True)
class Outcome:
    """Points lost and the share of the MACs left; None where an arm cannot reach the share."""

    lost: float
    left: float


def low_rank(case: Case, keep: float) -> lwcore.Recipe | None:
    """Layers split in two."""
    return lwcore.Recipe(steps=(lwcore.LowRank(budget=lwcore.Budget(keep=keep)),))


def channels(case: Case, keep: float) -> lwcore.Recipe | None:
    """Channels removed."""
    return lwcore.Recipe(steps=(lwcore.Channels(budget=lwcore.Budget(keep=keep)),))


def dropped(case: Case, keep: float) -> lwcore.Recipe | None:
    """Residual blocks dropped."""
    size = {block.name: block.macs for block in blocks(case.model)}
    gone = [0.0]
    for name in case.order:
        gone.append(gone[-1] + size[name] / case.macs)
    count = min(range(len(gone)), key=lambda n: abs(1 - gone[n] - keep))
    if not count or abs(1 - gone[count] - keep) > NEAR:
        return None
    return lwcore.Recipe(steps=(lwcore.Blocks(names=case.order[:count]),))


def mixed(case: Case, keep: float) -> lwcore.Recipe | None:
    """Channels removed, then layers split in two."""
    half = lwcore.Budget(keep=keep**0.5)
    return lwcore.Recipe(steps=(lwcore.Channels(budget=half), lwcore.LowRank(budget=half)))


ARMS: dict[str, Callable[[Case, float], lwcore.Recipe | None]] = {
    "low rank": low_rank,
    "channels": channels,
    "blocks": dropped,
    "channels + low rank": mixed,
}


def load(name: str, quick: bool) -> Case:
    """A model ready to be measured."""
    model = lwcore.load(f"fashion-{name}")
    test = lwcore.load_samples("fashion-test", model, limit=500 if quick else None)
    calibration = lwcore.load_samples("fashion-calibration", model).take(160 if quick else CALIBRATION)
    top1 = lwcore.evaluate(model, test, latency=False).top1 or 0.0
    return Case(model, test, calibration, lwcore.cost(model).macs, top1)


def measure(case: Case, arm: str, keep: float) -> Outcome | None:
    """One arm at one share of the MACs."""
    recipe = ARMS[arm](case, keep)
    if recipe is None:
        return None
    first = recipe.steps[0]
    known = case.sensitivity if isinstance(first, lwcore.Channels) else None
    layers = case.layers if isinstance(first, lwcore.LowRank) else None
    try:
        slim = lwcore.apply(case.model, recipe, case.calibration, known, layers=layers)
    except LwcoreError:
        return None  # the budget is out of this arm's reach
    top1 = lwcore.evaluate(slim.model, case.test, latency=False).top1 or 0.0
    return Outcome(100 * (case.accuracy - top1), slim.after.macs / case.macs)


def cell(outcome: Outcome | None) -> str:
    """As it stands in the table."""
    return "–" if outcome is None else f"{outcome.lost:.2f} ({outcome.left:.2f})"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [name.removeprefix("fashion-") for name in lwcore.gallery() if name.startswith("fashion-")]
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--keep", nargs="+", type=float, default=KEEP)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--quick", action="store_true", help="500 test and 160 calibration images")
    options = parser.parse_args()
    found: dict[tuple[float, str], list[Outcome | None]] = {}
    print(f"| model | dense | MACs to keep | {' | '.join(options.arms)} |\n|{'---|' * (3 + len(options.arms))}")
    for name in options.models:
        case = load(name, options.quick)
        for keep in options.keep:
            row = [measure(case, arm, keep) for arm in options.arms]
            for arm, outcome in zip(options.arms, row, strict=True):
                found.setdefault((keep, arm), []).append(outcome)
            dense = f"{100 * case.accuracy:.1f}"
            print(f"| {name} | {dense} | {keep:.0%} | {' | '.join(map(cell, row))} |", flush=True)
    for keep in options.keep:
        row = [mean(found[keep, arm]) for arm in options.arms]
        print(f"| mean, where all work | | {keep:.0%} | {' | '.join(row)} |")


def mean(outcomes: list[Outcome | None]) -> str:
    """Mean loss where an arm reaches the share for every model."""
    reached = [outcome.lost for outcome in outcomes if outcome is not None]
    return f"{statistics.mean(reached):.2f}" if len(reached) == len(outcomes) else f"– ({len(reached)} work)"


if __name__ == "__main__":
    main()
