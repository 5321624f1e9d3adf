"""The panel of a search: progress and the front while it grows, then what was found, why, and how near each limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from lwcore import units
from lwcore.recipe import Recipe
from lwcore.searching.targets import Target
from pages.ui import errors, measuring, service
from pages.ui.costline import points
from pages.ui.search import finding, front
from pages.ui.search.goals import Search
from pages.ui.state import session
from pages.ui.text import plain, t
from pages.ui.wording import title

_POLL_SECONDS = 1.0


def draw() -> None:
    """The panel, when there is a search of the present model."""
    found = finding.current()
    if found is None:
        return
    with st.container(border=True, key="found"):
        if found.running:
            st.fragment(_watch, run_every=measuring.pace(_POLL_SECONDS))()
            return
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.markdown(t("found.title"))
            st.button(
                t("found.close"),
                key="found-close",
                icon=":material/close:",
                type="tertiary",
                on_click=finding.dismiss,
            )
        if found.result is None:
            _ended(found)
        else:
            _answer(found, found.result)
        front.draw(found, finding.trials(found))


def _watch() -> None:
    """A running search; when it ends, the whole page runs again."""
    found = finding.current()
    if found is None or not found.running or service.status(found.job).finished:
        st.rerun()
    st.markdown(t("find.title"))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.progress(min(1.0, max(0.0, service.status(found.job).progress)), text=plain(finding.words(found)))
        st.button(t("measure.cancel"), key="cancel-search", on_click=finding.stop, icon=":material/close:")
    front.draw(found, finding.trials(found), live=True)


def _ended(found: Search) -> None:
    if found.error:
        errors.tell(found.error)
    else:
        st.markdown(t("found.stopped"))


def _answer(found: Search, result: Mapping[str, Any]) -> None:
    recipe = Recipe.from_json(result["recipe"])
    st.markdown(t("found.met" if result["met"] else "found.missed"))
    st.text(title(recipe))
    for limit in result["limits"]:
        st.markdown(_limit(limit))
    st.markdown(t("found.why"))
    for sentence in _reasons(found, result):
        st.markdown(sentence)
    _held_out(result)
    if recipe == session().recipe:
        st.caption(t("found.in_controls"))
    else:
        st.button(t("found.use"), key="found-use", icon=":material/tune:", on_click=finding.adopt, args=(recipe,))


def _reasons(found: Search, result: Mapping[str, Any]) -> list[str]:
    """Why this one, or how near each missed limit can be come to by itself; from the numbers, in any language."""
    tried = [trial for trial in result["trials"] if trial["error"] is None]
    if result["met"]:
        wanted = Target.from_json(found.arguments["target"]).wanted
        return [t("found.why.met", n=len(tried), wanted=t(f"found.wanted.{wanted}"))]
    missed = [limit for limit in result["limits"] if not limit["met"]]
    if not missed:
        return [t("found.why.held_out", n=result["considered"])]
    return [t("found.why.missed", n=len(tried)), *(_nearest(limit, tried) for limit in missed if limit["name"] in _OF)]


def _nearest(limit: Mapping[str, Any], tried: Sequence[Mapping[str, Any]]) -> str:
    name = limit["name"]
    values = [value for trial in tried if (value := _OF[name](trial)) is not None]
    least = name == "speedup"
    best = (max if least else min)(values, default=limit["found"])
    kept = best >= limit["limit"] if least else best <= limit["limit"]
    sentence = t(f"limit.{name}", found=_SHOWN[name](best), limit=_SHOWN[name](limit["limit"]))
    return t("found.why.alone" if kept else "found.why.nothing", limit=sentence)


_OF: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
    "drop": lambda trial: trial["drop"],
    "size_bytes": lambda trial: trial["cost"]["size_bytes"],
    "flash_bytes": lambda trial: trial["cost"]["size_bytes"],
    "macs": lambda trial: trial["cost"]["macs"],
    "ram_bytes": lambda trial: trial["ram_bytes"],
    "speedup": lambda trial: trial["speedup"],
    "latency_ms": lambda trial: trial["latency_ms"],
}


def _limit(limit: Mapping[str, Any]) -> str:
    name = limit["name"]
    show = _SHOWN[name]
    icon = ":material/check_circle:" if limit["met"] else ":material/cancel:"
    return f"{icon} " + t(f"limit.{name}", found=show(limit["found"]), limit=show(limit["limit"]))


_SHOWN = {
    "drop": lambda v: f"{v:.2f}",
    "size_bytes": units.size,
    "macs": units.count,
    "latency_ms": units.milliseconds,
    "device_ms": units.milliseconds,
    "speedup": lambda v: f"{v:.2f}",
    "flash_bytes": units.size,
    "ram_bytes": units.size,
}


def _held_out(result: Mapping[str, Any]) -> None:
    kept = result.get("held_out")
    if kept:
        st.caption(
            t(
                "found.held_out",
                n=f"{kept['n']:,}",
                drop=points(0.0 - kept["drop"] / 100),
                considered=result.get("considered") or 1,
            )
        )
    fit = result.get("fit")
    if fit and fit.get("bottleneck"):
        slow = fit["bottleneck"]
        st.caption(t(f"found.bottleneck.{slow['bound']}", ms=units.milliseconds(slow["ms"])))
        st.text(slow["layer"])
