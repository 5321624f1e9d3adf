"""One student's training: batches, learning rate, looks at the held-out part, and the best state."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from lwcore import answers, runtime
from lwcore.errors import SlimError
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.recipe import Distill
from lwcore.samples import SampleSet
from lwcore.slimming.distillation import losses
from lwcore.slimming.distillation.course import Course, float_outputs
from lwcore.slimming.distillation.inner import Inner
from lwcore.slimming.distillation.lessons import Point, Trained
from lwcore.slimming.distillation.rounding import Rounding
from lwcore.slimming.distillation.student import Student, batch_of

LOOKS = 20  # at the held-out part, in all
PATIENCE = 12  # looks in a row without a better state, after which a training ends early
WARM_UP = 0.1  # share of the training in which the learning rate rises
_FIRST = 0.05  # of the highest rate, to begin with
ROUNDS_FROM = 0.6  # share of a training for int8 that goes by in floats, because that learns faster
_ROUNDED_RATE = 0.2  # of the rate from then on: batch norms are folded by then, and steps must be smaller
_CLIP = 5.0  # norm of all gradients together
_PROBE = 256  # samples that batch norms are measured on before they are put back


Seconds = Callable[[], float]  # a clock that only goes forward


class Clock:
    """Time that one student has had: it stands still while others have their turn."""

    def __init__(self, seconds: Seconds) -> None:
        self._seconds, self._spent, self._since = seconds, 0.0, seconds()

    def now(self) -> float:
        """Seconds so far."""
        return self._spent + self._seconds() - self._since

    def pause(self) -> None:
        """Somebody else's turn."""
        self._spent = self.now()

    def resume(self) -> None:
        """This student's turn again."""
        self._since = self._seconds()


