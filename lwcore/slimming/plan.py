"""`plan`: what a recipe will leave of a model, priced without computing a single new weight, in milliseconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lwcore.analysis.cost import FLOATS, Cost, constant_bytes, cost, macs, values
from lwcore.analysis.coupling import couple
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.recipe import Blocks, Channels, Connections, Distill, Heads, LowRank, Precision, Recipe, Step, Vocabulary
from lwcore.slimming.blocks import chosen, without
from lwcore.slimming.budget.allocate import Sensitivity
from lwcore.slimming.budget.pricing import price, shapes_without
from lwcore.slimming.heads import any_heads, count_of
from lwcore.slimming.lowrank.spectra import Spectra, with_factors
from lwcore.slimming.lowrank.split import choose
from lwcore.slimming.precision.fold import parameters_folded
from lwcore.slimming.precision.prepare import STATIC_OPSET, pooled, prepared
from lwcore.slimming.precision.storage import is_linear
from lwcore.slimming.pruning.channels import removals
from lwcore.slimming.rewrite import cut, keep_any

# Bytes left of a float32 weight; blocks of 4-bit numbers hold a scale each.
_SHRINK = {
    "fp16": 0.5,
    "int8-dynamic": 0.25,
    "int8-static": 0.25,
    "int8-weights": 0.25,
    "int4-weights": 0.16,
    "int4-matmul": 0.16,
    "palette": 1.0,  # stored as before; only the gzipped file shrinks
}
# Formats for which batch norms are folded.
_FOLDING = frozenset({"int8-dynamic", "int8-static", "int8-weights", "int4-weights"})


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A recipe's price. Bytes of `after` are an estimate; parameters and MACs are exact unless `estimated`.

    Attributes:
        amounts: group name → channels removed by the last channels step.
        needs: what must be measured on samples for an exact price: "sensitivity", "spectra" or "order" (the tasks of
            these names measure it).
        estimated: True when parameters and MACs depend on something that was not given or is not known beforehand.
    """

    before: Cost
    after: Cost
    amounts: Mapping[str, int] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    estimated: bool = False

    @property
    def needs_sensitivity(self) -> bool:
        """True when a budget is asked for and no sensitivity was given, so `after` ignores the budget."""
        return "sensitivity" in self.needs


@dataclass(frozen=True, kw_only=True)
class Known:
    """What was measured of the model that a recipe starts from; see `plan`."""

    sensitivity: Sensitivity | None = None
    spectra: Spectra | None = None
    order: Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True)
class _State:
    """Where pricing stands between two steps.

    Attributes:
        model: with the structure reached so far, its weights of no meaning, but for `counts`.
        counts: channels by group that are still to be cut from it.
        now: the cost.
        known: as long as nothing has changed the model.
    """

    model: Model
    now: Cost
    known: Known
    counts: Mapping[str, int] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    estimated: bool = False

    def unmeasured(self, what: str) -> _State:
        """The same, as an estimate; what is missing can be measured as long as no step went before."""
        needs = self.needs if self.known is _NOTHING or what in self.needs else (*self.needs, what)
        return dataclasses.replace(self, needs=needs, estimated=True)

    def settled(self) -> _State:
        """The same with the channels cut."""
        if not any(self.counts.values()):
            return self
        coupling = couple(self.model)
        slim = cut(Graph.of(self.model), coupling, keep_any(coupling, self.counts))
        return dataclasses.replace(self, model=dataclasses.replace(self.model, data=slim.serialize()), counts={})

    def changed(self, graph: Graph) -> _State:
        """After a step that gives another graph."""
        left = sum(constant_bytes(graph, name) for name in graph.constants)
        after = Cost(
            params=sum(values(graph).values()),
            macs=sum(macs(node, graph.shapes) for node in graph.nodes),
            weight_bytes=left,
            size_bytes=max(0, self.now.size_bytes - self.now.weight_bytes + left),
        )
        model = dataclasses.replace(self.model, data=graph.serialize())
        return dataclasses.replace(self, model=model, now=after, known=_NOTHING)


_NOTHING = Known()


