"""The attempts of a session as a chart with its Pareto front and as a table; picking one brings its recipe back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import pandas as pd
import streamlit as st

from lwcore import units
from lwcore.errors import LwcoreError
from lwcore.scenarios import Attempt, original_of, pareto
from pages.ui import charts, errors, frame
from pages.ui.slim.likeness import quality_title
from pages.ui.text import named, t
from pages.ui.wording import title

_COSTS: dict[str, Callable[[Attempt, float], float]] = {
    "size": lambda a, base: a.evaluation.size_bytes,
    "gzip": lambda a, base: a.evaluation.gzip_bytes,
    "params": lambda a, base: a.evaluation.params,
    "macs": lambda a, base: a.evaluation.macs,
    "latency": lambda a, base: latency_ms(a, base),
}


def base_latency_ms(known: Sequence[Attempt]) -> float:
    """One time for the original: the median over all attempts beside which it was timed."""
    times = [ms for a in known if (ms := a.evaluation.reference_latency_ms or a.evaluation.latency_ms)]
    return median(times) if times else 0.0


def latency_ms(a: Attempt, base: float) -> float:
    """An attempt's time on the common clock: its ratio to the original that it was timed in turns with.

    The machine is never equally busy twice, so raw times of different minutes cannot be compared.
    """
    now, was = a.evaluation.latency_ms, a.evaluation.reference_latency_ms
    return base if a.is_original or not now or not was else base * now / was


def with_original(known: Sequence[Attempt]) -> tuple[Attempt, ...]:
    """The attempts with the original first, whether or not it was measured by itself."""
    others = tuple(a for a in known if not a.is_original)
    return (next((a for a in known if a.is_original), None) or original_of(known[0]), *others)


def draw_chart(known: Sequence[Attempt]) -> int | None:
    """The chart; the number of the attempt that was clicked, if any."""
    cost = st.segmented_control(
        t("compare.against"),
        list(_COSTS),
        default="size",
        required=True,
        key="compare-cost",
        format_func=named("compare", _COSTS),
        persist_state="session",
    )
    value = _COSTS.get(cost or "size", _COSTS["size"])
    base = base_latency_ms(known)
    rows = [_row(a, value(a, base)) for a in known]
    front = pareto([(r["x"], r["y"]) for r in rows])
    legend = {key: t(f"compare.{key}") for key in ("original", "front", "other")}
    spec = charts.attempts(
        rows,
        x=t(f"compare.{cost}.axis"),
        y=quality_title(known[0].evaluation),
        front=front,
        legend=legend,
    )
    event = st.vega_lite_chart(
        spec,
        key=f"compare-{cost}-{known[0].model[:12]}",
        on_select="rerun",
        selection_mode="pick",
        alt=t("compare.alt", n=len(known)),
    )
    st.caption(t("compare.text"))
    picked = event.selection.get("pick") or []
    return int(picked[0]["number"]) if picked and "number" in picked[0] else None


def _row(a: Attempt, cost: float) -> dict[str, Any]:
    e = a.evaluation
    bounds = ((e.similarity_low, e.similarity_high), (e.top1_low, e.top1_high), (e.agreement_low, e.agreement_high))
    low, high = next((pair for pair in bounds if pair[0] is not None), (None, None))
    return {
        "number": a.number,
        "x": cost,
        "y": a.quality,
        "original": a.is_original,
        "title": title(a.recipe),
        "low": a.quality if low is None else low,
        "high": a.quality if high is None else high,
        "tip": f"{units.percent(a.quality)} · {units.size(e.size_bytes)} · {units.count(e.macs)} MACs",
    }


def draw_table(known: Sequence[Attempt], chosen: int | None) -> int | None:
    """The table; the number of the attempt picked there, else the one picked in the chart."""
    base = base_latency_ms(known)
    table = pd.DataFrame(
        [
            {
                "what": title(a.recipe),
                "quality": 100 * a.quality,
                "params": units.count(a.evaluation.params),
                "macs": units.count(a.evaluation.macs),
                "size": units.size(a.evaluation.size_bytes),
                "gzip": units.size(a.evaluation.gzip_bytes),
                "latency": units.milliseconds(latency_ms(a, base)) if base else "–",
            }
            for a in known
        ]
    )
    columns: dict[str, Any] = {
        "what": st.column_config.TextColumn(t("compare.what"), width="large"),
        "quality": st.column_config.NumberColumn(quality_title(known[0].evaluation), format="%.1f %%"),
        "params": t("cost.params"),
        "macs": t("cost.macs"),
        "size": t("cost.file"),
        "gzip": t("strip.gzip"),
        "latency": t("cost.latency"),
    }
    event = st.dataframe(
        table,
        hide_index=True,
        column_config=columns,
        on_select="rerun",
        selection_mode="single-row",
        key=f"attempts-{known[0].model[:12]}-{known[0].samples[:12]}",
        alt=t("compare.table"),
    )
    rows = event.selection.rows
    return known[rows[0]].number if rows and rows[0] < len(known) else chosen


def draw_return(known: Sequence[Attempt], chosen: int | None) -> None:
    """The button that sets the sliders to the picked attempt."""
    numbers = {a.number: a for a in known}
    st.session_state.setdefault("return-to", known[-1].number)
    if chosen is not None and chosen != st.session_state.get("return-seen"):
        st.session_state["return-to"] = st.session_state["return-seen"] = chosen
    if st.session_state["return-to"] not in numbers:
        st.session_state["return-to"] = known[-1].number
    with st.container(horizontal=True, vertical_alignment="bottom"):
        titles = {n: title(a.recipe) for n, a in numbers.items()}
        st.selectbox(
            t("compare.pick"), list(numbers), format_func=lambda n: titles.get(n, str(n)), key="return-to", width=420
        )
        if st.button(t("compare.return"), type="primary", key="return"):
            try:
                frame.load_recipe(numbers[st.session_state["return-to"]].recipe)
            except LwcoreError as error:
                errors.tell(str(error))
                return
            frame.open_page("slim")
