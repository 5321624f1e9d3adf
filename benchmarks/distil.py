"""Two minutes of distillation after a hard cut: accuracy beside the dense model, no training, and labels alone.

Channels are removed until 30 % of the multiply–accumulates are left and what reads them is re-fitted; then the model
is trained on 6,000 training images, once with the dense model as the teacher and once, for the same time and in turns,
with the labels alone. Minutes are those of two cores that do nothing else: twice as many minutes of processor time on
one thread, so that a busy machine gives the same table. Test images took part in nothing. What was measured is kept; a
run goes on where it ended, and two runs with other models can go side by side.

    python benchmarks/distil.py [--models NAME …] [--minutes 2] [--seeds 0 1] [--quick]
    python benchmarks/distil.py --int8 [--models NAME …]      what rounding in training is worth before int8
    python benchmarks/distil.py --curves [--models NAME]      the curves of one training, drawn for docs/guide.md
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["SLIMLAB_THREADS"] = "1"  # threads that wait for each other on a busy machine use up processor time

import lwcore
from benchmarks.distilling import aware, curves
from benchmarks.distilling.runs import Case, Outcome, outcome
from lwcore.settings import ROOT

PICTURE = ROOT / "docs" / "distillation.svg"
HEAD = "| model | seed | MACs left | dense | cut | labels alone | taught | points lost | over the control | steps |"


def text(name: str, seed: str, rows: list[Outcome]) -> str:
    """A line of the table: one run, or the mean of several."""
    shares = [fmean(getattr(row, part) for row in rows) for part in ("dense", "cut", "control", "taught")]
    told = " | ".join(f"{100 * share:.2f}" for share in shares)
    lost, won = 100 * (shares[0] - shares[3]), 100 * (shares[3] - shares[2])
    macs, steps = fmean(row.macs for row in rows), fmean(row.steps for row in rows)
    return f"| {name} | {seed} | {macs:.2f} | {told} | {lost:+.2f} | {won:+.2f} | {steps:.0f} |"


def table(cases: list[Case], fresh: bool) -> None:
    """Every run, and where there are several seeds each model's mean."""
    print(HEAD)
    print(f"|{'---|' * 10}")
    found: dict[str, list[Outcome]] = {}
    for case in cases:
        found.setdefault(case.name, []).append(outcome(case, fresh))
        print(text(case.name, str(case.seed), found[case.name][-1:]), flush=True)
    runs = [row for rows in found.values() for row in rows]
    if len(runs) > len(found):
        for name, rows in found.items():
            print(text(name, "mean", rows))
    for who, groups in {"runs": [[row] for row in runs], "models, mean of their seeds": list(found.values())}.items():
        near = sum(fmean(row.dense - row.taught for row in rows) <= 0.01 for rows in groups)
        better = sum(fmean(row.taught - (row.control or 0.0) for row in rows) > 0 for rows in groups)
        print(f"\n{who}: within 1 point of dense {near} of {len(groups)}; better than the control {better}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [name.removeprefix("fashion-") for name in lwcore.gallery() if name.startswith("fashion-")]
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--quick", action="store_true", help="200 test and 500 training images")
    parser.add_argument("--fresh", action="store_true", help="measure again what an earlier run has measured")
    parser.add_argument("--int8", action="store_true", help="compare training with and without rounding")
    parser.add_argument("--curves", action="store_true", help=f"draw the first of the models into {PICTURE.name}")
    options = parser.parse_args()
    cases = [
        Case(name=name, minutes=options.minutes, seed=seed, quick=options.quick)
        for name in options.models
        for seed in options.seeds
    ]
    if options.int8:
        print(f"{aware.HEAD}\n|{'---|' * 8}")
        for case in cases:
            print(aware.row(case, options.fresh), flush=True)
    elif options.curves:
        PICTURE.write_text(curves.drawn(cases[0], outcome(cases[0], options.fresh)), encoding="utf-8")
    else:
        table(cases, options.fresh)


if __name__ == "__main__":
    main()
