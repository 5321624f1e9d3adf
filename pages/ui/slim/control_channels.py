"""The controls of a channels step: one slider, and under Advanced what it is a share of, who goes first, and groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import streamlit as st

from lwcore.recipe import MOST, Channels
from lwcore.slimming.pruning.criteria import CRITERIA
from pages.ui import service
from pages.ui.slim import bound, methods
from pages.ui.slim.methods import Method
from pages.ui.state import session, update
from pages.ui.text import cell, known, t

GOALS = ("same", "macs", "params", "bytes", "latency")
COMPENSATIONS = ("sequential", "one-shot", "none")
ALIGNMENTS = ("blocks", "single")


def draw(method: Method, step: Channels) -> None:
    """The slider; everything else is folded away."""
    goal = step.budget.of if step.budget else "same"
    bound.percent(
        t(f"slim.amount.{goal}"), method, "amount", methods.removed(step), methods.remove_share, t("slim.amount.help")
    )
    bound.advanced(method, lambda: _advanced(method, step, goal))


def _advanced(method: Method, step: Channels, goal: str) -> None:
    bound.select(method, "goal", {name: t(f"goal.{name}") for name in GOALS}, goal, methods.share_of)
    bound.select(method, "criterion", {name: known(f"criterion.{name}", c.title) for name, c in CRITERIA.items()})
    bound.choice(method, "compensate", COMPENSATIONS)
    bound.choice(method, "align", ALIGNMENTS, "single" if step.align == 1 else "blocks", _align)
    _groups(method, step)


def _align(step: Channels, value: str) -> Channels:
    return replace(step, align=1 if value == "single" else Channels().align)


def _groups(method: Method, step: Channels) -> None:
    """The table of groups; an amount written there wins over the slider."""
    s = session()
    groups = service.coupling(s.model).groups
    key = f"groups-{s.model[:16]}-{method.name}-{s.loads}"
    begin = f"begin-{key}"
    if key not in st.session_state:  # the editor was not on the last page, so its edits are gone: begin from the truth
        st.session_state[begin] = dict(step.groups)
    base = st.session_state[begin]
    st.markdown(t("slim.groups"), help=t("slim.groups.help"))
    table = pd.DataFrame(
        [
            {
                "group": cell(g.name),
                "channels": g.channels,
                "layers": len(g.layers),
                "amount": None if g.name not in base else 100 * base[g.name],
            }
            for g in groups
        ],
        columns=["group", "channels", "layers", "amount"],
    ).astype({"amount": "float64"})
    edited = st.data_editor(
        table,
        key=key,
        hide_index=True,
        disabled=["group", "channels", "layers"],
        height=230,
        column_config=_columns(),
        placeholder="–",
        alt=t("slim.groups"),
    )
    amounts = _amounts(edited.to_dict("records"), {cell(g.name): g.name for g in groups})
    others = {name: share for name, share in step.groups.items() if name not in {g.name for g in groups}}
    if {**others, **amounts} != step.groups:
        changed = replace(step, groups={**others, **amounts})
        update(methods=methods.edited(session().methods, method.name, changed))


def _columns() -> dict[str, Any]:
    number = st.column_config.NumberColumn
    return {
        "group": t("slim.groups.name"),
        "channels": number(t("slim.groups.channels"), width="small"),
        "layers": number(t("slim.groups.layers"), width="small"),
        "amount": number(t("slim.groups.amount"), min_value=0.0, max_value=100 * MOST, step=1.0, format="%d %%"),
    }


def _amounts(rows: list[dict[str, Any]], names: Mapping[str, str]) -> Mapping[str, float]:
    """Group → share, of the rows with an amount; a client can send anything, so names and bounds are checked here."""
    return {
        names[row["group"]]: round(min(max(float(row["amount"]) / 100, 0.0), MOST), 4)
        for row in rows
        if row["group"] in names and row["amount"] is not None and not pd.isna(row["amount"])
    }
