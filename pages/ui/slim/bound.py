"""Widgets bound to the list of methods: the session holds the value, the widget shows it and writes it back.

A value is put into a widget only where the two differ, so that a slider in a person's hand is never set back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from lwcore.recipe import Step
from pages.ui.slim import methods
from pages.ui.slim.methods import Method
from pages.ui.state import session, update
from pages.ui.text import lookup, named, t

Put = Callable[[Step, Any], Step]  # the step with the widget's value in it
MOST_PERCENT = 90
_COARSE = 5


def shown(key: str, value: Any) -> str:
    """Have the widget of that key show a value; returns the key."""
    if key not in st.session_state or st.session_state[key] != value:
        st.session_state[key] = value
    return key


def bind(method: Method, field: str, value: Any, put: Put | None = None) -> dict[str, Any]:
    """The arguments that tie a widget to a field of a step (by name, unless `put` says how)."""
    key = shown(f"{method.name}-{field}", value)
    return {"key": key, "on_change": _changed, "args": (method.name, key, put or _by_name(field))}


def _by_name(field: str) -> Put:
    return lambda step, value: replace(step, **{field: value})


def _changed(name: str, key: str, put: Put) -> None:
    method = methods.find(session().methods, name)
    if method is not None:
        update(methods=methods.edited(session().methods, name, put(method.step, st.session_state[key]), method.on))


def percent(
    label: str, method: Method, field: str, share: float, put: Put, more: str, most: float = MOST_PERCENT
) -> None:
    """A slider in whole fives of a per cent; in tenths while it has to show a value between them."""
    value = round(100 * share, 1)
    fine = value % _COARSE != 0
    number: Callable[[float], float] = float if fine else round
    st.slider(
        label,
        number(0),
        number(max(most, value)),
        step=0.1 if fine else _COARSE,
        format="%.1f %%" if fine else "%d %%",
        help=more,
        **bind(method, f"{field}-fine" if fine else field, number(value), lambda s, v: put(s, round(v / 100, 4))),
    )


def advanced(method: Method, draw: Callable[[], None]) -> None:
    """What few need, in a fold that is filled once it is opened: most of a page's widgets, and so of its cost."""
    box = st.expander(
        t("slim.advanced"), icon=":material/tune:", key=f"{method.name}-advanced", type="compact", on_change="rerun"
    )
    if box.open:
        with box:
            draw()


def choice(method: Method, field: str, options: Sequence[str], value: Any = None, put: Put | None = None) -> None:
    """One of a few, all in sight; texts are `slim.<field>`, `slim.<field>.help` and `<field>.<option>`."""
    st.segmented_control(
        t(f"slim.{field}"),
        options,
        required=True,
        wrap=True,
        format_func=named(field, options),
        help=t(f"slim.{field}.help"),
        **bind(method, field, getattr(method.step, field) if value is None else value, put),
    )


def select(method: Method, field: str, titles: Mapping[str, str], value: Any = None, put: Put | None = None) -> None:
    """One of many, by title."""
    st.selectbox(
        t(f"slim.{field}"),
        list(titles),
        help=t(f"slim.{field}.help"),
        format_func=lookup(dict(titles)),
        **bind(method, field, getattr(method.step, field) if value is None else value, put),
    )
