"""What can be removed in a model and what stays: by meaning, or because a rule is missing."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from pages.ui import service
from pages.ui.text import cell, note, t


def draw(ref: str) -> None:
    """One sentence with the three counts, and the table of what stays."""
    coupling = service.coupling(ref)
    free = sum(g.channels for g in coupling.groups)
    stays = {meant: sum(f.channels for f in coupling.frozen if f.meant is meant) for meant in (True, False)}
    st.markdown(
        t("frozen.summary", free=f"{free:,}", groups=f"{len(coupling.groups):,}", meant=f"{stays[True]:,}")
        + (" " + t("frozen.rule", n=f"{stays[False]:,}") if stays[False] else "")
    )
    if not coupling.frozen:
        return
    with st.expander(t("frozen.table"), icon=":material/lock:", key="frozen"):
        rows = [
            {
                t("layers.name"): cell(f.layer),
                t("frozen.channels"): f.channels,
                t("frozen.why"): t("frozen.by.meaning" if f.meant else "frozen.by.rule"),
                t("frozen.reason"): cell(note(f.reason)),
            }
            for f in sorted(coupling.frozen, key=lambda f: f.meant)
        ]
        st.dataframe(pd.DataFrame(rows), hide_index=True, alt=t("frozen.table"))
