"""Sensitivity: how much a model's answers change when one lever of channels is slimmed, with everything else as it was.

Harm is the mean squared distance between the probabilities that the dense and the slimmed model give (Brier 1950), on
calibration samples that took no part in the re-fit. The slimmed model's logits are first scaled as fits best, since a
re-fit makes a model more timid without changing what it answers. Over 144 allocations of three built-in models (six
sets of 24) its rank correlation with the accuracy really lost was 0.70–0.97; the Kullback–Leibler divergence's was
0.58–0.97, that of the share of changed answers 0.54–0.92, that of the outputs' squared error 0.47–0.93. Each trial is a
whole removal as the recipe would do it, criterion and compensation included, since what is left to lose after
compensation is far from what is lost without.

Harms of single levers do not simply add up. So afterwards a few ways of adding them are tried at a few budgets, each
with a real removal, and the best is remembered with the harms: sharing out is then arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lwcore.analysis.coupling import couple
from lwcore.answers import feeds
from lwcore.domains import domain
from lwcore.errors import SlimError
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.progress import Progress, part, silent
from lwcore.recipe import Budget, Channels
from lwcore.runtime import Feed, blas, count, run, shared_session
from lwcore.samples import SampleSet
from lwcore.similarity import change
from lwcore.slimming.budget.allocate import POWERS, Sensitivity, share_out
from lwcore.slimming.budget.latency import measure_pace
from lwcore.slimming.budget.levels import Counts, Lever, levers
from lwcore.slimming.budget.pricing import price
from lwcore.slimming.pruning.channels import prune
from lwcore.slimming.refit.calibration import answers

ALIGN = 8  # harm is a property of how many channels go; the default's stops are as good a place to measure as any
FITTING, CHECKING = 256, 256  # samples of each part; halves of what there is where there is less
ALONE = 128  # samples that trials of a single lever are fitted on: there are many, and little is to be made up for
SHARES = (0.35, 0.7, 1.0)  # of the way to a lever's last stop: where harm is measured
KEEPS = (0.3, 0.5, 0.7)  # shares of the MACs at which ways of adding harms up are tried
WORK = 2e12  # multiply–accumulates that all trials together may take: half a minute on two small cores
SCALES = tuple(float(scale) for scale in np.exp(np.linspace(-0.7, 1.6, 24)))  # of the logits: 1 / temperature
FEWEST = 16  # samples that a trial of a very large model is still judged on


def measure_sensitivity(model: Model, samples: SampleSet, progress: Progress = silent) -> Sensitivity:
    """Slim each lever alone by several amounts, re-fit, and measure how far the answers move on held-out samples.

    Args:
        samples: for calibration, labels unused; one half fits and the other judges.
        progress: told the share done.

    Raises:
        SlimError: there is nothing to remove, or too few samples for a batch.
    """
    choices = levers(model, ALIGN)
    if not choices:
        raise SlimError("Expected a model with channels that can be removed to share out a budget, found none.")
    with blas().limit(limits=1, user_api="blas"):  # the same trials on every machine; see `apply`
        trial = _trial(model, samples, sum(len(_probes(lever)) for lever in choices))
        harm = _alone(trial, choices, part(progress, 0.0, 0.75))
        alone = Sensitivity(harm=harm, samples=trial.judges)
        return replace(alone, powers=_together(trial, alone, part(progress, 0.75, 0.98)), pace=measure_pace(model))


@dataclass(frozen=True)
class _Trial:
    """Removals carried out on one part of the samples and judged on the other."""

    model: Model
    step: Channels
    fitting: SampleSet
    inputs: list[Feed]
    wanted: list[np.ndarray]

    @property
    def judges(self) -> int:
        """How many samples judge."""
        return sum(map(count, self.inputs))

    def harm(self, counts: Counts) -> float:
        """How far the answers move when so many channels of the groups are removed.

        Mean squared distance of a classifier's probabilities; change of all outputs, each relative to its own power, of
        any other model.
        """
        full = {group.name: counts.get(group.name, 0) for group in couple(self.model).groups}
        slim, _ = prune(self.model, self.step, full, self.fitting, 0)
        if not domain(self.model).classes:
            return change(answers(Graph.view(self.model), self.inputs, slim.data), self.wanted)
        return _distance(_logits(slim.data, self.inputs), self.wanted[0])


def _trial(model: Model, samples: SampleSet, trials: int) -> _Trial:
    """Sequential compensation on hundreds of samples where that is affordable, else one-shot on few."""
    every = np.arange(len(samples))
    fitting = _spread(samples, every[::2], FITTING)
    checking = _spread(samples, every[1::2] if len(every) > 1 else every, CHECKING)
    one = max(price(model, {}).macs, 1) * (trials + len(KEEPS) * len(POWERS))
    step = Channels()
    if one * (3 * len(fitting) + len(checking)) > WORK:
        step = Channels(compensate="one-shot")
        checking = _spread(checking, np.arange(len(checking)), max(FEWEST, int(WORK / 2 / one)))
    inputs = list(feeds(model, checking))
    classes = domain(model).classes
    wanted = [_softmax(_logits(model.data, inputs))] if classes else answers(Graph.view(model), inputs)
    return _Trial(model, step, fitting, inputs, wanted)


def _spread(samples: SampleSet, places: np.ndarray, count: int) -> SampleSet:
    """At most `count` of the samples at these places, spread over them: sets are often sorted by class."""
    chosen = places[np.linspace(0, len(places) - 1, min(count, len(places))).round().astype(int)]
    return samples.pick(chosen).unlabelled()


def _logits(data: bytes, inputs: list[Feed]) -> np.ndarray:
    """(N, classes) outputs; their logarithms where rows already are distributions; yes and no for a single output."""
    runner = shared_session(data)
    rows = np.concatenate([run(runner, batch)[0].reshape(count(batch), -1) for batch in inputs]).astype(np.float64)
    if (rows >= 0).all() and np.allclose(rows.sum(axis=1), 1, atol=1e-3):
        rows = np.log(np.maximum(rows, 1e-9))
    return rows if rows.shape[1] > 1 else np.hstack([rows, np.zeros_like(rows)])


def _softmax(rows: np.ndarray) -> np.ndarray:
    raised = np.exp(rows - rows.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def _distance(logits: np.ndarray, wanted: np.ndarray) -> float:
    """Mean squared distance of the probabilities, at the temperature at which it is least."""
    return min(float(((_softmax(logits * scale) - wanted) ** 2).sum(axis=1).mean()) for scale in SCALES)


def _probes(lever: Lever) -> list[int]:
    """Stops to measure: those nearest to the wanted shares of the way, each once."""
    last = len(lever.stops) - 1
    shares = np.array([lever.share(stop) for stop in range(last + 1)])
    return sorted({int(np.argmin(np.abs(shares - way * shares[-1]))) for way in SHARES} - {0})


def _alone(trial: _Trial, choices: list[Lever], progress: Progress) -> dict[str, tuple[tuple[float, float], ...]]:
    """Points of harm for every group; a lever's harm is split among its groups by their channels."""
    found: dict[str, tuple[tuple[float, float], ...]] = {}
    quick = replace(trial, fitting=_spread(trial.fitting, np.arange(len(trial.fitting)), ALONE))
    for done, lever in enumerate(choices):
        stops = _probes(lever)
        harms = np.maximum.accumulate([0.0, *(quick.harm(lever.stops[stop]) for stop in stops)])
        channels = sum(group.channels for group in lever.groups)
        for group in lever.groups:
            found[group.name] = tuple(
                (lever.share(stop), float(harm) * group.channels / channels)
                for stop, harm in zip((0, *stops), harms, strict=True)
            )
        progress((done + 1) / len(choices), "measuring sensitivity")
    return found


def _together(trial: _Trial, alone: Sensitivity, progress: Progress) -> tuple[tuple[float, float], ...]:
    """At each of `KEEPS`, the power of the harms whose allocation does least harm when it is really carried out."""
    best: list[tuple[float, float]] = []
    for done, keep in enumerate(KEEPS):
        tried, allocations = dict[float, float](), dict[float, Counts]()
        for power in POWERS:
            known = replace(alone, powers=((keep, power),))
            try:
                counts = share_out(trial.model, Budget(of="macs", keep=keep), ALIGN, known)
            except SlimError:  # a model that cannot be made so small has nothing to learn here
                break
            same = next((p for p, other in allocations.items() if other == counts), None)
            tried[power] = trial.harm(counts) if same is None else tried[same]
            allocations[power] = counts
        if tried:
            best.append((keep, min(tried, key=lambda power: tried[power])))
        progress((done + 1) / len(KEEPS), "measuring sensitivity")
    return tuple(best)
