"""Details of a measured attempt, one tab at a time: classes, changed answers, int8 by operator, time by length."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from lwcore.scenarios import Attempt
from pages.ui import charts, service
from pages.ui.slim import lengths, likeness, nodes, pictures
from pages.ui.text import cell, named, t


def draw(known: Attempt) -> None:
    """The tabs that there is something to see in."""
    e = known.evaluation
    parts: dict[str, tuple[bool, Callable[[Attempt], None]]] = {
        "classes": (bool(e.per_class), _classes),
        "confusion": (bool(e.confusion or e.confused), _confusion),
        "outputs": (not known.is_original and bool(e.outputs), likeness.draw_outputs),
        "changed": (not known.is_original and bool(e.changed_total), pictures.draw),
        "nodes": (
            nodes.step_of(known.recipe) is not None,
            lambda a: nodes.draw(nodes.Asked(a.model, a.samples, a.recipe)),
        ),
        "lengths": (not known.is_original and service.is_elastic(known.model), lengths.draw),
    }
    shown = [name for name, (there, _) in parts.items() if there]
    if not shown:
        return
    tab = st.segmented_control(
        t("result.details"),
        shown,
        default=shown[0],
        required=True,
        key="slim-tab",
        format_func=named("tab", shown),
        label_visibility="collapsed",
        persist_state="session",
    )
    if tab in shown:
        parts[tab][1](known)


def _classes(known: Attempt) -> None:
    rows = [{"name": r.name, "before": r.before, "after": r.after} for r in known.evaluation.per_class[:60]]
    spec = charts.by_class(rows, x=t("chart.share_right"), before=t("layers.original"), after=t("layers.slimmed"))
    st.vega_lite_chart(spec, alt=t("chart.classes.alt"))


def _confusion(known: Attempt) -> None:
    e = known.evaluation
    names = [r.name for r in e.per_class]
    if e.confusion and len(names) == len(e.confusion):
        spec = charts.confusion(e.confusion, names, x=t("chart.answer"), y=t("chart.truth"))
        st.vega_lite_chart(spec, alt=t("chart.confusion.alt"))
        return
    rows = [
        {t("chart.truth"): cell(c.label), t("chart.answer"): cell(c.answer), t("layers.how_many"): c.count}
        for c in e.confused
    ]
    st.dataframe(rows, hide_index=True, alt=t("chart.confusion.alt"))
