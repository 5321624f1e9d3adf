""" "Why isn't it smaller or faster?": the causes that a measurement found, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from lwcore import units
from lwcore.scenarios import Attempt
from pages.ui.text import known, plain, t


def draw(attempt: Attempt) -> None:
    """The card, when there is anything to explain."""
    if not attempt.causes:
        return
    with st.container(border=True, key="causes"):
        st.markdown(t("causes.title"))
        for cause in attempt.causes:
            st.markdown(f":material/help: {plain(sentence(cause))}")


def sentence(cause: Mapping[str, Any]) -> str:
    """One cause in the session's language; in English as it was found where nobody translated its code."""
    text = known(f"cause.{cause['code']}", "")
    if not text:
        return str(cause["words"])
    values = {k: units.percent(v, 0) if isinstance(v, float) else v for k, v in cause["values"].items()}
    return text.format(**values)
