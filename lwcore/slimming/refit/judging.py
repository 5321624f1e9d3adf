"""How near a slimmed graph's answers stay to the original's, on calibration inputs that took no part in the re-fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lwcore.domains import domain
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.runtime import Feed, count, run, session, shared_session
from lwcore.samples import SampleSet
from lwcore.similarity import change
from lwcore.slimming.refit.calibration import answers

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

CLEAR = 3  # standard deviations of a lead between equals

_ANSWERS: dict[tuple[str, str, str, int], list[np.ndarray]] = {}


def gather_answers(model: Model, samples: SampleSet, held: list[Feed]) -> list[np.ndarray]:
    """The original's answers on inputs held out of the samples, remembered for the last few."""
    key = (*samples.key(model), sum(map(count, held)))
    if key not in _ANSWERS:
        while len(_ANSWERS) >= 8:
            _ANSWERS.pop(next(iter(_ANSWERS)))
        _ANSWERS[key] = answers(Graph.view(model), held)
    return _ANSWERS[key]


def no_worse(model: Model, samples: SampleSet, fitted: Graph, plain: Graph, held: list[Feed]) -> bool:
    """True when the re-fitted graph is at least as near to the original as the one that is only cut.

    Near is how often a classifier agrees, and how little the outputs of any other model change.

    Once the re-fit leads clearly the rest of the inputs held out is not asked any more; nor is their second half where
    it does not trail on the first.
    """
    if not domain(model).classes:
        truth = gather_answers(model, samples, held)
        return change(answers(fitted, held), truth) <= change(answers(plain, held), truth)
    truth = gather_answers(model, samples, held)[0].argmax(axis=1)
    return _agrees_as_often(shared_session(fitted.serialize()), session(plain.serialize()), held, truth)


def _agrees_as_often(fitted: InferenceSession, plain: InferenceSession, held: list[Feed], truth: np.ndarray) -> bool:
    """The same for classifiers, batch after batch until the re-fit leads clearly."""
    lead, apart, start, half = 0, 0, 0, (len(held) + 1) // 2
    for done, chunk in enumerate(held, 1):
        wanted = truth[start : start + count(chunk)]
        start += count(chunk)
        first, second = (run(each, chunk)[0].reshape(count(chunk), -1).argmax(axis=1) for each in (fitted, plain))
        lead += int((first == wanted).sum()) - int((second == wanted).sum())
        apart += int(((first == wanted) != (second == wanted)).sum())
        if lead > CLEAR * apart**0.5 or (done == half and lead >= 0):
            return True
    return lead >= 0


def nearer(dense: Graph, fitted: Graph, plain: Graph, held: list[Feed]) -> tuple[Graph, list[str]]:
    """The re-fitted graph where its outputs move no more than without the re-fit, else the plain one and a note."""
    truth = answers(dense, held)
    if change(answers(fitted, held), truth) <= change(answers(plain, held), truth):
        return fitted, []
    return plain, ["Compensation was left out: it did not bring unseen samples nearer to the original."]
