"""`plan`: what a recipe will leave of a model, priced exactly and without cutting anything, in milliseconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from lwcore.analysis.cost import FLOATS, Cost, cost
from lwcore.analysis.coupling import couple
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.recipe import Channels, Precision, Recipe
from lwcore.slimming.allocate import Sensitivity
from lwcore.slimming.channels import removals
from lwcore.slimming.fold import parameters_folded
from lwcore.slimming.pricing import price, shapes_without
from lwcore.slimming.rewrite import cut, keep_any

_SHRINK = {"fp16": 0.5, "int8-dynamic": 0.25, "int8-static": 0.25}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A recipe's price. Parameters and MACs of `after` are exact; its bytes are an estimate.

    Attributes:
        amounts: group name → channels removed by the last channels step.
        needs_sensitivity: True when a budget is asked for and no sensitivity was given, so `after` ignores the budget.
    """

    before: Cost
    after: Cost
    amounts: Mapping[str, int] = field(default_factory=dict)
    needs_sensitivity: bool = False


def plan(model: Model, recipe: Recipe, sensitivity: Sensitivity | None = None) -> Plan:
    """Price a recipe.

    Args:
        sensitivity: measured harm a group, needed by a step with a budget.

    Raises:
        SlimError: the recipe names a group that the model does not have.
    """
    before = now = cost(model)
    current, counts, missing = model, dict[str, int](), False
    for position, step in enumerate(recipe.steps):
        if isinstance(step, Channels):
            missing = missing or (step.budget is not None and sensitivity is None)
            counts = removals(current, step, sensitivity if current is model else None)
            now = price(current, counts, now.size_bytes)
            if any(isinstance(later, Channels) for later in recipe.steps[position + 1 :]):
                slim = cut(Graph.of(current), couple(current), keep_any(couple(current), counts))
                current = dataclasses.replace(current, data=slim.serialize())
        elif isinstance(step, Precision):
            now = _with_fewer_bits(current, counts, now, step)
    return Plan(before=before, after=now, amounts=counts, needs_sensitivity=missing)


def _with_fewer_bits(model: Model, counts: Mapping[str, int], now: Cost, step: Precision) -> Cost:
    graph = Graph.view(model)
    floats = sum(a.nbytes for n, a in graph.constants.items() if graph.types[n] in FLOATS)
    total = sum(a.nbytes for a in graph.constants.values())
    saved = round(now.weight_bytes * (floats / max(total, 1)) * (1 - _SHRINK[step.format]))
    folded = 0 if step.format == "fp16" else parameters_folded(graph, shapes_without(model, counts))
    return dataclasses.replace(
        now,
        params=now.params - folded,
        weight_bytes=now.weight_bytes - saved,
        size_bytes=max(0, now.size_bytes - saved),
    )
