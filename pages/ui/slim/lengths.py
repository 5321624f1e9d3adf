"""Time by length of text: measured by a worker when asked, the slimmed model beside the original."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from lwcore import units
from lwcore.scenarios import Attempt
from pages.ui import measuring
from pages.ui.state import session
from pages.ui.text import t

_PURPOSE = "lengths"


def draw(known: Attempt) -> None:
    """The table, or the button that begins the measurement."""
    key = f"{_PURPOSE} {known.model} {known.slimmed}"
    found = session().sizes.get(key)
    if found is None:
        _ask(known, key)
    else:
        _table(found["lengths"])


def _ask(known: Attempt, key: str) -> None:
    if measuring.follow(_PURPOSE, "sizes", t("lengths.wait")):
        return
    st.caption(t("lengths.text"))
    if st.button(t("lengths.measure"), key="lengths", icon=":material/timer:"):
        arguments = {"model": known.slimmed, "against": known.model}
        measuring.start("lengths", _PURPOSE, arguments, question=key)
        st.rerun()


def _table(rows: list[Mapping[str, Any]]) -> None:
    table = pd.DataFrame(
        [
            {
                "length": row["length"],
                "before": units.milliseconds(row["reference_ms"]),
                "after": units.milliseconds(row["latency_ms"]),
                "change": units.change(row["reference_ms"], row["latency_ms"]),
                "macs": f"{units.count(row['macs'])} ({units.change(row['reference_macs'], row['macs'])})",
            }
            for row in rows
        ]
    )
    columns: dict[str, Any] = {
        "length": t("lengths.tokens"),
        "before": t("layers.original"),
        "after": t("layers.slimmed"),
        "change": t("lengths.change"),
        "macs": t("cost.macs"),
    }
    st.dataframe(table, hide_index=True, column_config=columns, key="lengths-table", alt=t("tab.lengths"))
