"""Whether training that rounds as int8 will is worth it: the same student, as long, with and without, then int8."""

from __future__ import annotations

from dataclasses import replace

import lwcore
from benchmarks.distilling.runs import Case, outcome, student, top1
from lwcore.recipe import Precision, Recipe

HEAD = "| model | dense | cut | taught | taught, int8 | taught for int8 | taught for int8, int8 | gain |"


def row(case: Case, fresh: bool) -> str:
    """One model; in the last column the points that rounding in training gained."""
    plain, aware = outcome(case, fresh), outcome(replace(case, int8=True), fresh)
    step = Recipe(seed=case.seed, steps=(Precision(format="int8-static"),))
    small = [top1(lwcore.apply(student(c), step).model, case.test) for c in (case, replace(case, int8=True))]
    shares = (plain.dense, plain.cut, plain.taught, small[0], aware.taught, small[1])
    told = " | ".join(f"{100 * share:.2f}" for share in shares)
    return f"| {case.name} | {told} | {100 * (small[1] - small[0]):+.2f} |"
