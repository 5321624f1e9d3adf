"""How near a slimmed graph's answers stay to the original's, on calibration inputs that took no part in the re-fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from lwcore.analysis.cost import cost
from lwcore.answers import per_run, spread_out
from lwcore.domains import domain
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.runtime import Feed, count, run, session, shared_session
from lwcore.samples import SampleSet
from lwcore.similarity import change
from lwcore.similarity import fitted as same_width
from lwcore.slimming.refit.calibration import answers

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

CLEAR = 3  # standard deviations of a lead between equals
ASKED = 16  # samples asked at a time: after so many most re-fits lead clearly
WORK = 16 * 10**9  # multiply–accumulates of the original that may be spent before a lead of nothing is enough
FEWEST = 4  # samples that are asked however large the model
FEW = 32  # with fewer, one answer more or less says little, so the outputs must be nearer, too

_ANSWERS: dict[tuple[str, str, str, int], list[np.ndarray]] = {}


def gather_answers(model: Model, samples: SampleSet, held: list[Feed]) -> list[np.ndarray]:
    """The original's answers on inputs held out of the samples, remembered for the last few."""
    key = (*samples.key(model), sum(map(count, held)))
    if key not in _ANSWERS:
        while len(_ANSWERS) >= 8:
            _ANSWERS.pop(next(iter(_ANSWERS)))
        _ANSWERS[key] = answers(Graph.view(model), held, model.data)
    return _ANSWERS[key]


def no_worse(model: Model, samples: SampleSet, fitted: Model, plain: Graph, held: list[Feed]) -> bool:
    """True when the re-fitted model is at least as near to the original as the graph that is only cut.

    Near is how often a classifier agrees, and how little the outputs of any other model change.

    Once the re-fit leads clearly the rest of the inputs held out is not asked any more; nor is their second half where
    it does not trail on the first (or on as many as a large model can be asked in a moment). The cut graph is not asked
    at all where the re-fit agrees on each of 32 or more.
    """
    truth = gather_answers(model, samples, held)
    if not domain(model).classes:
        return change(answers(plain, held, fitted.data), truth) <= change(answers(plain, held), truth)
    enough = min((sum(map(count, held)) + 1) // 2, max(FEWEST, WORK // max(cost(model).macs, 1)))
    at_once = max(1, min(ASKED, enough)) if per_run(model) is None else None
    return _agrees_as_often(_Both(fitted, plain, list(_pieces(held, truth[0], at_once))), enough)


def _pieces(held: Sequence[Feed], truth: np.ndarray, at_once: int | None) -> Iterator[tuple[Feed, np.ndarray]]:
    """Inputs with the original's answers, at most so many samples at once; as they come where a file fixes that."""
    start = 0
    for batch in held:
        size = count(batch)
        for first in range(0, size, at_once or size):
            last = min(size, first + (at_once or size))
            yield {name: array[first:last] for name, array in batch.items()}, truth[start + first : start + last]
        start += size


@dataclass
class _Both:
    """The re-fitted classifier and the one that is only cut, asked piece by piece.

    Attributes:
        pieces: inputs, and the original's answers to them.
        own: the re-fitted one's answers to the first pieces.
    """

    fitted: Model
    plain: Graph
    pieces: list[tuple[Feed, np.ndarray]]
    own: list[np.ndarray] = field(default_factory=list)

    @cached_property
    def _cut(self) -> InferenceSession:
        return session(self.plain.serialize())

    def ask(self, place: int) -> np.ndarray:
        """The re-fitted one's answers to a piece, after those before it."""
        if place == len(self.own):
            self.own.append(_rows(self.plain, shared_session(self.fitted.data), self.pieces[place][0]))
        return self.own[place]

    def compare(self, place: int) -> tuple[int, int, np.ndarray]:
        """On one piece: how many agreements more the re-fit has, where only one agrees, and both squared distances."""
        batch, truth = self.pieces[place]
        one, two = self.ask(place), _rows(self.plain, self._cut, batch)
        right, other = agrees(one, truth), agrees(two, truth)
        distances = np.array([np.sum(np.subtract(*same_width(rows, truth)) ** 2) for rows in (one, two)])
        return int(right.sum()) - int(other.sum()), int((right != other).sum()), distances


def _rows(graph: Graph, runner: InferenceSession, batch: Feed) -> np.ndarray:
    return spread_out(graph, run(runner, batch))[0]


def agrees(rows: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Whether each sample is given the class that the original gives it."""
    return np.asarray(rows.argmax(axis=1) == truth.argmax(axis=1))


def _agrees_as_often(both: _Both, enough: int) -> bool:
    """Piece after piece until the re-fit leads clearly, or does not trail after `enough` samples."""
    if _agrees_always(both, enough):
        return True
    lead, apart, asked, distances = 0, 0, 0, np.zeros(2)
    for place, (batch, _) in enumerate(both.pieces):
        more, differ, moved = both.compare(place)
        lead, apart, asked, distances = lead + more, apart + differ, asked + count(batch), distances + moved
        now = asked - count(batch) < enough <= asked and (asked >= FEW or distances[0] <= distances[1])
        if lead > CLEAR * apart**0.5 or (now and lead >= 0):
            return True
    return lead >= 0


def _agrees_always(both: _Both, enough: int) -> bool:
    """True when the re-fit agrees on each of the first `enough` samples, and they are not few: none can do better."""
    asked = 0
    for place, (batch, truth) in enumerate(both.pieces):
        if asked >= enough:
            break
        asked += count(batch)
        if not agrees(both.ask(place), truth).all():
            return False
    return asked >= FEW


def nearer(dense: Graph, fitted: Graph, plain: Graph, held: list[Feed]) -> tuple[Graph, list[str]]:
    """The re-fitted graph where its outputs move no more than without the re-fit, else the plain one and a note."""
    truth = answers(dense, held)
    if change(answers(fitted, held), truth) <= change(answers(plain, held), truth):
        return fitted, []
    return plain, ["Compensation was left out: it did not bring unseen samples nearer to the original."]
