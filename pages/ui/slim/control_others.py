"""The controls of the methods that are off until chosen: whole blocks, low rank, single connections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import streamlit as st

from lwcore.recipe import Blocks, Budget, Connections, LowRank
from pages.ui import measuring, service
from pages.ui.slim import bound
from pages.ui.slim.methods import Method
from pages.ui.state import session
from pages.ui.text import t

SCOPES = ("global", "layer")
LOW_RANK_GOALS = ("energy", "macs", "params", "bytes")
_LEAST_ENERGY = 50.0


def draw_blocks(method: Method, step: Blocks) -> None:
    """Share of the residual blocks to drop, or which ones."""
    known = service.blocks(session().model)
    if not known and not step.names:
        st.markdown(t("slim.blocks"), help=t("slim.blocks.help"))
        st.caption(t("slim.blocks.none"))
        return
    if not step.names:
        bound.percent(
            t("slim.blocks"),
            method,
            "amount",
            step.amount,
            lambda s, share: replace(s, amount=share),
            t("slim.blocks.help"),
        )
        _which(method, step, known)
    bound.advanced(method, lambda: _names(method, step, known))


def _names(method: Method, step: Blocks, known: Sequence[str]) -> None:
    st.multiselect(
        t("slim.blocks.names"),
        list(dict.fromkeys([*known, *step.names])),
        placeholder=t("slim.blocks.names.none"),
        help=t("slim.blocks.names.help"),
        **bound.bind(method, "names", list(step.names), lambda s, names: replace(s, names=tuple(names))),
    )


def _which(method: Method, step: Blocks, known: Sequence[str]) -> None:
    """How many blocks go, and their names once it is measured how much each is missed."""
    count = service.dropped(session().model, step.amount)
    st.caption(t("slim.blocks.count", n=count, all=len(known)))
    order = measuring.found("order")
    first = next((m.name for m in session().methods if not m.idle), "") == method.name
    if order and first:  # after another step they may be missed differently
        st.text("\n".join(order["order"][:count]))


def draw_low_rank(method: Method, step: LowRank) -> None:
    """How much of each layer's output must be kept, or a budget for the whole model."""
    goal = step.budget.of if step.budget else "energy"
    if step.budget:
        bound.percent(
            t(f"slim.amount.{goal}"), method, "saved", 1 - step.budget.keep, _save, t("slim.low-rank.budget.help")
        )
    else:
        st.slider(
            t("slim.energy"),
            _LEAST_ENERGY,
            100.0,
            step=0.5,
            format="%.1f %%",
            help=t("slim.energy.help"),
            **bound.bind(
                method,
                "energy",
                min(max(round(100 * step.energy, 4), _LEAST_ENERGY), 100.0),
                lambda s, v: replace(s, energy=round(v / 100, 6)),
            ),
        )
    bound.choice(method, "rank", LOW_RANK_GOALS, goal, _goal)


def _save(step: LowRank, share: float) -> LowRank:
    return replace(step, budget=Budget(of=step.budget.of if step.budget else "macs", keep=round(1 - share, 6)))


def _goal(step: LowRank, goal: str) -> LowRank:
    keep = step.budget.keep if step.budget else 0.8
    return replace(step, budget=None if goal == "energy" else Budget(of=goal, keep=keep))  # type: ignore[arg-type]


def draw_connections(method: Method, step: Connections) -> None:
    """Share of the weights to set to zero."""
    bound.percent(
        t("slim.connections"),
        method,
        "amount",
        step.amount,
        lambda s, share: replace(s, amount=share),
        t("slim.connections.help"),
    )
    bound.choice(method, "scope", SCOPES)
    st.caption(t("slim.connections.truth"))
