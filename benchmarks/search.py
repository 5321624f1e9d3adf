"""What a minute of search finds on five built-in models, for the three goals that the page offers.

Each search starts with an empty journal and without sensitivity, as for a person who presses the button first. The
loss is told on all 2,000 test images and on the half of them that took no part in choosing. A search of 55 seconds ends
with its last measurement within the minute, so all fifteen take a quarter of an hour. Usage:
`python benchmarks/search.py [--seconds 55] [--models NAME …] [--goals drop size speed] [--seed 0]`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lwcore
from lwcore import units

GOALS = {
    "drop": ("lose at most 1 point, smallest", lwcore.Target(drop=1.0)),
    "size": ("fit 256 kB", lwcore.Target(size_bytes=256_000)),
    "speed": ("twice as fast, at most 1 point", lwcore.Target(speedup=2.0, drop=1.0)),
}
HEAD = ("model", "goal", "kept", "file", "of the original", "points lost", "on held-out", "times as fast",
        "recipes", "s", "recipe")  # fmt: skip


def main() -> None:
    """Search every goal on every model."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [name for name in lwcore.gallery() if name.startswith("fashion-")]
    parser.add_argument("--models", nargs="+", default=names, choices=names)
    parser.add_argument("--goals", nargs="+", default=list(GOALS), choices=list(GOALS))
    parser.add_argument("--seconds", type=float, default=55.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    kept, shares = 0, []
    for name in options.models:
        for goal in options.goals:
            found, seconds = searched(name, goal, options.seconds, options.seed)
            print(row(name, goal, found, seconds), flush=True)
            kept += found.met
            if goal == "drop":
                shares.append(found.slimmed.before.size_bytes / found.slimmed.after.size_bytes)
    print(f"\nGoals kept: {kept} of {len(options.models) * len(options.goals)}.")
    if shares:
        print(f"Times smaller within 1 point: {statistics.geometric_mean(shares):.1f} (geometric mean).")


def searched(name: str, goal: str, seconds: float, seed: int) -> tuple[lwcore.Found, float]:
    """One search and how long it took, all in all."""
    model = lwcore.load(name)
    samples = lwcore.load_samples("fashion-test", model)
    started = time.perf_counter()
    found = lwcore.search(model, samples, GOALS[goal][1], seconds=seconds, seed=seed)
    return found, time.perf_counter() - started


def row(name: str, goal: str, found: lwcore.Found, seconds: float) -> str:
    """A line of the table."""
    report, slimmed = found.evaluation, found.slimmed
    lost = 100 * ((report.reference_top1 or 0.0) - (report.top1 or 0.0))
    held_out = "–" if found.held_out is None else f"{found.held_out.drop:.2f}"
    fast = (report.reference_latency_ms or 0.0) / (report.latency_ms or 1.0)
    cells = (
        name, GOALS[goal][0], "yes" if found.met else "no", units.size(slimmed.after.size_bytes),
        f"{slimmed.after.size_bytes / slimmed.before.size_bytes:.2f}", f"{lost:.2f}", held_out, f"{fast:.2f}",
        str(sum(trial.error is None for trial in found.trials) - 1), f"{seconds:.0f}", words(slimmed.recipe),
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def words(recipe: lwcore.Recipe) -> str:
    """The recipe in a few words."""
    said = []
    for step in recipe.steps:
        if isinstance(step, lwcore.Channels):
            said.append(f"{step.budget.keep:.2f} of the {step.budget.of}" if step.budget else f"−{step.amount:.0%}")
        elif isinstance(step, lwcore.Precision):
            said.append(step.format)
        else:
            said.append(step.kind)
    return " + ".join(said) or "the original"


if __name__ == "__main__":
    main()
