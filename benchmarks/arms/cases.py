"""One model with the images that every arm gets, and the arms of ours."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

import lwcore
from arms.outcomes import Outcome
from lwcore.answers import logits
from lwcore.recipe import MOST
from lwcore.runtime import shared_session
from lwcore.slimming.budget.allocate import Sensitivity
from lwcore.slimming.budget.sensitivity import measure_sensitivity

CALIBRATION = 512  # images
STEPS = 12  # of a bisection: finer than one channel in the widest layer of the gallery
BATCH = 128
BUDGET = lwcore.Budget(of="macs")
LIGHT = lwcore.Budget(of="macs", keep=0.95)  # the first layers that low rank splits cost next to nothing
CHANNELS: dict[str, tuple[lwcore.Channels, ...]] = {
    "ours": (lwcore.Channels(),),
    "ours, MACs budget": (lwcore.Channels(budget=BUDGET),),
    "ours, MACs budget, no blocks of 8": (lwcore.Channels(align=1, budget=BUDGET),),
    "ours, one-shot": (lwcore.Channels(compensate="one-shot"),),
    "ours, L2, MACs budget": (lwcore.Channels(criterion="l2", budget=BUDGET),),
}
OURS: dict[str, tuple[lwcore.Channels | lwcore.LowRank, ...]] = {
    **CHANNELS,
    "low rank": (lwcore.LowRank(budget=BUDGET),),
    "low rank, then channels": (lwcore.LowRank(budget=LIGHT), lwcore.Channels(budget=BUDGET)),
}  # what is left after the steps before it is the last step's to take


@dataclass(frozen=True)
class Case:
    """One model with its images."""

    name: str
    draw: int
    model: lwcore.Model
    test: lwcore.SampleSet
    calibration: lwcore.SampleSet

    @cached_property
    def macs(self) -> int:
        """Of the dense model."""
        return lwcore.cost(self.model).macs

    @cached_property
    def learnt(self) -> tuple[Sensitivity, float]:
        """Sensitivity, measured once for all budgets, and the seconds it took."""
        start = time.perf_counter()
        return measure_sensitivity(self.model, self.calibration), time.perf_counter() - start


def fashion(name: str, draw: int, quick: bool) -> Case:
    """A built-in model trained on Fashion-MNIST with one draw of calibration images."""
    model = lwcore.load(f"fashion-{name}")
    test = lwcore.load_samples("fashion-test", model, limit=500 if quick else None)
    calibration = lwcore.load_samples("fashion-calibration", model)
    return Case(name, draw, model, test, drawn(calibration, draw, 128 if quick else CALIBRATION))


def drawn(samples: lwcore.SampleSet, draw: int, count: int) -> lwcore.SampleSet:
    """The product's own calibration images (the first ones) for draw 0, a seeded choice of all for the others."""
    if draw == 0:
        return samples.take(count)
    chosen = np.sort(np.random.default_rng(draw).choice(len(samples), count, replace=False))
    return samples.pick(chosen).unlabelled()


def ours(case: Case, arm: str, keep: float, judge: Callable[[Case, lwcore.Model], float]) -> Outcome:
    """One of our recipes at a share of the MACs, judged by accuracy."""
    slim, learning = slimmed(case, arm, keep)
    return Outcome(
        model=case.name,
        draw=case.draw,
        keep=keep,
        arm=arm,
        score=judge(case, slim.model),
        share=slim.after.macs / case.macs,
        seconds=slim.seconds,
        learning=learning,
    )


def slimmed(case: Case, arm: str, keep: float) -> tuple[lwcore.Slimmed, float]:
    """What one of our recipes makes at a share of the MACs, and the seconds that a sensitivity took before it."""
    *before, last = OURS[arm]
    for step in before:
        keep /= step.budget.keep if step.budget else 1.0
    if last.budget is not None:
        last = replace(last, budget=replace(last.budget, keep=keep))
    elif isinstance(last, lwcore.Channels):
        last = replace(last, amount=_amount(case, last, keep))
    shared = not before and isinstance(last, lwcore.Channels) and last.budget is not None
    known, learning = case.learnt if shared else (None, 0.0)
    return lwcore.apply(case.model, lwcore.Recipe(steps=(*before, last)), case.calibration, known), learning


def _amount(case: Case, step: lwcore.Channels, keep: float) -> float:
    def macs(amount: float) -> int:
        return lwcore.plan(case.model, lwcore.Recipe(steps=(replace(step, amount=amount),))).after.macs

    return narrowest_cut(macs, keep * case.macs)


def accuracy(case: Case, model: lwcore.Model) -> float:
    """Top-1 of an ONNX model on the test images."""
    return lwcore.evaluate(model, case.test, latency=False).top1 or 0.0


def answers(case: Case, model: lwcore.Model) -> np.ndarray:
    """What a model gives every class on the test images, shape (N, classes); rows add up to 1."""
    found = logits(shared_session(model.data), model, case.test).astype(np.float64)
    shares = np.exp(found - found.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def narrowest_cut(price: Callable[[float], int], limit: float) -> float:
    """The smallest amount (to one part in 2^STEPS) whose MACs are not above the limit; MACs fall with the amount."""
    low, high = 0.0, MOST
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if price(middle) <= limit else (middle, high)
    if price(high) > limit:
        raise ValueError(f"expected at most {limit:.0f} MACs within reach, found {price(high)} at {high:.2f}")
    return high
