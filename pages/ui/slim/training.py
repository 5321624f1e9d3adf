"""A training as it goes and as it went: curves of loss and accuracy beside the control's, and the time that is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from lwcore import units
from lwcore.recipe import Distill
from pages.ui import charts, measuring, service
from pages.ui.costline import points
from pages.ui.state import session
from pages.ui.text import t

_POLL_SECONDS = 2.0
_SCORES, _LOSSES = 300, 230  # heights, titles included


def draw() -> None:
    """The card of the present recipe's training, where it has one that has begun."""
    if not any(isinstance(step, Distill) for step in session().recipe.steps):
        return
    if session().measuring:
        st.fragment(_card, run_every=measuring.pace(_POLL_SECONDS))()
    else:
        _card()


def _card() -> None:
    s = session()
    for position, about in service.trainings(s.model, s.recipe).items():
        step = s.recipe.steps[position]
        assert isinstance(step, Distill)
        with st.container(border=True, key=f"training-{position}"):
            st.markdown(t("training.title"))
            if s.measuring and not about["finished"]:
                st.caption(_left(step, about))
            elif not about["finished"] and not measuring.attempt(s):
                _broken_off()
            _curves(step, about, position)
            _verdict(about, measuring.samples(s).ref)


def _left(step: Distill, about: Mapping[str, Any]) -> str:
    """How much time is left, the control's included."""
    runs = [curve for curve in (about["student"], about["control"]) if curve]
    if step.steps:
        return t("training.steps", done=f"{runs[0][-1]['steps']:,}", all=f"{step.steps:,}")
    left = sum(max(0.0, 60 * step.minutes - curve[-1]["seconds"]) for curve in runs)
    return t("training.left", left=units.duration(left))


def _broken_off() -> None:
    st.markdown(t("training.broken_off"))
    st.button(
        t("training.take"),
        key="training-take",
        icon=":material/bookmark_added:",
        on_click=measuring.keep_up,
        args=(True, False),
    )


def _curves(step: Distill, about: Mapping[str, Any], position: int) -> None:
    names = {"student": t("training.student"), "control": t("training.control")}
    rows = [
        {"who": names[who], "seconds": point["seconds"], "score": point["score"], "loss": point["loss"]}
        for who in names
        for point in about[who] or ()
    ]
    shown = list(names.values()) if about["control"] else [names["student"]]
    span = max(60.0 * step.minutes if step.steps is None else 1.0, *(row["seconds"] for row in rows))
    for field, form, height in (("score", ".1%", _SCORES), ("loss", "~g", _LOSSES)):
        if all(row[field] is None for row in rows):  # no batch was learnt from yet
            continue
        title, seconds = t(f"training.{field}"), t("training.seconds")
        spec = charts.curve(rows, field, names=shown, span=span, x=seconds, y=title, form=form, height=height)
        st.vega_lite_chart(spec, alt=t("training.alt", what=title), key=f"training-{field}-{position}")
    st.caption(t("training.text" if about["control"] else "training.text.alone"))


def _verdict(about: Mapping[str, Any], samples: str) -> None:
    """Student and control on the samples that are measured on."""
    scores = about["scores"].get(samples)
    if not scores or scores["student"] is None:
        return
    if scores["control"] is None:
        st.markdown(t("training.alone", student=units.percent(scores["student"])))
        return
    st.markdown(
        t(
            "training.both",
            student=units.percent(scores["student"]),
            control=units.percent(scores["control"]),
            points=points(scores["student"] - scores["control"]),
        )
    )
