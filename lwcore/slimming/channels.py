"""The channels step: how many of each group go, which ones, the cut, and the compensation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lwcore.analysis.coupling import Coupling, Group, couple
from lwcore.analysis.statistics import affordable, feed
from lwcore.errors import SlimError
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.progress import Progress, part, silent
from lwcore.recipe import Channels
from lwcore.samples import SampleSet
from lwcore.slimming.allocate import Sensitivity, share_out
from lwcore.slimming.compensate import CALIBRATION, Cut, gather_moments, one_shot, sequential
from lwcore.slimming.criteria import CRITERIA, Evidence, scores
from lwcore.slimming.levels import levers, uniform
from lwcore.slimming.pricing import price
from lwcore.slimming.rewrite import Keep, cut

NEAR = 0.1  # share of the original MACs by which blocks may miss the amount that was asked for


def removals(model: Model, step: Channels, sensitivity: Sensitivity | None = None) -> dict[str, int]:
    """How many channels each group loses; at least one always stays.

    Amounts set by hand are taken as they are; an amount for all is met over the whole model, in whole blocks.

    Raises:
        SlimError: the step names a group that the model does not have, or a budget cannot be met.
    """
    coupling = couple(model)
    unknown = [name for name in step.groups if coupling.group(name) is None]
    if unknown:
        raise SlimError(
            f"groups.{unknown[0]}: expected a group of this model, found none of that name; "
            "`python -m lwcore groups MODEL` lists them."
        )
    exact = {group.name: portion(group, step.amount) for group in coupling.groups}
    if step.budget is not None and sensitivity is not None:
        counts = share_out(model, step.budget, step.align, sensitivity)
    elif step.align == 1 or not any(exact.values()):
        counts = exact
    else:
        counts = _in_blocks(model, step, exact)
    by_hand = {name: portion(group, amount) for name, amount in step.groups.items() if (group := coupling.group(name))}
    return counts | by_hand


def _in_blocks(model: Model, step: Channels, exact: dict[str, int]) -> dict[str, int]:
    """One amount for all in whole blocks; single channels where layers are too narrow to come near it in blocks."""

    def macs(counts: dict[str, int]) -> int:
        return price(model, counts).macs

    target = macs(exact)
    counts = uniform(levers(couple(model), step.align), step.amount, macs, target)
    return counts if abs(macs(counts) - target) <= NEAR * macs({}) else exact


def reads_moments(step: Channels) -> bool:
    """True when a step needs statistics of the dense model, which serve every amount."""
    return CRITERIA[step.criterion].needs_samples or step.compensate == "one-shot"


def portion(group: Group, amount: float) -> int:
    """Channels that an amount takes from a group: the nearest whole number, leaving at least one."""
    return min(group.channels - 1, int(group.channels * amount + 0.5 - 1e-9))


def keep_best(coupling: Coupling, counts: Mapping[str, int], evidence: Evidence, criterion: str) -> Keep:
    """A keep-mask that removes the lowest scores of each group; ties go by position."""
    keep = np.ones(coupling.units, dtype=bool)
    for group in coupling.groups:
        if counts[group.name] or criterion == "random":  # the lot is drawn for every group, so amounts share one order
            order = np.argsort(scores(criterion, evidence, group), kind="stable")
            keep[group.units[order[: counts[group.name]]]] = False
    return keep


def prune(
    model: Model,
    step: Channels,
    counts: Mapping[str, int],
    samples: SampleSet | None,
    seed: int,
    progress: Progress = silent,
) -> tuple[Graph, list[str]]:
    """The slimmed graph and notes.

    Args:
        counts: channels that each group loses, from `removals`.
        samples: calibration samples; may be None when neither criterion nor compensation needs them.

    Raises:
        SlimError: samples are needed and missing.
    """
    dense, coupling = Graph.of(model), couple(model)
    needs = CRITERIA[step.criterion].needs_samples or step.compensate != "none"
    if needs and samples is None:
        raise SlimError(
            f"Criterion {step.criterion!r} with compensation {step.compensate!r} needs calibration samples; "
            "give some, or use criterion 'l2' and compensation 'none'."
        )
    stats = gather_moments(model, samples) if reads_moments(step) and samples is not None else {}
    evidence = Evidence(dense, coupling, stats, np.random.default_rng(seed))
    keep = keep_best(coupling, counts, evidence, step.criterion)
    slim = cut(dense, coupling, keep)
    progress(0.2, "cut")
    both = Cut(dense, slim, coupling, keep)
    if step.compensate == "one-shot":
        one_shot(both, stats)
    elif step.compensate == "sequential" and samples is not None:
        count = affordable(dense, min(len(samples), CALIBRATION))
        inputs = list(feed(dense, samples.take(count), model.card.input))
        sequential(both, inputs, part(progress, 0.2, 1.0))
    return slim, _notes(coupling, counts, keep, step)


def _broken(coupling: Coupling, keep: Keep, align: int) -> bool:
    """True when a layer that held whole blocks of channels no longer does."""
    sizes = [(len(coupling.cuts[place]), np.count_nonzero(keep[coupling.cuts[place]])) for place in coupling.producers]
    return any(before % align == 0 and after % align for before, after in sizes)


def _notes(coupling: Coupling, counts: Mapping[str, int], keep: Keep, step: Channels) -> list[str]:
    notes = []
    if not coupling.groups:
        notes.append("Nothing could be removed: no group of channels is free in this model.")
    ignorant = sorted({f.reason.split(" (at")[0] for f in coupling.frozen if not f.meant})
    if ignorant:
        notes.append(f"Some channels stayed because a rule is missing: {'; '.join(ignorant)}.")
    if coupling.normalised and any(counts.values()):
        notes.append("A normalisation runs over removed channels; its statistics change slightly.")
    if step.align > 1 and _broken(coupling, keep, step.align):
        notes.append(
            f"Some layers no longer hold whole blocks of {step.align} channels, which most runtimes compute slowly."
        )
    if step.compensate == "none" and any(counts.values()):
        notes.append("No compensation: what the removed channels carried is simply lost.")
    return notes
