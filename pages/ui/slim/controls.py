"""The controls of Slim: a list of methods, each off until chosen; together they say one recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from lwcore.errors import LwcoreError
from pages.ui import errors, measuring, wording
from pages.ui.slim import (
    bound,
    control_channels,
    control_distill,
    control_others,
    control_precision,
    control_text,
    methods,
)
from pages.ui.slim.methods import Method
from pages.ui.state import session, update
from pages.ui.text import named, t

_DRAW: dict[str, Callable[[Method, Any], None]] = {
    "blocks": control_others.draw_blocks,
    "vocabulary": control_text.draw_vocabulary,
    "heads": control_text.draw_heads,
    "channels": control_channels.draw,
    "low-rank": control_others.draw_low_rank,
    "connections": control_others.draw_connections,
    "distill": control_distill.draw,
    "precision": control_precision.draw,
}
_MORE = tuple(kind for kind in methods.ORDER if kind not in methods.ALWAYS)


WAYS = ("hand", "find")


def draw_way() -> str:
    """By hand, or by a goal; returns which."""
    st.segmented_control(
        t("slim.way"),
        WAYS,
        key=bound.shown("slim-way", session().way),
        required=True,
        label_visibility="collapsed",
        format_func=named("way", WAYS),
        width="stretch",
        on_change=_way_changed,
    )
    return session().way


def _way_changed() -> None:
    update(way=st.session_state["slim-way"] if st.session_state["slim-way"] in WAYS else "hand")


def draw() -> None:
    """All methods in the order in which they are applied; ends with the recipe in the session."""
    listed = session().methods
    several = not methods.is_in_order(listed)
    for position, method in enumerate(listed, start=1):
        with st.container(border=True, key=f"method-{method.name}"):
            if several:
                st.caption(t("slim.step", n=position, kind=t(f"method.{method.step.kind}")))
            _DRAW[method.step.kind](method, method.step)
    _more()
    _order()
    samples()
    try:
        update(recipe=methods.to_recipe(session().methods, session().seed))
    except LwcoreError as error:
        errors.tell(str(error))
        raise errors.PageEnd from None


def _more() -> None:
    present = [kind for kind in _MORE if any(m.step.kind == kind for m in session().methods)]
    offered = [kind for kind in _MORE if kind in present or control_text.offered(kind)]
    st.pills(
        t("slim.more"),
        offered,
        selection_mode="multi",
        key=bound.shown("slim-more", present),
        format_func=named("method", offered),
        help=t("slim.more.help"),
        wrap=True,
        on_change=_more_changed,
    )


def _more_changed() -> None:
    listed = session().methods
    chosen = st.session_state["slim-more"]
    for kind in _MORE:
        there = [m.name for m in listed if m.step.kind == kind]
        if kind in chosen and not there:
            listed = methods.added(listed, kind)
        elif kind not in chosen:
            for name in there:
                listed = methods.without(listed, name)
    update(methods=listed)


def _order() -> None:
    """The steps as a list that can be put in another order, for recipes that need it, and the seed."""
    box = st.expander(t("slim.order"), icon=":material/low_priority:", key="order", on_change="rerun")
    if box.open:
        with box:
            _ordered()


def _ordered() -> None:
    st.caption(t("slim.order.text"))
    for method in session().methods:
        if not method.idle:
            _row(method)
    st.selectbox(
        t("slim.another"),
        methods.ORDER,
        index=None,
        key="slim-another",
        format_func=named("method", methods.ORDER),
        placeholder=t("slim.another.choose"),
        on_change=_another,
    )
    st.number_input(
        t("slim.seed"),
        0,
        2**31 - 1,
        step=1,
        key=bound.shown("slim-seed", session().seed),
        help=t("slim.seed.help"),
        on_change=_seed_changed,
    )


def _row(method: Method) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key=f"row-{method.name}"):
        st.text(", ".join(wording.words(method.step)), width="stretch")
        for icon, what, change in (
            ("arrow_upward", "up", lambda s, name: methods.moved(s, name, -1)),
            ("arrow_downward", "down", lambda s, name: methods.moved(s, name, 1)),
            ("close", "remove", methods.without),
        ):
            st.button(
                "",
                key=f"{what}-{method.name}",
                icon=f":material/{icon}:",
                type="tertiary",
                help=t(f"slim.order.{what}"),
                on_click=_reorder,
                args=(change, method.name),
            )


def _reorder(change: Callable[[methods.Methods, str], methods.Methods], name: str) -> None:
    update(methods=change(session().methods, name))


def _another() -> None:
    kind = st.session_state["slim-another"]
    st.session_state["slim-another"] = None
    if kind in methods.ORDER:
        update(methods=methods.added(session().methods, kind))


def _seed_changed() -> None:
    update(seed=st.session_state["slim-seed"])


def samples() -> None:
    """What is measured on, in one line."""
    chosen = measuring.samples(session())
    st.caption(t("slim.samples.labelled" if chosen.labelled else "slim.samples.unlabelled", n=f"{chosen.n:,}"))
    st.text(chosen.name)
