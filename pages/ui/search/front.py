"""The chart of a search: everything tried, the Pareto front and the goal; a click on a point offers its recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from lwcore import units
from lwcore.errors import LwcoreError
from lwcore.recipe import Recipe
from lwcore.scenarios import pareto
from pages.ui import charts, errors, service
from pages.ui.search import finding
from pages.ui.search.goals import Search
from pages.ui.text import named, t
from pages.ui.wording import title

_COST = {"size": "size_bytes", "macs": "macs"}


def draw(found: Search, tried: Sequence[Mapping[str, Any]], live: bool = False) -> None:
    """All trials, worth against cost; a click on one offers its recipe."""
    good = [trial for trial in tried if trial["error"] is None and trial["recipe"]["steps"]]
    if not good:
        return
    axis = st.segmented_control(
        t("compare.against"),
        list(_COST),
        default="size",
        required=True,
        key="found-axis",
        format_func=named("compare", _COST),
        persist_state="session",
    )
    axis = axis if axis in _COST else "size"
    rows = [_original(found, good[0], axis), *(_row(trial, axis) for trial in good)]
    spec = charts.attempts(
        rows,
        x=t(f"compare.{axis}.axis"),
        y=t("found.quality"),
        front=pareto([(r["x"], r["y"]) for r in rows]),
        legend={key: t(f"compare.{key}") for key in ("original", "front", "other")},
        limits=_limits(found, rows[0], axis),
        height=300,
    )
    alt = t("found.alt", n=len(good))
    if live:
        st.vega_lite_chart(spec, alt=alt, key=f"search-live-{axis}")
        return
    event = st.vega_lite_chart(spec, alt=alt, key=f"search-{axis}", on_select="rerun", selection_mode="pick")
    st.caption(t("found.text"))
    picked = event.selection.get("pick") or []
    chosen = next((trial for trial in good if picked and trial["number"] == picked[0].get("number")), None)
    if chosen is not None:
        _offer(chosen)


def _offer(trial: Mapping[str, Any]) -> None:
    try:
        recipe = Recipe.from_json(trial["recipe"])
    except LwcoreError as error:
        errors.tell(str(error))
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.text(title(recipe), width="stretch")
        st.button(t("found.use"), key="trial-use", icon=":material/tune:", on_click=finding.adopt, args=(recipe,))


def _row(trial: Mapping[str, Any], axis: str) -> dict[str, Any]:
    cost, quality = trial["cost"], trial["quality"]
    return {
        "number": trial["number"],
        "x": cost[_COST[axis]],
        "y": quality,
        "low": quality,
        "high": quality,
        "original": False,
        "title": title(Recipe.from_json(trial["recipe"])),
        "tip": f"{units.percent(quality)} · {units.size(cost['size_bytes'])} · {units.count(cost['macs'])} MACs",
    }


def _original(found: Search, trial: Mapping[str, Any], axis: str) -> dict[str, Any]:
    cost, quality = service.cost(found.model), trial["quality"] + trial["drop"] / 100
    return {
        "number": -1,
        "x": getattr(cost, _COST[axis]),
        "y": quality,
        "low": quality,
        "high": quality,
        "original": True,
        "title": t("recipe.original"),
        "tip": f"{units.percent(quality)} · {units.size(cost.size_bytes)} · {units.count(cost.macs)} MACs",
    }


def _limits(found: Search, original: Mapping[str, Any], axis: str) -> dict[str, float]:
    """The goal as lines in the chart."""
    target = found.arguments["target"]
    lines = {}
    if target.get("drop") is not None:
        lines["y"] = original["y"] - target["drop"] / 100
    if axis == "size" and target.get("size_bytes"):
        lines["x"] = target["size_bytes"]
    if axis == "macs" and target.get("macs"):
        lines["x"] = target["macs"] * (service.cost(found.model).macs if target["macs"] <= 1 else 1)
    return lines