def plan(
    model: Model,
    recipe: Recipe,
    sensitivity: Sensitivity | None = None,
    *,
    spectra: Spectra | None = None,
    order: Sequence[str] | None = None,
) -> Plan:
    """Price a recipe.

    Args:
        sensitivity: measured harm a group, needed by a channels step with a budget.
        spectra: what each layer keeps at each rank (`measure_spectra`), needed by a low-rank step.
        order: blocks, the least missed first (`dropping_order`), needed by a blocks step that names none.

    Raises:
        SlimError: the recipe names a group or block that the model does not have, or asks for what cannot be met.
    """
    before = cost(model)
    state = _State(model=model, now=before, known=Known(sensitivity=sensitivity, spectra=spectra, order=order))
    amounts: Mapping[str, int] = {}
    for step in recipe.steps:
        state = _PRICES[type(step)](state, step)
        amounts = state.counts or amounts
    return Plan(before=before, after=state.now, amounts=amounts, needs=state.needs, estimated=state.estimated)


def _channels(state: _State, step: Channels) -> _State:
    if step.budget is not None and state.known.sensitivity is None:
        state = state.unmeasured("sensitivity")
    state = state.settled()
    counts = removals(state.model, step, state.known.sensitivity)
    now = price(state.model, counts, state.now.size_bytes)
    return dataclasses.replace(state, counts=counts, now=now, known=_NOTHING)


def _blocks(state: _State, step: Blocks) -> _State:
    if not step.names and not step.amount:
        return state
    if not step.names and state.known.order is None:
        state = state.unmeasured("order")
    state = state.settled()
    names = chosen(state.model, step, state.known.order)
    return state.changed(without(Graph.view(state.model), names)) if names else state


def _heads(state: _State, step: Heads) -> _State:
    state = state.settled()
    return state.changed(any_heads(state.model, step)) if count_of(state.model, step) else state


def _vocabulary(state: _State, step: Vocabulary) -> _State:
    return dataclasses.replace(state.settled(), known=_NOTHING, estimated=True)  # only the texts can tell


def _low_rank(state: _State, step: LowRank) -> _State:
    if step.budget is not None and step.budget.of == "latency":  # only a clock can tell
        return dataclasses.replace(state.settled(), known=_NOTHING, estimated=True)
    if state.known.spectra is None:
        return _scaled(state.unmeasured("spectra").settled(), step)
    graph = Graph.view(state.model)
    found = choose(graph, step, state.known.spectra)
    return state.changed(with_factors(graph, found, None)) if found else state


def _scaled(state: _State, step: LowRank) -> _State:
    """Without spectra a budget is taken at its word, and what an energy saves is unknown."""
    keep = step.budget.keep if step.budget else 1.0
    now = state.now
    left = {"macs": round(keep * now.macs), "params": round(keep * now.params)}
    left["weight_bytes"] = round(keep * now.weight_bytes)
    left["size_bytes"] = now.size_bytes - now.weight_bytes + left["weight_bytes"]
    return dataclasses.replace(state, now=Cost(**left), known=_NOTHING)


def _connections(state: _State, step: Connections) -> _State:
    return dataclasses.replace(state, known=_NOTHING)  # zeros take as much room as other numbers


def _distill(state: _State, step: Distill) -> _State:
    """Other weights in the same places; only what int8 needs is brought into its form before."""
    if not step.int8:
        return dataclasses.replace(state, known=_NOTHING)
    state = state.settled()
    return state.changed(Graph.view(pooled(prepared(state.model, STATIC_OPSET))))


def _with_fewer_bits(state: _State, step: Precision) -> _State:
    graph, now = Graph.view(state.model), state.now
    floats = sum(graph.constants[name].nbytes for name in _shrinking(graph, step))
    total = sum(a.nbytes for a in graph.constants.values())
    saved = round(now.weight_bytes * (floats / max(total, 1)) * (1 - _SHRINK[step.format]))
    folded = parameters_folded(graph, shapes_without(state.model, state.counts)) if step.format in _FOLDING else 0
    after = dataclasses.replace(
        now,
        params=now.params - folded,
        weight_bytes=now.weight_bytes - saved,
        size_bytes=max(0, now.size_bytes - saved),
    )
    return dataclasses.replace(state, now=after, known=_NOTHING)


def _shrinking(graph: Graph, step: Precision) -> set[str]:
    """Constants that a format stores in fewer bits."""
    if step.format == "int4-matmul":
        return {node.input[1] for node in graph.nodes if is_linear(graph, node)}
    return {name for name in graph.constants if graph.types[name] in FLOATS}


_PRICES: Mapping[type[Step], Callable[[_State, Any], _State]] = {
    Channels: _channels,
    Blocks: _blocks,
    Heads: _heads,
    Vocabulary: _vocabulary,
    LowRank: _low_rank,
    Connections: _connections,
    Distill: _distill,
    Precision: _with_fewer_bits,
}
