"""Allocation: a budget shared out over the levers by measured sensitivity, exactly priced, in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from lwcore.analysis.cost import constant_bytes
from lwcore.analysis.coupling import couple
from lwcore.errors import SlimError
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.recipe import Budget
from lwcore.slimming.budget.knapsack import Costs, Knapsack
from lwcore.slimming.budget.latency import Pace, share_of_time
from lwcore.slimming.budget.levels import Counts, Lever, levers, merged
from lwcore.slimming.budget.pricing import Prices, prices
from lwcore.slimming.rewrite import cut, keep_any

POWERS = (1.0, 0.7, 0.4, 0.0)  # ways of adding harms up; 0 forgets them and takes about the same share of every lever
BEYOND = 2  # power by which harm grows past the last measured share, as channels left become fewer
TRIES = 6  # measurements of a latency budget before it is given up
_LAST = 1e-3  # share that stands for the channel that always stays
_EVEN = 6  # power of the share that a lever loses where harms are forgotten: high enough to keep them alike


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Measured harm of slimming groups of channels; `measure_sensitivity` makes it.

    Attributes:
        harm: group → (share of its channels removed, harm) from nothing on, rising. Harms of groups that are slimmed
            together add up to what was measured for both.
        samples: how many calibration samples harm was measured on.
        powers: (share of the MACs left, power of the harms that shared out best at it); empty where none was tried.
        pace: the clock for latency budgets; None where it was not set.
    """

    harm: Mapping[str, tuple[tuple[float, float], ...]]
    samples: int
    powers: tuple[tuple[float, float], ...] = ()
    pace: Pace | None = field(default=None)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "harm": {name: [list(point) for point in points] for name, points in self.harm.items()},
            "samples": self.samples,
            "powers": [list(pair) for pair in self.powers],
            "pace": self.pace and asdict(self.pace),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Sensitivity:
        """Read what `to_json` wrote."""
        return cls(
            harm={name: tuple((float(x), float(y)) for x, y in points) for name, points in data["harm"].items()},
            samples=int(data["samples"]),
            powers=tuple((float(keep), float(power)) for keep, power in data["powers"]),
            pace=Pace(**data["pace"]) if data["pace"] else None,
        )

    def at(self, group: str, share: float) -> float:
        """Harm at any share: a square, so its root is linear between the measured ones; steeper past the last."""
        shares, harms = np.array(self.harm[group]).T
        if share > shares[-1]:
            return float(harms[-1] * ((1 - shares[-1] + _LAST) / (1 - share + _LAST)) ** BEYOND)
        return float(np.interp(share, shares, np.sqrt(harms)) ** 2)

    def power(self, keep: float) -> float:
        """The power that shared out best at the nearest share of the MACs that was tried."""
        return min(self.powers, key=lambda pair: abs(pair[0] - keep))[1] if self.powers else 1.0


def share_out(
    model: Model, budget: Budget, align: int, sensitivity: Sensitivity, fixed: Mapping[str, int] | None = None
) -> Counts:
    """Channels to remove from each group so that the model fits the budget with the least harm.

    Blocks are halved (8, 4, 2, 1) only where the budget cannot be met in whole ones. Costs are exact, but for latency,
    which is estimated here and measured by `share_out_by_clock`.

    Args:
        fixed: counts of groups that are not to be chosen for.

    Raises:
        SlimError: even with every group at its smallest the model does not fit.
    """
    known, given = prices(model), dict(fixed or {})
    if not known.groups:
        raise SlimError("Expected a model with channels that can be removed to share out a budget, found none.")
    costs = _costs(known, budget, sensitivity)
    whole = float(costs(known.removed({})))
    limit = budget.keep * whole
    while True:
        choices = _free(levers(model, align), given)
        found = _shared(known, choices, costs, limit, budget, sensitivity, given)
        if found is None and align == 1:
            smallest = given | merged(choices, [len(lever.stops) - 1 for lever in choices])
            left = float(costs(known.removed(smallest))) / whole
            raise SlimError(
                f"budget.keep: expected a share that can be reached, found {budget.keep:g}; with every group at its "
                f"smallest, {left:.2f} of the {budget.of} are left."
            )
        if found is None:
            align //= 2
            continue
        extra = _uncounted(model, found, known) if budget.of == "bytes" else 0
        if float(costs(known.removed(found))) + extra <= budget.keep * whole:
            return found
        limit -= extra


def share_out_by_clock(
    model: Model, budget: Budget, align: int, sensitivity: Sensitivity, fixed: Mapping[str, int] | None = None
) -> Counts:
    """`share_out` for a budget in time, each proposal measured beside the original until one holds.

    Raises:
        SlimError: no proposal was fast enough; the message says how near the fastest came.
    """
    asked, fastest = budget.keep, float("inf")
    for tried in range(TRIES):
        try:
            counts = share_out(model, replace(budget, keep=asked), align, sensitivity, fixed)
        except SlimError:
            if not tried:
                raise
            break  # the clock asks for more than can be removed
        took = share_of_time(model, counts)
        if took <= budget.keep:
            return counts
        fastest = min(fastest, took)
        asked *= 0.97 * budget.keep / took
    raise SlimError(
        f"budget.keep: expected a share of the time that can be reached, found {budget.keep:g}; the fastest "
        f"proposal took {fastest:.2f} of the original's time. Set a larger share, or a budget in MACs."
    )


def _costs(known: Prices, budget: Budget, sensitivity: Sensitivity) -> Costs:
    if budget.of == "latency":
        pace = sensitivity.pace
        if pace is None:
            raise SlimError("budget.of: a budget in time needs a sensitivity with times; measure it on this machine.")
        return lambda removed: pace.of(known.macs.total(removed), known.values.total(removed))
    return {"macs": known.macs, "params": known.params, "bytes": known.bytes}[budget.of].total


def _free(choices: list[Lever], given: Mapping[str, int]) -> list[Lever]:
    """Levers without a group that was set by hand."""
    return [lever for lever in choices if not any(group.name in given for group in lever.groups)]


def _shared(
    known: Prices,
    choices: list[Lever],
    costs: Costs,
    limit: float,
    budget: Budget,
    sensitivity: Sensitivity,
    given: Counts,
) -> Counts | None:
    power, base = sensitivity.power(budget.keep), known.removed(given)
    problem = Knapsack(
        removed=[np.array([known.removed(stop) for stop in lever.stops]) for lever in choices],
        harms=[_harms(lever, sensitivity, power) for lever in choices],
        costs=lambda removed: costs(removed + base),
        limit=limit,
    )
    stops = problem.solve()
    return None if stops is None else dict.fromkeys(known.groups, 0) | merged(choices, stops) | given


def _harms(lever: Lever, sensitivity: Sensitivity, power: float) -> np.ndarray:
    """Harm of each stop; among harmless ones the first is least."""
    shares = np.array([lever.share(stop) for stop in range(len(lever.stops))])
    if power == 0:
        return np.asarray(shares**_EVEN)
    summed = [sum(sensitivity.at(g.name, stop[g.name] / g.channels) for g in lever.groups) for stop in lever.stops]
    return np.asarray(np.maximum.accumulate(np.array(summed) ** power) + 1e-9 * shares)


def _uncounted(model: Model, counts: Counts, known: Prices) -> int:
    """Bytes that a real cut has beyond its price: shape constants that nodes no longer share."""
    coupling = couple(model)
    slim = cut(Graph.view(model), coupling, keep_any(coupling, counts))
    return max(
        0, sum(constant_bytes(slim, name) for name in slim.constants) - int(known.bytes.total(known.removed(counts)))
    )
