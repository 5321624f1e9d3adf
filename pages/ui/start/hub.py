"""Models of torchvision, timm and Hugging Face: a searchable list, and a job that brings the chosen one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from lwcore import units
from lwcore.errors import LwcoreError
from lwcore.sources import hub
from lwcore.sources.hub import Offer
from pages.ui import errors, frame, measuring
from pages.ui.state import put, session, update
from pages.ui.text import lookup, plain, t

FAMILIES = {"torchvision": "torchvision", "timm": "timm", "huggingface": "Hugging Face", "transformers": "transformers"}
_JOB = "hub"
_OWNER_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def draw() -> None:
    """The list in a box of its own, which is filled once it is opened, and the job that was begun in it."""
    box = st.expander(t("hub.title"), key="hub", icon=":material/cloud_download:", on_change="rerun")
    fault = _collect()
    with box if box.open else st.container():
        if box.open:
            _draw_list()
        if fault:
            errors.tell(fault)
        if _JOB in session().other:
            measuring.wait(_JOB, t("hub.loading"), long=True)


def _draw_list() -> None:
    """Words narrow the list; a picked row can be opened, with its weights or as a bare structure."""
    st.caption(t("hub.text"))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        words = st.text_input(t("hub.search"), key="hub-words", placeholder=t("hub.placeholder"), width=360)
        chosen = st.pills(
            t("hub.families"), list(FAMILIES), selection_mode="multi", key="hub-families", format_func=lookup(FAMILIES)
        )
    found = hub.search(words, [family for family in chosen if family in FAMILIES])
    offer = _pick(found, words, chosen)
    if offer is not None:
        _draw_offer(offer.ref, offer)
    elif _OWNER_NAME.fullmatch(words.strip()) and not found:
        _draw_offer(f"huggingface:{words.strip()}", None)


def _pick(found: Sequence[Offer], words: str, chosen: Sequence[str]) -> Offer | None:
    """The table; the picked row."""
    if not found:
        st.caption(t("hub.nothing"))
        return None
    st.caption(t("hub.found", n=f"{len(found):,}"))
    columns: dict[str, Any] = {
        "name": st.column_config.TextColumn(t("hub.name"), width="large"),
        "family": t("hub.from"),
        "task": t("hub.task"),
        "params": st.column_config.NumberColumn(t("cost.params"), format="localized"),
        "size": st.column_config.NumberColumn(t("hub.size"), format="%.1f MB", help=t("hub.size.help")),
        "top1": st.column_config.NumberColumn(t("hub.top1"), format="percent", help=t("hub.top1.help")),
        "input": st.column_config.NumberColumn(t("hub.input"), format="%d px"),
    }
    event = st.dataframe(
        pd.DataFrame(map(_row, found)),
        hide_index=True,
        column_config=columns,
        on_select="rerun",
        selection_mode="single-row",
        height=min(380, 36 * (len(found) + 1) + 3),
        key=f"hub-table-{words}-{','.join(chosen)}",  # a row's number means another model in another list
    )
    rows = event.selection.get("rows") or []
    return found[rows[0]] if rows and rows[0] < len(found) else None


def _row(offer: Offer) -> dict[str, Any]:
    return {
        "name": offer.name,
        "family": FAMILIES[offer.family],
        "task": t(f"hub.task.{offer.task}"),
        "params": offer.params,
        "size": None if offer.size_bytes is None else offer.size_bytes / 1e6,
        "top1": offer.top1,
        "input": offer.input,
    }


def _draw_offer(ref: str, offer: Offer | None) -> None:
    with st.container(border=True, key="hub-offer"):
        st.markdown(f"**{plain(ref.partition(':')[2])}**")
        if offer is not None:
            st.caption(" · ".join(_facts(offer)))
        if _JOB in session().other:
            return  # its progress is drawn below
        with st.container(horizontal=True):
            if not ref.startswith("transformers:"):  # those have no weights of their own
                st.button(t("hub.open"), key="hub-open", icon=":material/download:", on_click=_begin, args=(ref,))
            if not ref.startswith("huggingface:"):
                st.button(
                    t("hub.structure"),
                    key="hub-structure",
                    help=t("hub.structure.help"),
                    on_click=_begin,
                    args=(f"{ref}:none",),
                )


def _facts(offer: Offer) -> list[str]:
    facts = []
    if offer.params is not None:
        facts.append(t("hub.params", n=units.count(offer.params)))
    if offer.size_bytes is not None:
        facts.append(t("hub.about", size=units.size(offer.size_bytes)))
    if offer.macs:
        facts.append(f"{units.count(offer.macs)} MACs")
    if offer.top1 is not None:
        facts.append(t("hub.accuracy", share=units.percent(offer.top1), data=offer.data))
    elif offer.family == "huggingface":
        facts.append(t("hub.published", paper=offer.data))
    if offer.licence:
        facts.append(offer.licence)
    return [plain(fact) for fact in facts]


def _begin(ref: str) -> None:
    measuring.start("load", _JOB, {"ref": ref})


def _collect() -> str:
    """Open the model of a job that is done; the sentence of one that has failed."""
    try:
        result = measuring.result(_JOB)
    except LwcoreError as error:
        return str(error)
    if result:
        ref = str(result["model"])
        update(uploads=put(session().uploads, ref, str(result["card"]["name"])))
        frame.choose(ref)
        frame.open_page("layers")
    return ""
