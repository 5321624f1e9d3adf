"""The controls of what networks for texts have beside layers: attention heads, and a vocabulary."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from lwcore.recipe import Heads, Vocabulary
from pages.ui import service
from pages.ui.slim import bound
from pages.ui.slim.methods import Method
from pages.ui.state import session
from pages.ui.text import t

_MOST = 50  # occurrences; beyond it hardly a word stays


def offered(kind: str) -> bool:
    """Whether the chosen model has what a method is about."""
    model = session().model
    if kind == "heads":
        return bool(service.heads(model))
    return kind != "vocabulary" or service.model(model).card.task.startswith("text")


def draw_heads(method: Method, step: Heads) -> None:
    """Share of the attention heads to drop."""
    layers = service.heads(session().model)
    if not layers:
        st.markdown(t("slim.heads"), help=t("slim.heads.help"))
        st.caption(t("slim.heads.none"))
        return
    bound.percent(
        t("slim.heads"),
        method,
        "amount",
        step.amount,
        lambda s, share: replace(s, amount=share),
        t("slim.heads.help"),
    )
    count = service.dropped_heads(session().model, step.amount)
    st.caption(t("slim.heads.count", n=count, all=sum(layers), layers=len(layers)))


def draw_vocabulary(method: Method, step: Vocabulary) -> None:
    """How often a token must occur to stay."""
    if not offered("vocabulary"):
        st.markdown(t("slim.vocabulary"), help=t("slim.vocabulary.help"))
        st.caption(t("slim.vocabulary.none"))
        return
    st.slider(
        t("slim.vocabulary"),
        1,
        _MOST,
        step=1,
        help=t("slim.vocabulary.help"),
        **bound.bind(method, "least", min(step.least, _MOST), lambda s, least: replace(s, least=int(least))),
    )
