"""The channels step: how many of each group go, which ones, the cut, and the compensation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from lwcore.analysis.coupling import Coupling, Group, couple
from lwcore.errors import SlimError
from lwcore.graph import Graph, written
from lwcore.model import Model
from lwcore.progress import Progress, part, silent
from lwcore.recipe import Channels
from lwcore.samples import SampleSet
from lwcore.similarity import change
from lwcore.slimming.budget.allocate import Sensitivity, share_out, share_out_by_clock
from lwcore.slimming.budget.levels import levers, uniform
from lwcore.slimming.budget.pricing import prices
from lwcore.slimming.pruning.criteria import BEST, CANDIDATES, CRITERIA
from lwcore.slimming.pruning.selection import Choice, choose
from lwcore.slimming.refit.calibration import answers, draw
from lwcore.slimming.refit.compensate import Cut, one_shot, readers, sequential
from lwcore.slimming.refit.judging import gather_answers, no_worse
from lwcore.slimming.refit.targets import gather_targets
from lwcore.slimming.rewrite import Keep, cut

FIT = 256  # samples for the re-fit: 512 were within a tenth of a point of accuracy, either way
NEAR = 0.1  # share of the original MACs by which blocks may miss the amount that was asked for


def removals(
    model: Model, step: Channels, sensitivity: Sensitivity | None = None, clock: bool = False
) -> dict[str, int]:
    """How many channels each group loses; at least one always stays.

    Amounts set by hand are taken as they are; an amount for all is met over the whole model, in whole blocks.

    Args:
        clock: measure whether a budget in time holds, instead of estimating it.

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
    by_hand = {name: portion(group, amount) for name, amount in step.groups.items() if (group := coupling.group(name))}
    if step.budget is not None and sensitivity is not None:
        share = share_out_by_clock if clock and step.budget.of == "latency" else share_out
        counts = share(model, step.budget, step.align, sensitivity, by_hand)
    elif step.align == 1 or not any(exact.values()):
        counts = exact
    else:
        counts = _in_blocks(model, step, exact)
    return counts | by_hand


def _in_blocks(model: Model, step: Channels, exact: dict[str, int]) -> dict[str, int]:
    """One amount for all in whole blocks; single channels where layers are too narrow to come near it in blocks."""

    known = prices(model)

    def macs(counts: dict[str, int]) -> int:
        return int(known.macs.total(known.removed(counts)))

    target = macs(exact)
    counts = uniform(levers(model, step.align), step.amount, macs, target)
    return counts if abs(macs(counts) - target) <= NEAR * macs({}) else exact


def reads_moments(step: Channels) -> bool:
    """True when a step needs statistics of the dense model, which serve every amount."""
    return CRITERIA[step.criterion].needs_samples or step.compensate == "one-shot"


def portion(group: Group, amount: float) -> int:
    """Channels that an amount takes from a group: the nearest whole number, leaving at least one."""
    return min(group.channels - 1, int(group.channels * amount + 0.5 - 1e-9))


def prune(
    model: Model,
    step: Channels,
    counts: Mapping[str, int],
    samples: SampleSet | None,
    seed: int,
    progress: Progress = silent,
) -> tuple[Model, list[str]]:
    """The slimmed model and notes.

    Args:
        counts: channels that each group loses, from `removals`.
        samples: calibration samples; may be None when neither criterion nor compensation needs them.

    Raises:
        SlimError: samples are needed and missing.
    """
    coupling, adjusts = couple(model), step.compensate != "none"
    if (CRITERIA[step.criterion].needs_samples or adjusts) and samples is None:
        raise SlimError(
            f"Criterion {step.criterion!r} with compensation {step.compensate!r} needs calibration samples; "
            "give some, or use criterion 'l2' and compensation 'none'."
        )
    if step.criterion == BEST:
        assert samples is not None  # it reads samples: see above
        return _best(model, step, counts, samples, seed, progress)
    read = samples if reads_moments(step) else None
    choice = choose(model, counts, step.criterion, read, np.random.default_rng(seed), adjusts)
    slim = cut(choice.dense, coupling, choice.keep)
    progress(0.2, "cut")
    notes = _notes(coupling, counts, choice.keep, step)
    if not adjusts or samples is None:
        return written(model, slim), notes
    fitted = _compensated(model, step, choice, slim, samples, progress)
    if fitted is None:
        return written(model, slim), [
            *notes,
            "Compensation was dropped: on samples held out from it, the answers stayed closer without.",
        ]
    return fitted, notes


def _compensated(
    model: Model, step: Channels, choice: Choice, plain: Graph, samples: SampleSet, progress: Progress
) -> Model | None:
    """The slim graph re-fitted; None where that lowers the agreement with the original on samples held out."""
    found = draw(model, samples, FIT)
    both = Cut(choice.dense, plain.copy(), couple(model), choice.keep, Graph.view(model), choice.turns)
    if step.compensate == "one-shot":
        one_shot(both, readers(model), choice.moments)
    else:
        known = gather_targets(model, samples, found.fit)
        sequential(both, found.fit, part(progress, 0.2, 0.95), known)
    fitted = written(model, both.slim)
    return fitted if no_worse(model, samples, fitted, plain, found.check) else None


def _best(
    model: Model, step: Channels, counts: Mapping[str, int], samples: SampleSet, seed: int, progress: Progress
) -> tuple[Model, list[str]]:
    """The outcome of the criterion whose answers stay nearest to the original's on samples held out from the re-fit."""
    check = draw(model, samples, FIT).check
    truth = gather_answers(model, samples, check)
    tried = []
    for position, name in enumerate(CANDIDATES):
        share = part(progress, position / len(CANDIDATES), (position + 1) / len(CANDIDATES))
        slim, notes = prune(model, replace(step, criterion=name), counts, samples, seed, share)
        tried.append((change(answers(Graph.view(model), check, slim.data), truth), position, slim, notes))
    _, position, slim, notes = min(tried, key=lambda one: one[:2])
    return slim, [*notes, f"Best on held-out calibration samples: {CRITERIA[CANDIDATES[position]].title}."]


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
