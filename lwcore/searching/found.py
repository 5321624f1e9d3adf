"""`Found`: what a search ends with, whether it keeps the target, and why in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lwcore import units
from lwcore.evaluation import Evaluation
from lwcore.scenarios import pareto
from lwcore.searching.beliefs import Goal
from lwcore.searching.devices import Fit
from lwcore.searching.problem import Score
from lwcore.searching.targets import Limit
from lwcore.searching.trials import Trial
from lwcore.slimming import Slimmed
from lwcore.slimming.budget.allocate import Sensitivity


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One limit and the number that was measured for it."""

    limit: Limit
    found: float

    @property
    def met(self) -> bool:
        """Whether the limit is kept."""
        return self.limit.met(self.found)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"name": self.limit.name, "limit": self.limit.value, "found": self.found, "met": self.met}


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search ends with.

    Attributes:
        slimmed: model, recipe, costs, notes.
        met: every limit is kept by the measured numbers, the drop on the held-out samples too.
        words: why this one, or which limit cannot be kept and how near it came.
        verdicts: limit by limit.
        evaluation: on all samples, timed alone.
        held_out: on the samples that took no part in choosing; None where there were too few.
        considered: candidates that were looked at on the held-out samples before this one was taken, itself included.
        trials: everything that was measured, the original first.
        fit: on the target's device, where it names one.
        sensitivity: as it was measured or given; None where no budget was tried.
    """

    slimmed: Slimmed
    met: bool
    words: str
    verdicts: tuple[Verdict, ...]
    evaluation: Evaluation
    held_out: Score | None
    considered: int
    trials: tuple[Trial, ...]
    fit: Fit | None
    sensitivity: Sensitivity | None

    @property
    def front(self) -> tuple[Trial, ...]:
        """The trials that no other beats in both size and quality, smallest first."""
        return front(self.trials)

    def to_json(self) -> dict[str, Any]:
        """What the task `search` returns, beside the model's fingerprint."""
        held_out = self.held_out
        return {
            **self.slimmed.to_json(),
            "met": self.met,
            "words": self.words,
            "limits": [verdict.to_json() for verdict in self.verdicts],
            "evaluation": self.evaluation.to_json(),
            "held_out": held_out
            and {
                "n": held_out.n,
                "quality": held_out.quality,
                "reference": held_out.reference,
                "drop": held_out.drop,
            },
            "considered": self.considered,
            "front": [trial.shown() for trial in self.front],
            "trials": [trial.shown() for trial in self.trials],
            "fit": None if self.fit is None else self.fit.to_json(),
        }


def front(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """The trials that no other beats in both size and quality, smallest first."""
    done = [trial for trial in trials if trial.cost is not None]
    points = [(float(t.cost.size_bytes), t.score.quality) for t in done if t.cost is not None and t.score is not None]
    return tuple(done[index] for index in pareto(points))


def words(goal: Goal, verdicts: Sequence[Verdict], met: bool, trials: Sequence[Trial], considered: int) -> str:
    """Why this one, or which limit cannot be kept and how near it came."""
    count = sum(trial.error is None for trial in trials)
    kept = "; ".join(v.limit.words(v.found) for v in verdicts if v.met)
    if met:
        wanted = _WANTED[goal.target.wanted]
        return f"Of {count} recipes measured, this one has {wanted} within the limits: {kept}."
    missed = [v for v in verdicts if not v.met]
    if not missed:
        return (
            f"Not met: on the samples that chose it the recipe keeps every limit ({kept}), but none of {considered} "
            "candidates kept the drop on samples held out from the choice as well. Use more samples, or allow more."
        )
    sentences = [f"Not met by any of {count} recipes measured. The nearest has {_joined(missed)}."]
    sentences += [_alone(goal, verdict, trials) for verdict in missed]
    return " ".join(sentences)


_WANTED = {
    "size": "the smallest file",
    "macs": "the fewest MACs",
    "speed": "the shortest time",
    "accuracy": "the smallest loss",
}


def _joined(verdicts: Sequence[Verdict]) -> str:
    return ", ".join(verdict.limit.words(verdict.found) for verdict in verdicts)


def _alone(goal: Goal, missed: Verdict, trials: Sequence[Trial]) -> str:
    """Whether anything kept this limit by itself."""
    limit = missed.limit
    others = [raw[limit.name] for trial in trials if limit.name in (raw := goal.raw(trial))]
    found = [missed.found, *others]
    best = max(found) if limit.least else min(found)
    if limit.met(best):
        return f"Others kept this limit, but not together with the rest: {limit.words(best)}."
    return f"Nothing tried came nearer to this limit: {limit.words(best)}."


def notes(score: Score | None, considered: int, choice: int, same_samples: bool) -> tuple[str, ...]:
    """What to know about the numbers."""
    said = []
    if score is None:
        said.append(
            f"There were too few samples ({choice}) to hold some out: the loss was measured on the samples that chose "
            "the recipe, which flatters it."
        )
    else:
        said.append(
            f"{choice} samples chose the recipe; on {score.n} others, which took no part in that, it loses "
            f"{score.drop:.2f} points ({considered} candidates were looked at there)."
        )
    if same_samples:
        said.append(
            "Calibrated (without labels) on the same samples it is measured on, which flatters the result a little."
        )
    return tuple(said)


def message(goal: Goal, trials: Sequence[Trial]) -> str:
    """How far a search is, in a few words."""
    done = [trial for trial in trials if trial.error is None]
    kept = [trial for trial in done if goal.misses(trial) == 0 and trial.cost and trial.choice]
    if not kept:
        return f"{len(done)} recipes measured; none within the limits yet"
    key = {"accuracy": lambda t: t.choice.drop, "macs": lambda t: t.cost.macs, "speed": lambda t: -(t.speedup or 0)}
    best = min(kept, key=key.get(goal.target.wanted, lambda t: t.cost.size_bytes))
    if best.cost is None or best.score is None:
        return ""
    return (
        f"{len(done)} recipes measured; best within the limits: {units.size(best.cost.size_bytes)}, "
        f"{best.score.drop:.1f} points lost"
    )
