""" "Find it for me": limits picked and typed as numbers, and one button."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from lwcore.searching.devices import DEVICES
from pages.ui.search import finding
from pages.ui.search.goals import LIMITS, PREFER, SECONDS
from pages.ui.slim import bound, controls
from pages.ui.state import session, update
from pages.ui.text import known, lookup, named, t


def draw() -> None:
    """The goal, the button, and what is measured on."""
    goal = session().goal
    with st.container(border=True, key="goal"):
        st.pills(
            t("goal.limits"),
            LIMITS,
            selection_mode="multi",
            format_func=named("aim", LIMITS),
            help=t("goal.limits.help"),
            wrap=True,
            **_bind("limits", list(goal.limits)),
        )
        for limit in LIMITS:
            if limit in goal.limits:
                _NUMBERS[limit]()
        with st.expander(t("slim.advanced"), icon=":material/tune:", key="goal-advanced", type="compact"):
            _advanced()
        found = finding.current()
        st.button(
            t("find.button"),
            key="find",
            type="primary",
            icon=":material/travel_explore:",
            on_click=finding.begin,
            disabled=not goal.limits or (found is not None and found.running),
            width="stretch",
        )
        st.caption(t("find.text"))
    controls.samples()


def _bind(field: str, value: Any) -> dict[str, Any]:
    return {"key": bound.shown(f"goal-{field}", value), "on_change": _changed, "args": (field,)}


def _changed(field: str) -> None:
    value = st.session_state[f"goal-{field}"]
    goal = session().goal
    if field == "device":
        update(goal=goal.on(value) if value in DEVICES else goal)
    elif field == "limits":
        update(goal=replace(goal, limits=tuple(limit for limit in LIMITS if limit in value)))
    else:
        update(goal=replace(goal, **{field: value}))


def _number(
    field: str, low: float, high: float, step: float, text_format: str = "%.1f", optional: bool = False
) -> None:
    value = getattr(session().goal, field)
    st.number_input(
        t(f"goal.{field}"),
        low if value is None else min(low, value),  # whoever made the link could write any number
        high if value is None else max(high, value),
        value=None if optional else "min",
        step=step,
        format=text_format,
        placeholder=t("goal.any"),
        help=t(f"goal.{field}.help"),
        **_bind(field, value),
    )


def _device() -> None:
    titles = {name: known(f"device.{name}", card.title) for name, card in DEVICES.items()}
    st.selectbox(
        t("goal.device"),
        list(titles),
        format_func=lookup(titles),
        help=t("goal.device.help"),
        **_bind("device", session().goal.device),
    )
    with st.grid(2, min_column_width=130):
        _number("flash_kb", 1.0, 1e8, 10.0, "%.0f")
        _number("ram_kb", 1.0, 1e8, 10.0, "%.0f")
        _number("mmacs", 1.0, 1e7, 10.0, "%.0f")
        _number("mbytes", 1.0, 1e7, 10.0, "%.0f")
    _number("device_ms", 0.01, 1e6, 1.0, "%.2f", optional=True)


_NUMBERS = {
    "drop": lambda: _number("drop", 0.0, 100.0, 0.1, "%.2f"),
    "size": lambda: _number("size_kb", 1.0, 1e6, 10.0, "%.0f"),
    "macs": lambda: _number("macs_percent", 1.0, 100.0, 5.0, "%.0f"),
    "speedup": lambda: _number("speedup", 1.0, 100.0, 0.1),
    "device": _device,
}


def _advanced() -> None:
    goal = session().goal
    st.selectbox(
        t("goal.prefer"),
        PREFER,
        format_func=named("prefer", PREFER),
        help=t("goal.prefer.help"),
        **_bind("prefer", goal.prefer),
    )
    st.segmented_control(
        t("goal.seconds"),
        SECONDS,
        required=True,
        format_func=lambda n: t("goal.seconds.n", n=n),
        help=t("goal.seconds.help"),
        **_bind("seconds", goal.seconds),
    )
    st.number_input(t("slim.seed"), 0, 2**31 - 1, step=1, help=t("goal.seed.help"), **_bind("seed", goal.seed))
