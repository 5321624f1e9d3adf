"""How near a slimmed graph's answers stay to the original's, on calibration inputs that took no part in the re-fit."""

from __future__ import annotations

import numpy as np

from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.runtime import Feed, count, run, session
from lwcore.samples import SampleSet
from lwcore.slimming.refit.calibration import answers

_ANSWERS: dict[tuple[str, str, str, int], np.ndarray] = {}


def gather_answers(model: Model, samples: SampleSet, held: list[Feed]) -> np.ndarray:
    """The original's answers on inputs held out of the samples, remembered for the last few."""
    key = (*samples.key(model), sum(map(count, held)))
    if key not in _ANSWERS:
        while len(_ANSWERS) >= 8:
            _ANSWERS.pop(next(iter(_ANSWERS)))
        _ANSWERS[key] = answers(Graph.view(model), held)
    return _ANSWERS[key]


def no_worse(model: Model, samples: SampleSet, fitted: Graph, plain: Graph, held: list[Feed]) -> bool:
    """True when the re-fitted graph agrees with the original at least as often as the one that is only cut.

    Half of the inputs held out decide when they speak for the re-fit, as they nearly always do; else all of them.
    """
    half = held[: (len(held) + 1) // 2]
    return any(
        _agrees_as_often(fitted, plain, inputs, gather_answers(model, samples, inputs)) for inputs in (half, held)
    )


def _agrees_as_often(fitted: Graph, plain: Graph, inputs: list[Feed], truth: np.ndarray) -> bool:
    """The same on these inputs; the cut graph runs until it has missed so many that it cannot win any more."""
    wanted = truth.argmax(axis=1)
    missed, start = int((answers(fitted, inputs).argmax(axis=1) != wanted).sum()), 0
    if not missed:
        return True
    runner = session(plain.serialize())
    for chunk in inputs:
        stop = start + count(chunk)
        found = run(runner, chunk)[0].reshape(count(chunk), -1).argmax(axis=1)
        missed -= int((found != wanted[start:stop]).sum())
        if missed <= 0:
            return True
        start = stop
    return False
