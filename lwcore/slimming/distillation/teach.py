"""`teach`: train a slimmed model to answer as its teacher does, for as many minutes as there are.

The student is the graph itself, run through the ONNX→torch bridge; when it is done its weights go back into the same
graph by name. The loss is that of Hinton, Vinyals and Dean (arXiv 1503.02531), beside cross-entropy where labels are
wanted; for transformers TinyBERT's losses on inner tensors (Jiao et al., arXiv 1909.10351) come on top.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lwcore import runtime
from lwcore.errors import SlimError
from lwcore.model import Model
from lwcore.progress import Progress, silent
from lwcore.recipe import Distill, Precision
from lwcore.samples import SampleSet
from lwcore.settings import SETTINGS
from lwcore.slimming.distillation.course import Course
from lwcore.slimming.distillation.inner import pair_up
from lwcore.slimming.distillation.lessons import Taught, Watch
from lwcore.slimming.distillation.rounding import Rounding, int8_form
from lwcore.slimming.distillation.student import check_trainable
from lwcore.slimming.distillation.training import Seconds, Trainer

NO_LABELS = "There is no control beside the teacher: the samples have no labels to learn from alone."
NO_INNER = "Hidden states and attention maps were not found in both networks; only the answers were taught."


def teach(
    model: Model,
    step: Distill,
    samples: SampleSet,
    teacher: Model,
    seed: int = 0,
    *,
    control: bool = False,
    precision: Precision | None = None,
    progress: Progress = silent,
    watch: Watch = lambda taught: None,
    seconds: Seconds = time.monotonic,
) -> Taught:
    """Train a model.

    Args:
        model: the student; float32.
        step: for how long, and what counts.
        samples: what it learns from; labels are read for `step.labels`, for the control and to choose the best state.
        teacher: a model with the same outputs.
        control: train the same student for the same time with the labels alone, in turns with the other.
        precision: the static int8 that follows, for `step.int8`; its defaults when None.
        watch: told every look, with the best states so far.
        seconds: the clock by which minutes are counted.

    Raises:
        SlimError: the student cannot be trained, or teacher and student do not fit each other.
    """
    if step.labels >= 1 and samples.labels is None:
        raise SlimError("Training: expected labels or a teacher to learn from, found neither; lower the labels' share.")
    check_trainable(model)
    runtime.forget()
    with _threads(1 if step.steps else SETTINGS.threads):  # how sums are split changes the last digits of a replay
        room = _Room(model, step, samples, teacher, seed, precision, seconds)
        student = room.trainer(step.labels < 1)
        other = room.trainer(False) if control and room.has_control else None
        notes = [*room.notes, *([NO_LABELS] if control and not room.has_control and step.labels < 1 else [])]

        def stand() -> Taught:
            return Taught(student=student.best, control=other.best if other else None, notes=tuple(notes))

        watch(stand())
        for share in _in_turns([one.run() for one in (student, other) if one]):
            watch(stand())
            progress(share, "learning")
        return stand()


class _Room:
    """What the students of one training share."""

    def __init__(
        self,
        model: Model,
        step: Distill,
        samples: SampleSet,
        teacher: Model,
        seed: int,
        precision: Precision | None,
        seconds: Seconds,
    ) -> None:
        self._step, self._seconds, self._seed = step, seconds, seed
        self._precision = precision or Precision(format="int8-static")
        self._ready = int8_form(model) if step.int8 else model
        self._course = Course(samples, self._ready, teacher, seed)
        self._inner = pair_up(self._ready, teacher) if step.inner else None
        self.has_control = step.labels < 1 and samples.labels is not None and self._course.classes
        self.notes = (NO_INNER,) if step.inner and self._inner is None else ()

    def trainer(self, taught: bool) -> Trainer:
        """A student at the beginning of its training, by the teacher or by the labels alone."""
        return Trainer(
            self._ready,
            self._step,
            self._course,
            taught=taught,
            inner=self._inner if taught else None,
            rounder=self._rounding if self._step.int8 else None,
            seconds=self._seconds,
        )

    def _rounding(self, model: Model) -> Rounding:
        return Rounding(model, self._precision, self._course.train, self._seed)


def _in_turns(runs: list[Iterator[float]]) -> Iterator[float]:
    """Let everybody learn until the next look, again and again; yields the share of all that is over."""
    shares = [0.0] * len(runs)
    going = dict(enumerate(runs))
    while going:
        for number in list(going):
            share = next(going[number], None)
            if share is None:
                del going[number]
                share = 1.0
            shares[number] = share
            yield sum(shares) / len(shares)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
