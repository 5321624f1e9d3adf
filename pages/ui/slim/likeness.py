"""A model that is no classifier: how like the original's its outputs are."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from lwcore import units
from lwcore.evaluation.result import Evaluation
from lwcore.scenarios import Attempt
from pages.ui.text import cell, plain, t


def similarity(value: float) -> str:
    """A cosine similarity, to as many digits as tell it from 1."""
    return f"{value:.3f}" if value < 0.999 else f"{value:.5f}"


def quality_title(e: Evaluation) -> str:
    """What `quality` of an evaluation is."""
    if e.similarity is not None:
        return t("cost.similarity")
    return t("cost.accuracy" if e.top1 is not None else "cost.agreement")


def draw_headline(e: Evaluation) -> None:
    """Similarity, its interval and the relative error."""
    if e.similarity is None or e.relative_error is None:
        return
    st.markdown(t("result.similarity", value=similarity(e.similarity), error=units.percent(e.relative_error)))
    low, high = (similarity(v) for v in (e.similarity_low or 0.0, e.similarity_high or 0.0))
    st.caption(t("result.similarity.interval", low=low, high=high, n=f"{e.n:,}"))
    st.markdown(t("result.similarity.text"))


def draw_outputs(known: Attempt) -> None:
    """One row an output."""
    table = pd.DataFrame(
        [
            {
                "name": cell(row.name),
                "shape": " × ".join(map(str, row.shape)) or "1",
                "similarity": similarity(row.similarity),
                "error": units.percent(row.error),
                "agreement": "–" if row.agreement is None else units.percent(row.agreement),
            }
            for row in known.evaluation.outputs
        ]
    )
    columns = {
        "name": st.column_config.TextColumn(t("outputs.name"), width="medium"),
        "shape": t("outputs.shape"),
        "similarity": t("cost.similarity"),
        "error": t("outputs.error"),
        "agreement": t("outputs.agreement"),
    }
    st.dataframe(table, hide_index=True, column_config=columns, key="outputs", alt=plain(t("tab.outputs")))
    st.caption(t("outputs.text"))
