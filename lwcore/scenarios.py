"""Scenarios: what was tried and what it measured; append-only, so that every number on a page can be gone back to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

from lwcore.analysis.cost import Cost
from lwcore.errors import EvaluationError
from lwcore.evaluation.result import Evaluation
from lwcore.evaluation.statistics import wilson
from lwcore.recipe import Recipe

ORIGINAL = -1  # number of an original that was measured beside another attempt only


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One measured attempt.

    Attributes:
        number: place in the log, from 0; set by `Log.add`.
        model: reference of the original (built-in id or fingerprint in the store).
        samples: reference of the sample set that it was measured on.
        slimmed: fingerprint of the slimmed model in the store.
        causes: why it is not smaller or faster, as the task `measure` found: `code`, `words` and `values` each.
    """

    number: int = 0
    model: str
    samples: str
    recipe: Recipe
    slimmed: str
    before: Cost
    after: Cost
    evaluation: Evaluation
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    causes: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def from_result(cls, model: str, samples: str, result: Mapping[str, Any]) -> Attempt:
        """Read what the task `measure` returned."""
        return cls(
            model=model,
            samples=samples,
            recipe=Recipe.from_json(result["recipe"]),
            slimmed=result["model"],
            before=Cost(**result["before"]),
            after=Cost(**result["after"]),
            seconds=result["seconds"],
            evaluation=_shared(samples, result),
            notes=tuple(result["notes"]),
            causes=tuple(result.get("causes", ())),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` reads it back to an equal attempt."""
        return {
            "number": self.number,
            "model": self.model,
            "samples": self.samples,
            "recipe": self.recipe.to_json(),
            "slimmed": self.slimmed,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "evaluation": self.evaluation.to_json(),
            "seconds": self.seconds,
            "notes": list(self.notes),
            "causes": [dict(cause) for cause in self.causes],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Attempt:
        """Read what `to_json` wrote; raises `EvaluationError` or `RecipeError` on anything else."""
        try:
            found = cls.from_result(data["model"], data["samples"], {**data, "model": data["slimmed"]})
            return replace(found, number=data["number"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EvaluationError(f"Expected the JSON of an attempt, found something else ({error}).") from None

    @property
    def quality(self) -> float:
        """What is plotted upwards, 0–1: top-1 accuracy, or agreement with the original where there are no labels."""
        return quality(self.evaluation)

    @property
    def is_original(self) -> bool:
        """True when nothing was done to the model."""
        return not self.recipe.steps


# A class measures the same recipes, and what changed in an evaluation are thousands of objects: they are held once.
_EVALUATIONS: WeakValueDictionary[tuple[Any, ...], Evaluation] = WeakValueDictionary()


def _shared(samples: str, result: Mapping[str, Any]) -> Evaluation:
    body = result["evaluation"]
    times = ("seconds", "latency_ms", "reference_latency_ms", "n", "top1", "agreement")  # no two measurements share all
    key = (samples, result["model"], result["seconds"], *(body.get(name) for name in times))
    found = _EVALUATIONS.get(key)
    if found is None:
        found = _EVALUATIONS[key] = Evaluation.from_json(body)
    return found


def original_of(attempt: Attempt) -> Attempt:
    """The original as an attempt, from what was measured beside any slimmed one: same samples, timed in turns."""
    if attempt.is_original:
        return attempt
    e, before = attempt.evaluation, attempt.before
    right = None if e.reference_top1 is None else wilson(round(e.reference_top1 * e.n), e.n)
    own = Evaluation(
        n=e.n,
        top1=right.value if right else None,
        top1_low=right.low if right else None,
        top1_high=right.high if right else None,
        agreement=1.0,
        agreement_low=1.0,
        agreement_high=1.0,
        latency_ms=e.reference_latency_ms,
        latency_low_ms=e.reference_latency_low_ms,
        latency_high_ms=e.reference_latency_high_ms,
        latency_batch=e.latency_batch,
        threads=e.threads,
        size_bytes=before.size_bytes,
        gzip_bytes=e.reference_gzip_bytes or 0,
        params=before.params,
        nonzeros=before.params,
        macs=before.macs,
    )
    return Attempt(
        number=ORIGINAL,
        model=attempt.model,
        samples=attempt.samples,
        slimmed=attempt.model,
        before=before,
        after=before,
        evaluation=own,
        recipe=Recipe(seed=attempt.recipe.seed),
    )


def quality(evaluation: Evaluation) -> float:
    """Top-1 accuracy, or agreement with the original where there are no labels; 0–1."""
    if evaluation.top1 is not None:
        return evaluation.top1
    if evaluation.similarity is not None:
        return max(0.0, evaluation.similarity)
    return 1.0 if evaluation.agreement is None else evaluation.agreement


@dataclass(frozen=True)
class Log:
    """The attempts of a session in the order in which they were measured; adding returns a new log."""

    attempts: tuple[Attempt, ...] = ()

    def add(self, attempt: Attempt) -> Log:
        """A log with one more attempt; an attempt that is known already is not added twice."""
        if self.find(attempt.model, attempt.samples, attempt.recipe):
            return self
        return Log((*self.attempts, replace(attempt, number=len(self.attempts))))

    def find(self, model: str, samples: str, recipe: Recipe) -> Attempt | None:
        """The attempt with exactly this model, samples and recipe, or None."""
        known = (a for a in self.attempts if (a.model, a.samples, a.recipe) == (model, samples, recipe))
        return next(known, None)

    def of(self, model: str, samples: str) -> tuple[Attempt, ...]:
        """The attempts that can be compared: same model, same samples."""
        return tuple(a for a in self.attempts if (a.model, a.samples) == (model, samples))


def pareto(points: Sequence[tuple[float, float]]) -> tuple[int, ...]:
    """Indexes of the points that no other beats: no other costs (x) at most as much and is worth (y) more.

    In the order of rising cost; of equal points the first.
    """
    front: list[int] = []
    best = float("-inf")
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i)):
        if points[index][1] > best:
            front.append(index)
            best = points[index][1]
    return tuple(front)
