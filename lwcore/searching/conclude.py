"""The end of a search: the best candidate that also holds on samples held out from the choice, measured by itself."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lwcore.analysis.cost import cost
from lwcore.evaluation import Evaluation, Reference, evaluate
from lwcore.recipe import Recipe
from lwcore.samples import SampleSet
from lwcore.searching.beliefs import Goal
from lwcore.searching.devices import Fit, fit
from lwcore.searching.found import Found, Verdict, notes, words
from lwcore.searching.problem import Problem
from lwcore.searching.trials import Trial
from lwcore.slimming import Slimmed
from lwcore.slimming.budget.allocate import Sensitivity

FINALISTS = 6  # measured by themselves at most; each takes about as long as a trial


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a search has gathered.

    Attributes:
        samples, reference: as they were given, and the original's answers on them.
        order: numbers of the trials, the best first by estimate.
        looked: numbers of those whose held-out half was looked at while searching.
        again: carries out a recipe once more and gives its model.
    """

    problem: Problem
    goal: Goal
    samples: SampleSet
    reference: Reference
    trials: tuple[Trial, ...]
    order: tuple[int, ...]
    looked: frozenset[int]
    sensitivity: Sensitivity | None
    again: Callable[[Recipe], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class _Final:
    """A candidate measured by itself."""

    trial: Trial
    slimmed: Slimmed
    evaluation: Evaluation
    fit: Fit | None
    verdicts: tuple[Verdict, ...]

    @property
    def met(self) -> bool:
        return all(verdict.met for verdict in self.verdicts)


def conclude(case: Case) -> Found:
    """The first candidate, best first, that keeps every limit on held-out samples and measured alone; else the nearest.

    Candidates are those that keep the limits on the half that chose them.
    """
    looked, measured = set(case.looked), list[_Final]()
    for trial in _candidates(case):
        looked.add(trial.number)
        if _holds(case, trial):
            measured.append(_measured_alone(case, trial))
            if measured[-1].met:
                return _found(case, measured[-1], len(looked), met=True)
            if len(measured) == FINALISTS:
                break
    nearest = measured[0] if measured else _measured_alone(case, _nearest(case))
    return _found(case, nearest, max(len(looked), 1), met=False)


def _candidates(case: Case) -> list[Trial]:
    """Trials that keep every limit, the best first: by what was counted, or by estimate for what is noisy."""
    rank = {number: place for place, number in enumerate(case.order)}
    kept = [t for t in case.trials if t.number in rank and case.goal.misses(t) == 0]
    counted = {"size": "size_bytes", "macs": "macs", "device": "device_ms"}.get(case.goal.objective)
    if counted is None:
        return sorted(kept, key=lambda t: rank[t.number])
    return sorted(kept, key=lambda t: (case.goal.raw(t)[counted], rank[t.number]))


def _holds(case: Case, trial: Trial) -> bool:
    """Whether the drop is kept on the held-out samples, and so on all."""
    limit = case.goal.target.drop
    return limit is None or trial.held_out is None or trial.held_out.drop <= limit


def _nearest(case: Case) -> Trial:
    """The trial that misses least; of those that miss nothing where they were chosen, the least held-out drop."""
    done = [trial for trial in case.trials if trial.choice is not None]
    known = [trial for trial in done if {limit.name for limit in case.goal.limits} <= case.goal.raw(trial).keys()]

    def missing(trial: Trial) -> tuple[float, float]:
        score = trial.held_out or trial.choice
        return case.goal.misses(trial), score.drop if score else 0.0

    return min(known or done, key=missing)


def _measured_alone(case: Case, trial: Trial) -> _Final:
    """The candidate's file, made again, measured on all samples and timed while nothing else runs."""
    original = case.problem.model
    if not trial.recipe.steps:
        after, said, seconds = original, [], 0.0
    else:
        answer = case.again(trial.recipe)
        after = dataclasses.replace(original, data=base64.b64decode(answer["model"]))
        said, seconds = answer["notes"], answer["seconds"]
    slimmed = Slimmed(
        model=after,
        recipe=trial.recipe,
        before=cost(original),
        after=cost(after),
        seconds=seconds,
        notes=tuple(said),
    )
    report = evaluate(after, case.samples, against=original, reference=case.reference)
    device = case.goal.target.device
    return _Final(
        trial=trial,
        slimmed=slimmed,
        evaluation=report,
        fit=None if device is None else fit(after, device),
        verdicts=_verdicts(case, trial, report),
    )


def _verdicts(case: Case, trial: Trial, report: Evaluation) -> tuple[Verdict, ...]:
    """Every limit against the numbers that are shown."""
    found = case.goal.raw(trial) | {"drop": drop(report)}
    if report.latency_ms and report.reference_latency_ms:
        found |= {"latency_ms": report.latency_ms, "speedup": report.reference_latency_ms / report.latency_ms}
    return tuple(Verdict(limit=limit, found=found[limit.name]) for limit in case.goal.limits)


def drop(report: Evaluation) -> float:
    """Points lost against the original: of accuracy, of agreement without labels, of similarity without classes."""
    if report.top1 is not None and report.reference_top1 is not None:
        return 100 * (report.reference_top1 - report.top1)
    alike = report.agreement if report.similarity is None else report.similarity
    return 100 * (1 - (alike or 0.0))


def _found(case: Case, final: _Final, considered: int, met: bool) -> Found:
    same = case.problem.calibration.fingerprint == case.samples.fingerprint
    remarks = notes(final.trial.held_out, considered, case.problem.split, same)
    slimmed = dataclasses.replace(final.slimmed, notes=(*final.slimmed.notes, *remarks))
    return Found(
        slimmed=slimmed,
        met=met,
        words=words(case.goal, final.verdicts, met, case.trials, considered),
        verdicts=final.verdicts,
        evaluation=final.evaluation,
        held_out=final.trial.held_out,
        considered=considered,
        trials=case.trials,
        fit=final.fit,
        sensitivity=case.sensitivity,
    )
