"""What training is asked and what it answers, as plain data: nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lwcore.domains import load_samples
from lwcore.model import Model
from lwcore.samples import SampleSet

NOT_BETTER = "Training did not improve the answers on the held-out samples, so the model was left as it was."


@dataclass(frozen=True, kw_only=True)
class Point:
    """One look at the held-out part.

    Attributes:
        seconds: spent on this student so far, its looks and its teacher's answers included.
        steps: batches learnt from.
        loss: mean since the last look; None at the first.
        score: share of right answers on the held-out part; where there are no labels, of answers like the teacher's;
            where there are no classes, the mean cosine similarity to the teacher's outputs.
    """

    seconds: float
    steps: int
    loss: float | None
    score: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One student: its best state on the held-out part, and its curve."""

    model: Model
    curve: tuple[Point, ...]

    @property
    def score(self) -> float:
        """That of the best state."""
        return max(point.score for point in self.curve)


@dataclass(frozen=True, kw_only=True)
class Taught:
    """What came of a distill step.

    Attributes:
        student: taught by the teacher.
        control: the same student after the same time with the labels alone; None where none was asked for or possible.
        notes: in plain words.
    """

    student: Trained
    control: Trained | None = None
    notes: tuple[str, ...] = ()

    def curves(self) -> dict[str, Any]:
        """Both curves as plain data."""
        return {
            "student": [point.to_json() for point in self.student.curve],
            "control": None if self.control is None else [point.to_json() for point in self.control.curve],
        }


def told(taught: Taught) -> tuple[str, ...]:
    """The notes, and in figures what the training brought."""
    first, last = taught.student.curve[0], taught.student.curve[-1]
    if taught.student.score <= first.score:
        return (NOT_BETTER, *taught.notes)
    return (
        f"Trained for {last.seconds:.0f} s and {last.steps} steps; on samples held out from the training "
        f"{100 * first.score:.1f} % before, {100 * taught.student.score:.1f} % after.",
        *taught.notes,
    )


Watch = Callable[[Taught], None]  # told at every look how things stand


def _load_teacher(ref: str) -> Model:
    from lwcore.sources import load  # reads files and imports torch for some of them: only where a step asks for it

    return load(ref)


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """How `apply` carries out distill steps.

    Attributes:
        teacher: a model by the reference in the step.
        samples: a training set by reference, for a model.
        control: train a control beside each student.
        watch: told every look, with the step's position in the recipe, the best states so far, and whether that is all.
        kept: what an earlier training was left at, by position: taken instead of training again.
    """

    teacher: Callable[[str], Model] = _load_teacher
    samples: Callable[[str, Model], SampleSet] = load_samples
    control: bool = False
    watch: Callable[[int, Taught, bool], None] = lambda position, taught, finished: None
    kept: Mapping[int, Taught] = field(default_factory=dict)
