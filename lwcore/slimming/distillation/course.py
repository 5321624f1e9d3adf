"""What is learnt from: the samples in two parts, their views, and what the teacher says about each of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from lwcore import answers, runtime
from lwcore.domains import domain
from lwcore.errors import SlimError
from lwcore.graph import Graph
from lwcore.model import InputSpec, Model
from lwcore.runtime import Feed
from lwcore.samples import SampleSet
from lwcore.slimming.distillation import views

LEAST = 20  # samples
HELD_OUT, MOST_HELD_OUT = 0.1, 1000  # share of the samples that a student never learns from, and how many at most
_ALIKE = 0.9  # share of mirrored pictures that the teacher must answer as before, for a student to see mirrored ones
_FED_BYTES = 1 << 29  # of inputs that are made ready beforehand
_ANSWER_BYTES = 1 << 29  # of the teacher's answers that are remembered

Answers = list[np.ndarray]  # one array an output, samples along the first axis


class Course:
    """Samples split by a seed, and the teacher's answers, asked once a view.

    Args:
        samples: as the student reads them.
        teacher: what it should answer like.

    Raises:
        SlimError: too few samples, or the teacher cannot read them.
    """

    def __init__(self, samples: SampleSet, student: Model, teacher: Model, seed: int) -> None:
        if len(samples) < LEAST:
            raise SlimError(f"Training: expected at least {LEAST} samples to learn from, found {len(samples)}.")
        order = np.random.default_rng(seed).permutation(len(samples))
        held = min(MOST_HELD_OUT, max(LEAST // 2, round(HELD_OUT * len(samples))))
        self.held_out, self.train = samples.pick(np.sort(order[:held])), samples.pick(np.sort(order[held:]))
        self.student, self.teacher, self.seed = student, teacher, seed
        self.classes = domain(student).classes
        self._said: dict[int, Answers] = {}
        self._known: dict[int, np.ndarray] = {}  # which of a view's answers are there
        self._seen: dict[int, SampleSet] = {}
        self._fed: dict[int, Feed] = {}
        _check_same_kind(student, teacher)

    @cached_property
    def said_of_held_out(self) -> Answers:
        """What the teacher says of the held-out part."""
        return self.ask(self.held_out)

    @cached_property
    def right(self) -> np.ndarray:
        """The class wanted of every held-out sample: its label, else the teacher's."""
        labels = self.held_out.labels
        return self.said_of_held_out[0].argmax(axis=1) if labels is None else labels

    @cached_property
    def flips(self) -> bool:
        """Whether pictures may be mirrored: the teacher does not mind."""
        if not views.are_pictures(self.held_out) or not self.classes:
            return False
        found = self.ask(views.mirrored(self.held_out))[0].argmax(axis=1)
        return bool((found == self.said_of_held_out[0].argmax(axis=1)).mean() > _ALIKE)

    def view(self, epoch: int) -> SampleSet:
        """The samples to learn from in this round; the same again every few rounds."""
        number = epoch % views.count(self.train)
        if number not in self._seen:
            self._seen[number] = views.moved(self.train, self.seed, number, self.flips)
        return self._seen[number]

    def fed(self, epoch: int, index: np.ndarray) -> Feed:
        """Some samples of that view as the student reads them; the whole view is made ready once where it fits."""
        number, view = epoch % views.count(self.train), self.view(epoch)
        if number not in self._fed:
            one = answers.feed(self.student, view, 0, 1)
            size = sum(array.nbytes for array in one.values()) * len(view) * views.count(self.train)
            whole = size <= _FED_BYTES and answers.fixed_batch(Graph.view(self.student)) is None
            self._fed[number] = answers.feed(self.student, view) if whole else {}
        known = self._fed[number]
        return {n: a[index] for n, a in known.items()} if known else answers.feed(self.student, view.pick(index))

    def said(self, epoch: int, index: np.ndarray) -> Answers:
        """The teacher's answers to some samples of that view, remembered.

        It is asked when they are wanted for the first time: asking about all of them may outlast the whole training.
        """
        number, view = epoch % views.count(self.train), self.view(epoch)
        known = self._known.get(number)
        new = index if known is None else index[~known[index]]
        if len(new):
            found = self.ask(view.pick(new))
            if known is None:
                known = self._make_room(number, found, len(view))
            for kept, rows in zip(self._said[number], found, strict=True):
                kept[new] = rows
            known[new] = True
        return [array[index] for array in self._said[number]]

    def _make_room(self, number: int, found: Answers, count: int) -> np.ndarray:
        """Arrays for a whole view's answers, and which of them are there; other views go when it gets too much."""
        made = [np.zeros((count, *array.shape[1:]), array.dtype) for array in found]
        if sum(a.nbytes for kept in (*self._said.values(), made) for a in kept) > _ANSWER_BYTES:
            self._said.clear()
            self._known.clear()
        self._said[number], self._known[number] = made, np.zeros(count, bool)
        return self._known[number]

    def for_teacher(self, samples: SampleSet) -> SampleSet:
        """Samples that were made for the student: pictures in the teacher's size and colours, others as they are."""
        spec = self.teacher.card.input
        if not views.are_pictures(samples) or not isinstance(spec, InputSpec):
            return samples.unlabelled()
        from lwcore.samples.pictures import fit_all

        return SampleSet(name=samples.name, arrays={"pixels": fit_all(samples.pixels, spec)})

    def ask(self, samples: SampleSet) -> Answers:
        """The teacher's outputs: class scores, or every output that holds floats."""
        seen = self.for_teacher(samples)
        if self.classes:
            return [answers.logits(self._session, self.teacher, seen)]
        parts: list[Sequence[np.ndarray]] = []
        for start, stop in runtime.batches(len(seen), answers.feed_size(self.teacher, seen)):
            batch = answers.feed(self.teacher, seen, start, stop)
            parts.append([array[: stop - start] for array in runtime.run(self._session, batch, self._floats)])
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    @cached_property
    def _session(self) -> Any:
        return runtime.session(self.teacher.data)

    @cached_property
    def _floats(self) -> list[str]:
        return float_outputs(Graph.view(self.teacher))


def float_outputs(graph: Graph) -> list[str]:
    """Names of the outputs that hold floats with one row a sample."""
    return [name for name in graph.outputs if graph.types.get(name) == 1 and 0 in graph.free.get(name, (0,))]


def _check_same_kind(student: Model, teacher: Model) -> None:
    if student.card.task != teacher.card.task:
        raise SlimError(
            f"Training: expected a teacher for the student's task, {student.card.task}; found one for "
            f"{teacher.card.task}. Choose another teacher."
        )
    ours, theirs = (_widths(m) for m in (student, teacher))
    if ours != theirs:
        raise SlimError(
            f"Training: expected a teacher with the student's outputs {ours}, found {theirs}. Choose a teacher with "
            "the same classes."
        )
    known, taught = student.card.classes, teacher.card.classes
    if known and taught and tuple(known) != tuple(taught):
        raise SlimError(
            f"Training: expected a teacher with the student's classes ({', '.join(known[:3])}, …), found others "
            f"({', '.join(taught[:3])}, …). Choose another teacher."
        )


def _widths(model: Model) -> list[tuple[int, ...]]:
    graph = Graph.view(model)
    names = graph.outputs[:1] if domain(model).classes else float_outputs(graph)
    return [tuple(graph.shape(name)[1:]) for name in names]