class Trainer:
    """Trains one student; iterate over `run` to let it learn from look to look.

    Args:
        model: the student.
        step: what to learn, for how long.
        course: from what.
        taught: by the teacher; else from the labels alone (the control, and fine-tuning).
        inner: the teacher's inner tensors to be learnt too, where the networks have them.
        rounder: a model → where to round as int8 will, for training that prepares it. Every state is then judged as
            it will be rounded; the last part of the training rounds on the way forward, from the best state so far.
        seconds: the clock by which minutes are counted.
    """

    def __init__(
        self,
        model: Model,
        step: Distill,
        course: Course,
        *,
        taught: bool,
        inner: Inner | None = None,
        rounder: Callable[[Model], Rounding] | None = None,
        seconds: Seconds = time.monotonic,
    ) -> None:
        torch.manual_seed(course.seed)
        self._step, self._course, self._taught = step, course, taught
        self._inner, self._rounder = inner, rounder
        self._rounding: Rounding | None = None  # once it rounds on the way forward
        self._probe = answers.feed(model, course.train.take(answers.fixed_batch(Graph.view(model)) or _PROBE))
        self._watched = inner.of_student if inner else ()
        self._student = Student(model, self._probe, self._watched)
        self._size = batch_of(self._student.graph)
        self._floats = [self._student.graph.outputs.index(name) for name in float_outputs(self._student.graph)]
        self._curve: list[Point] = []
        self.best = Trained(model=model, curve=(self._point(0, None),))
        self._clock = Clock(seconds)  # from here on: what was made ready is not taken off the minutes of learning
        self._clock.pause()

    def run(self) -> Iterator[float]:
        """Learn; yields the share of the training that is over, at every look. `best` is up to date then."""
        optimizer = torch.optim.Adam(self._weights(), lr=self._step.rate)
        found, looked = list[float](), 0
        self._clock.resume()
        for steps, (epoch, index) in enumerate(self._batches()):
            share = self._share(steps)
            if steps and (int(share * LOOKS) > looked or share >= 1):  # something is learnt however short the time
                looked = int(share * LOOKS)
                self._look(steps, found)
                found.clear()
                self._clock.pause()
                yield 1.0 if self._hopeless() else min(share, 1.0)
                self._clock.resume()
                if share >= 1 or self._hopeless():
                    return
                if self._rounder and not self._rounding and share >= ROUNDS_FROM:
                    self._student, self._rounding = self._rounded(self.best.model)
                    optimizer = torch.optim.Adam(self._weights())
            factor = schedule(share if steps else 0.0) * (_ROUNDED_RATE if self._rounding else 1.0)
            for group in optimizer.param_groups:
                group["lr"] = self._step.rate * factor
            found.append(self._learn(optimizer, epoch, index))

    def _share(self, steps: int) -> float:
        return steps / self._step.steps if self._step.steps else self._clock.now() / (60 * self._step.minutes)

    def _batches(self) -> Iterator[tuple[int, np.ndarray]]:
        """Round and indexes of the samples, in an order drawn anew for every round."""
        count, epoch = len(self._course.train), 0
        while True:
            order = np.random.default_rng([self._course.seed, 1, epoch]).permutation(count)
            for start in range(0, max(count - self._size, 0) + 1, self._size):
                yield epoch, order[start : start + self._size]
            epoch += 1

    def _weights(self) -> list[nn.Parameter]:
        return [*self._student.parameters(), *(self._inner.parameters() if self._inner else ())]

    def _learn(self, optimizer: torch.optim.Optimizer, epoch: int, index: np.ndarray) -> float:
        """One batch; returns its loss."""
        self._student.mode(True)
        loss = self._loss(epoch, index)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._weights(), _CLIP)
        optimizer.step()
        self._student.keep_zeros()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise SlimError("Training: the loss is no number any more. Choose a lower learning rate.")
        return value

    def _loss(self, epoch: int, index: np.ndarray) -> torch.Tensor:
        found = [answer[: len(index)] for answer in self._student.answer(self._course.fed(epoch, index))]
        known = self._course.train.labels
        labels = 0.0 if known is None else self._step.labels if self._taught else 1.0
        parts: list[torch.Tensor] = []
        if not self._course.classes:
            parts.append(losses.compared([found[i] for i in self._floats], self._course.said(epoch, index)))
        elif labels < 1:
            said = self._course.said(epoch, index)[0]
            scores = found[0].reshape(len(said), -1)
            parts.append((1 - labels) * losses.softened(scores, said, self._step.temperature))
        if labels > 0 and known is not None:
            parts.append(labels * losses.labelled(found[0].reshape(len(index), -1), known[index]))
        if self._inner:
            inner = found[self._student.outputs :]
            told = self._course.for_teacher(self._course.view(epoch).pick(index))
            parts.append(self._step.inner * self._inner.loss(inner, told))
        return torch.stack(parts).sum()

    # -- looks ---------------------------------------------------------------------------------------------------

    def _look(self, steps: int, found: list[float]) -> None:
        point = self._point(steps, float(np.mean(found)) if found else None)
        better = point.score >= self.best.score
        self.best = Trained(model=self._student.model() if better else self.best.model, curve=tuple(self._curve))

    def _point(self, steps: int, loss: float | None) -> Point:
        point = Point(seconds=self._clock.now() if steps else 0.0, steps=steps, loss=loss, score=self._score())
        self._curve.append(point)
        return point

    def _hopeless(self) -> bool:
        """Whether nothing has become better for so long that nothing will."""
        scores = [point.score for point in self._curve]
        return len(scores) - 1 - max(i for i, s in enumerate(scores) if s == max(scores)) >= PATIENCE

    def _score(self) -> float:
        """How well the held-out part is answered; see `Point.score`."""
        judged, held = self._judged(), self._course.held_out
        judged.mode(False)
        with torch.inference_mode():
            parts = [
                [tensor.numpy()[: stop - start] for tensor in _outputs(judged, held, start, stop)]
                for start, stop in runtime.batches(len(held), self._size)
            ]
        found = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
        if self._course.classes:
            return float((found[0].reshape(len(held), -1).argmax(axis=1) == self._course.right).mean())
        wanted = self._course.said_of_held_out
        return float(np.mean([_cosine(found[i], said) for i, said in zip(self._floats, wanted, strict=True)]))

    def _judged(self) -> Student:
        """The student as it will be used: rounded, where int8 follows."""
        if self._rounding:
            self._rounding.measure(self._student)
        elif self._rounder:
            return self._rounded(self._student.model())[0]
        return self._student

    def _rounded(self, model: Model) -> tuple[Student, Rounding]:
        assert self._rounder is not None
        student, rounding = Student(model, self._probe, self._watched, renormalise=False), self._rounder(model)
        rounding.put_on(student)
        return student, rounding


def _outputs(student: Student, samples: SampleSet, start: int, stop: int) -> tuple[torch.Tensor, ...]:
    batch = answers.feed(student.origin, samples, start, stop)
    return student.answer(batch)[: student.outputs]


def schedule(share: float) -> float:
    """Factor of the learning rate: linear up, then down to zero as a cosine."""
    if share < WARM_UP:
        return _FIRST + (1 - _FIRST) * share / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (share - WARM_UP) / (1 - WARM_UP))))


def _cosine(found: np.ndarray, said: np.ndarray) -> float:
    """Mean cosine of the angle between two outputs, sample by sample."""
    ours, theirs = (array.reshape(len(array), -1).astype(np.float64) for array in (found, said))
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(np.mean((ours * theirs).sum(axis=1) / np.maximum(norms, 1e-12)))
