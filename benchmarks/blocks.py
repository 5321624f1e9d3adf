"""Whole blocks of channels against single ones: time of one batch, beside the original, in turns in one process.

Both cuts have about the same share of the MACs; what differs is whether layers keep multiples of eight channels.
Prints a Markdown table and the worst ratio of each arm. Usage: `python benchmarks/blocks.py [--models NAME …]`.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("SLIMLAB_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lwcore
from lwcore.answers import feed
from lwcore.runtime import run, session
from lwcore.timing import take_turns

AMOUNTS = (0.1, 0.2, 0.3, 0.4, 0.5)
BATCH = 64
SECONDS = 2.0  # for the arms of one row together


def main() -> None:
    """Time every arm of every model."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [name for name in lwcore.gallery() if name.startswith("fashion-")]
    parser.add_argument("--models", nargs="+", default=names, choices=names)
    print("| model | channels removed | MACs left, single / blocks | time, single | time, blocks of 8 |")
    print("|---|---|---|---|---|")
    worst = {"single": 0.0, "blocks": 0.0}
    for name in parser.parse_args().models:
        for amount in AMOUNTS:
            row = measure(name, amount)
            worst = {arm: max(worst[arm], row[arm][1]) for arm in worst}
            shares = " / ".join(f"{row[arm][0]:.2f}" for arm in worst)
            print(f"| {name} | {amount:.0%} | {shares} | {row['single'][1]:.2f} | {row['blocks'][1]:.2f} |", flush=True)
    print(f"\nTime as a share of the original's. Worst: single {worst['single']:.2f}, blocks {worst['blocks']:.2f}.")


def measure(name: str, amount: float) -> dict[str, tuple[float, float]]:
    """Arm → (share of the MACs, share of the time)."""
    model = lwcore.load(name)
    batch = feed(model, lwcore.load_samples("fashion-test", model), 0, BATCH)
    slims = {}
    for arm, align in (("single", 1), ("blocks", 8)):
        step = lwcore.Channels(amount=amount, align=align, criterion="l2", compensate="none")
        slims[arm] = lwcore.apply(model, lwcore.Recipe(steps=(step,)))
    runners = [session(data, threads=1) for data in (model.data, *(s.model.data for s in slims.values()))]
    dense, *times = take_turns([lambda r=r: run(r, batch) for r in runners], SECONDS)
    return {
        arm: (slim.after.macs / slim.before.macs, found.median_ms / dense.median_ms)
        for (arm, slim), found in zip(slims.items(), times, strict=True)
    }


if __name__ == "__main__":
    main()
