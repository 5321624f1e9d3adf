"""Which operator breaks int8, and the fewest operators in float32 that keep the loss within a limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lwcore.errors import SlimError
from lwcore.model import Model
from lwcore.progress import Progress, silent
from lwcore.recipe import Precision
from lwcore.samples import SampleSet
from lwcore.slimming.precision.static import Judge, calibrate, split
from lwcore.slimming.precision.write import Quantizer

SAMPLES = 64  # the outputs' error needs few; every operator runs twice over them
TRIES = 24  # operators that are tried in int8 again after enough of them are in float32
EXACT = 1e-9  # a limit is met to the digit; only the rounding of floats is forgiven


@dataclass(frozen=True, kw_only=True)
class NodeError:
    """What int8 does to the outputs through one operator: changes relative to the outputs' spread (1 is as large).

    Attributes:
        node: the operator's name.
        alone: error with only this operator in int8.
        without: error with all operators in int8 but this one.
    """

    node: str
    alone: float
    without: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class NodeErrors:
    """Every operator's errors in the order of the file, and the error with all of them in int8."""

    nodes: tuple[NodeError, ...]
    whole: float
    samples: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"nodes": [node.to_json() for node in self.nodes], "whole": self.whole, "samples": self.samples}


def node_errors(
    model: Model,
    samples: SampleSet,
    step: Precision | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> NodeErrors:
    """Measure each operator's part in what static int8 does to the outputs.

    Args:
        samples: calibration samples; ranges are read off `step.samples` of them, errors off at most 64.
        seed: chooses which samples calibrate.
        step: how to calibrate; what it keeps in float32 is left out.

    Raises:
        SlimError: there are no samples, or the model cannot be converted.
    """
    step = step or Precision(format="int8-static")
    if not len(samples):
        raise SlimError("Errors by operator: expected calibration samples, found none.")
    used, _ = split(samples, step, seed)
    way = calibrate(model, step, used)
    return errors_of(way, Judge(model=way.model, samples=used.take(SAMPLES)), step.keep, progress)


def errors_of(way: Quantizer, judge: Judge, keep: Sequence[str], progress: Progress = silent) -> NodeErrors:
    """`node_errors` of a calibrated model."""
    names = [name for name in way.operators() if name not in set(keep)]
    found = []
    for done, name in enumerate(names):
        progress(done / len(names), f"Measuring {name}")
        others = [other for other in names if other != name]
        found.append(
            NodeError(
                node=name,
                alone=judge.error(way.draft([*keep, *others])),
                without=judge.error(way.draft([*keep, name])),
            )
        )
    return NodeErrors(nodes=tuple(found), whole=judge.error(way.draft(keep)), samples=len(judge.samples))


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """Operators in float32 beside those the recipe keeps, points lost with them, and with everything in int8."""

    keep: tuple[str, ...]
    lost: float
    lost_all: float


def fewest_floats(way: Quantizer, choose: Judge, verify: Judge, keep: Sequence[str], limit: float) -> Mixed:
    """The fewest operators in float32 with which at most `limit` points are lost, on both sets of samples.

    Operators are ranked by the error they make alone and by how much the error falls without them (two that share a
    tensor with a bad range show in the first only); the shortest beginning of that ranking which meets the limit is
    found by doubling and halving, and then operators are given back one by one.

    Args:
        choose: ranks operators, on samples that also calibrated.
        verify: held-out samples.

    Raises:
        SlimError: the limit is met only with every operator in float32; the message says how near int8 came.
    """
    measured: dict[tuple[str, ...], float] = {}

    def lost(names: Sequence[str]) -> float:
        key = tuple(sorted(names))
        if key not in measured:
            data = way.draft([*keep, *names])
            measured[key] = max(choose.lost(data), verify.lost(data))
        return measured[key]

    def meets(names: Sequence[str]) -> bool:
        return lost(names) <= limit + EXACT

    if meets(()):
        return Mixed(keep=(), lost=verify.lost(way.draft(keep)), lost_all=lost(()))
    few = Judge(model=choose.model, samples=choose.samples.take(SAMPLES))
    found = errors_of(way, few, keep).nodes
    ranked = [error.node for error in sorted(found, key=lambda error: error.without - error.alone)]
    count = _shortest(ranked, meets)
    if count >= len(ranked):
        raise SlimError(
            f"Precision drop: expected int8 to lose at most {limit:g} points, found "
            f"{min(measured.values()):.2f} at best. Allow more, or choose fp16 or int8-weights."
        )
    chosen = _given_back(ranked[:count], meets)
    return Mixed(keep=tuple(chosen), lost=verify.lost(way.draft([*keep, *chosen])), lost_all=lost(()))


def _shortest(ranked: Sequence[str], meets: Any) -> int:
    """Length of the shortest beginning that meets the limit, as far as doubling and halving find it."""
    low, high = 0, 1
    while high < len(ranked) and not meets(ranked[:high]):
        low, high = high, high * 2
    high = min(high, len(ranked))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if meets(ranked[:middle]) else (middle, high)
    return high


def _given_back(names: Sequence[str], meets: Any) -> list[str]:
    """What still has to be in float32 when operators return to int8, the least harmful first."""
    kept = list(names)
    for name in list(reversed(names))[:TRIES]:
        rest = [other for other in kept if other != name]
        if rest and meets(rest):
            kept = rest
    return kept
