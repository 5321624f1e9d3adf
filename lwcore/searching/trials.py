"""One trial: a recipe carried out and measured, in whatever process; plain bytes and JSON in, JSON out."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from lwcore.analysis.cost import Cost
from lwcore.errors import LwcoreError, SearchError
from lwcore.model import Model
from lwcore.progress import Progress, silent
from lwcore.recipe import Blocks, LowRank, Recipe
from lwcore.searching.footprint import Footprint, footprint
from lwcore.searching.problem import Problem, Score, said

TIMING_SECONDS = 0.2
WARM = 0.1  # share of its time after which the pace of a measurement is believed


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One recipe as it was measured.

    Attributes:
        number: place in the search, from 0 (the original).
        cost, choice, footprint: None where the recipe cannot be carried out; `error` then says why.
        held_out: the half that takes no part in choosing; None where there were too few samples to split.
        latency_ms, reference_latency_ms: rough, taken in turns beside other work; None unless time is limited.
        seconds: that the trial took.
    """

    number: int = 0
    recipe: Recipe
    cost: Cost | None = None
    choice: Score | None = None
    held_out: Score | None = None
    footprint: Footprint | None = None
    latency_ms: float | None = None
    reference_latency_ms: float | None = None
    seconds: float = 0.0
    error: str | None = None

    @property
    def score(self) -> Score | None:
        """On all samples."""
        return None if self.choice is None else self.choice.plus(self.held_out)

    @property
    def speedup(self) -> float | None:
        """How many times as fast as the original."""
        if not self.latency_ms or not self.reference_latency_ms:
            return None
        return self.reference_latency_ms / self.latency_ms

    def to_json(self) -> dict[str, Any]:
        """Everything; `from_json` reads it back."""
        return {
            **self.shown(),
            "choice": None if self.choice is None else asdict(self.choice),
            "held_out": None if self.held_out is None else asdict(self.held_out),
            "footprint": None if self.footprint is None else self.footprint.to_json(),
            "reference_latency_ms": self.reference_latency_ms,
        }

    def shown(self) -> dict[str, Any]:
        """What a page draws: few numbers, the quality on all samples."""
        score = self.score
        return {
            "number": self.number,
            "recipe": self.recipe.to_json(),
            "cost": None if self.cost is None else self.cost.to_json(),
            "quality": None if score is None else score.quality,
            "drop": None if score is None else score.drop,
            "latency_ms": self.latency_ms,
            "speedup": self.speedup,
            "ram_bytes": None if self.footprint is None else self.footprint.ram_bytes,
            "seconds": self.seconds,
            "error": self.error,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Trial:
        """Read what `to_json` wrote."""
        plain = ("number", "latency_ms", "reference_latency_ms", "seconds", "error")
        return cls(
            recipe=Recipe.from_json(data["recipe"]),
            cost=data["cost"] and Cost(**data["cost"]),
            footprint=data["footprint"] and Footprint.from_json(data["footprint"]),
            choice=data["choice"] and Score(**data["choice"]),
            held_out=data["held_out"] and Score(**data["held_out"]),
            **{name: data[name] for name in plain},
        )


# -- in the worker -------------------------------------------------------------------------------------------------


def carry_out(problem: bytes | str, request: str) -> str:
    """Carry out and measure one recipe.

    Args:
        problem: `Problem.to_bytes()`, or the path of a file that holds it.
        request: JSON: `recipe`; `sensitivity` or null; `timed`; `keep`: also give the slimmed model back.

    Returns:
        JSON: `trial` (`Trial.to_json()`), and with `keep` also `model` (base64), `notes` and `seconds` (of slimming).
    """
    asked = json.loads(request)
    posed = _read(problem)
    started = time.perf_counter()
    try:
        trial, extra = _measured(posed, asked)
    except Exception as error:  # foreign converters raise whatever they like; the search goes on without this recipe
        ours = isinstance(error, LwcoreError)
        said = str(error) if ours else f"The recipe failed in a way nobody foresaw ({type(error).__name__}: {error})."
        trial, extra = Trial(recipe=Recipe.from_json(asked["recipe"]), error=said[:500]), {}
    return json.dumps({"trial": replace(trial, seconds=time.perf_counter() - started).to_json(), **extra})


def find_sensitivity(problem: bytes | str, seconds: float | None = None) -> str:
    """The sensitivity of every group of channels as JSON; measured once for all trials.

    Args:
        seconds: that it may take; given up as soon as what is done shows that it will take longer.
    """
    from lwcore.slimming.budget.sensitivity import measure_sensitivity

    posed = _read(problem)
    try:
        return json.dumps(measure_sensitivity(posed.model, posed.calibration, _within(seconds)).to_json())
    except LwcoreError as error:
        return json.dumps({"error": str(error)})


def _within(seconds: float | None) -> Progress:
    """A listener that raises `SearchError` when, at the pace so far, the work will take longer than that."""
    if seconds is None:
        return silent
    started = time.perf_counter()

    def told(share: float, _: str) -> None:
        taken = time.perf_counter() - started
        if taken > WARM * seconds and taken > share * seconds:
            raise SearchError(f"Sensitivity would take longer than the {seconds:.0f} s that there are for it.")

    return told


def _measured(posed: Problem, asked: Mapping[str, Any]) -> tuple[Trial, dict[str, Any]]:
    from lwcore import runtime
    from lwcore.answers import outputs
    from lwcore.slimming import apply
    from lwcore.slimming.budget.allocate import Sensitivity

    known = asked["sensitivity"] and Sensitivity.from_json(asked["sensitivity"])
    recipe = Recipe.from_json(asked["recipe"])
    held = _measured_before(posed, recipe)
    slimmed = apply(posed.model, recipe, samples=posed.calibration, sensitivity=known, **held)
    runner = runtime.session(slimmed.model.data)
    choice, held_out = posed.score(said(posed.model, outputs(runner, slimmed.model, posed.samples)))
    trial = Trial(
        recipe=slimmed.recipe,
        cost=slimmed.after,
        choice=choice,
        held_out=held_out,
        footprint=footprint(slimmed.model),
        **(_timed(posed, slimmed.model) if asked["timed"] else {}),
    )
    if not asked["keep"]:
        return trial, {}
    extra = {"model": base64.b64encode(slimmed.model.data).decode(), "notes": list(slimmed.notes)}
    return trial, {**extra, "seconds": slimmed.seconds}


def _measured_before(posed: Problem, recipe: Recipe) -> dict[str, Any]:
    """What the first step would measure on the original, from the trials before in this process."""
    first = recipe.steps[0] if recipe.steps else None
    if isinstance(first, Blocks):
        return {"order": posed.order}
    return {"layers": posed.layers} if isinstance(first, LowRank) else {}


def _timed(posed: Problem, slimmed: Model) -> dict[str, Any]:
    from lwcore import runtime
    from lwcore.answers import feed
    from lwcore.timing import take_turns

    runs = []
    for model in (slimmed, posed.model):
        runner = runtime.session(model.data)
        batch = feed(model, posed.samples, 0, 1)
        runs.append(lambda runner=runner, batch=batch: runtime.run(runner, batch))
    after, before = take_turns(runs, TIMING_SECONDS)
    return {"latency_ms": after.median_ms, "reference_latency_ms": before.median_ms}


def _read(problem: bytes | str) -> Problem:
    return _of_bytes(problem) if isinstance(problem, bytes) else _of_file(problem)


@lru_cache(maxsize=2)
def _of_bytes(data: bytes) -> Problem:
    return Problem.from_bytes(data)


@lru_cache(maxsize=2)
def _of_file(path: str) -> Problem:
    return Problem.from_bytes(Path(path).read_bytes())
