"""The controls of Slim; together they say one recipe, which is written into the session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from lwcore.errors import LwcoreError
from lwcore.recipe import MOST
from lwcore.slimming.criteria import CRITERIA
from pages.ui import errors, form, measuring, service
from pages.ui.state import session, update
from pages.ui.text import known, lookup, named, t

_MOST_AMOUNT = 90


def draw() -> None:
    """All controls, simple ones first; ends with the recipe in the session."""
    defaults = form.Form()
    for name in form.NAMES:
        st.session_state.setdefault(f"slim-{name}", getattr(defaults, name))
    with st.container(border=True, key="how-small"):
        goal = st.session_state["slim-goal"]
        st.slider(
            t(f"slim.amount.{goal}"),
            0,
            _MOST_AMOUNT,
            step=5,
            format="%d %%",
            key="slim-amount",
            help=t("slim.amount.help"),
            persist_state="session",
        )
        _choice("precision", form.PRECISIONS)
        st.caption(t(f"precision.{st.session_state['slim-precision']}.text"))
    with st.expander(t("slim.advanced"), icon=":material/tune:", key="advanced"):
        _advanced()
    _samples()
    positions = form.Form(**{name: st.session_state[f"slim-{name}"] for name in form.NAMES})
    try:
        recipe = positions.recipe(session().overrides)
    except LwcoreError as error:
        errors.tell(str(error))
        raise errors.PageEnd from None
    update(recipe=recipe)


def _choice(name: str, options: tuple[str, ...]) -> None:
    st.segmented_control(
        t(f"slim.{name}"),
        options,
        key=f"slim-{name}",
        required=True,
        wrap=True,
        format_func=named(name, options),
        help=t(f"slim.{name}.help"),
        persist_state="session",
    )


def _advanced() -> None:
    _choice("goal", form.GOALS)
    criteria = {name: known(f"criterion.{name}", entry.title) for name, entry in CRITERIA.items()}
    st.selectbox(
        t("slim.criterion"),
        list(criteria),
        key="slim-criterion",
        help=t("slim.criterion.help"),
        format_func=lookup(criteria),
        persist_state="session",
    )
    _choice("compensate", form.COMPENSATIONS)
    _choice("align", form.ALIGNMENTS)
    _groups()
    st.slider(
        t("slim.connections"),
        0,
        round(100 * MOST),
        step=5,
        format="%d %%",
        key="slim-connections",
        help=t("slim.connections.help"),
        persist_state="session",
    )
    if st.session_state["slim-connections"]:
        _choice("scope", form.SCOPES)
        st.caption(t("slim.connections.truth"))
    if st.session_state["slim-precision"] == "int8-static":
        _choice("ranges", form.RANGES)
        st.number_input(
            t("slim.calibration"),
            1,
            2000,
            step=50,
            key="slim-calibration",
            help=t("slim.calibration.help"),
            persist_state="session",
        )
    st.number_input(
        t("slim.seed"), 0, 2**31 - 1, step=1, key="slim-seed", help=t("slim.seed.help"), persist_state="session"
    )


def _groups() -> None:
    """The table of groups; an amount written there wins over the slider."""
    s = session()
    groups = service.coupling(s.model).groups
    key = f"groups-{s.model[:16]}-{s.loads}"
    if key not in st.session_state:  # the editor was not on the last page, so its edits are gone: begin from the truth
        s = update(base=s.overrides)
    st.markdown(t("slim.groups"), help=t("slim.groups.help"))
    table = pd.DataFrame(
        [
            {
                "group": g.name,
                "channels": g.channels,
                "layers": len(g.layers),
                "amount": None if g.name not in s.base else 100 * s.base[g.name],
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
    update(overrides=_overrides(edited.to_dict("records"), {g.name for g in groups}))


def _columns() -> dict[str, Any]:
    number = st.column_config.NumberColumn
    return {
        "group": t("slim.groups.name"),
        "channels": number(t("slim.groups.channels"), width="small"),
        "layers": number(t("slim.groups.layers"), width="small"),
        "amount": number(t("slim.groups.amount"), min_value=0.0, max_value=100 * MOST, step=1.0, format="%d %%"),
    }


def _overrides(rows: list[dict[str, Any]], names: set[str]) -> Mapping[str, float]:
    """Group → share, of the rows with an amount; a client can send anything, so names and bounds are checked here."""
    return {
        row["group"]: round(min(max(float(row["amount"]) / 100, 0.0), MOST), 4)
        for row in rows
        if row["group"] in names and row["amount"] is not None and not pd.isna(row["amount"])
    }


def _samples() -> None:
    chosen = measuring.samples(session())
    st.caption(t("slim.samples.labelled" if chosen.labelled else "slim.samples.unlabelled", n=f"{chosen.n:,}"))
    st.text(chosen.name)
