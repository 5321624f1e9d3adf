"""The controls of a distill step: from whom, on what, for how long; the rest is folded away."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from lwcore.recipe import Distill
from lwcore.samples import builtin
from lwcore.settings import SETTINGS
from pages.ui import measuring, service
from pages.ui.slim import bound
from pages.ui.slim.methods import Method
from pages.ui.state import session
from pages.ui.text import known, t

_LEAST_MINUTES = 0.1


def draw(method: Method, step: Distill) -> None:
    """Teacher, training set and minutes."""
    st.markdown(t("slim.distill"), help=t("slim.distill.help"))
    st.number_input(
        t("slim.minutes"),
        _LEAST_MINUTES,
        max(float(SETTINGS.training_minutes), step.minutes),  # recipes may say more; the worker then refuses
        step=0.5,
        format="%.1f",
        help=t("slim.minutes.help"),
        **bound.bind(method, "minutes", step.minutes),
    )
    bound.select(method, "teacher", _teachers(step))
    bound.select(method, "training", _sets(step), step.samples, lambda s, ref: replace(s, samples=ref))
    st.caption(t("slim.distill.text" if _labelled(step) else "slim.distill.unlabelled"))
    bound.advanced(method, lambda: _advanced(method, step))


def _teachers(step: Distill) -> dict[str, str]:
    """The original first, then every other model here that answers about as many classes."""
    others = service.teachers(session().model, tuple(session().uploads))
    named = {ref: session().uploads.get(ref) or service.gallery()[ref].name for ref in others}
    unknown = {step.teacher: step.teacher[:24]} if step.teacher and step.teacher not in named else {}
    return {"": t("slim.teacher.original"), **named, **unknown}


def _sets(step: Distill) -> dict[str, str]:
    """The card's own set first, then what was uploaded for this model."""
    s = session()
    card = service.model(s.model).card
    own = {one.ref: one.name for one in s.own.get(s.model, ())}
    named = {"": _set_name(card.training)} if card.training else {}
    if not named and card.calibration:
        named = {"": _set_name(card.calibration)}
    elif not named:
        named = {"": measuring.samples(s).name}
    unknown = {step.samples: step.samples[:24]} if step.samples not in (named | own) else {}
    return named | own | unknown


def _set_name(ref: str) -> str:
    return known(f"samples.{ref}", builtin.SETS[ref].title if ref in builtin.SETS else ref)


def _labelled(step: Distill) -> bool:
    """Whether there are labels for a control to learn from."""
    s = session()
    uploaded = {one.ref: one.labelled for one in s.own.get(s.model, ())}
    card = service.model(s.model).card
    ref = step.samples or card.training or card.calibration or measuring.samples(s).ref
    return uploaded[ref] if ref in uploaded else ref in builtin.SETS and builtin.SETS[ref].labelled


def _advanced(method: Method, step: Distill) -> None:
    bound.percent(
        t("slim.labels"), method, "labels", step.labels, lambda s, v: replace(s, labels=v), t("slim.labels.help"), 100
    )
    st.slider(
        t("slim.temperature"),
        1.0,
        20.0,
        step=0.5,
        help=t("slim.temperature.help"),
        **bound.bind(method, "temperature", step.temperature),
    )
    st.number_input(
        t("slim.rate"),
        0.0,
        1.0,
        step=0.001,
        format="%.4f",
        help=t("slim.rate.help"),
        **bound.bind(method, "rate", step.rate, lambda s, v: replace(s, rate=v) if v > 0 else s),
    )
    if service.has_attention(session().model):
        st.slider(
            t("slim.inner"),
            0.0,
            max(10.0, step.inner),
            step=0.5,
            help=t("slim.inner.help"),
            **bound.bind(method, "inner", step.inner),
        )
    st.toggle(t("slim.aware"), help=t("slim.aware.help"), **bound.bind(method, "int8", step.int8))
