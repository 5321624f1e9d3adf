"""What holds an uploaded file back on this system: found by a worker that tries, with the limits in numbers."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import streamlit as st

from lwcore.errors import LwcoreError
from lwcore.settings import SETTINGS
from pages.ui import errors, measuring
from pages.ui.state import session
from pages.ui.text import t

_PURPOSE = "safety"
_FOUND = "safety-found"
_SERVER = secrets.token_hex(8)  # of this process: another system may lie under the next one
_SHOWN = (
    *("memory_mb", "processor_seconds", "file_mb", "files"),
    *("network", "programs", "signals", "elsewhere", "rights", "user"),
)


def draw() -> None:
    """A fold that asks a worker once it is opened."""
    box = st.expander(t("safety.title"), key="safety", icon=":material/shield:", on_change="rerun")
    if not box.open:
        return
    with box:
        st.caption(t("safety.text"))
        found = _found()
        if found is not None:
            st.markdown("  \n".join(lines(found)))
        elif _PURPOSE in session().other:
            measuring.wait(_PURPOSE, t("safety.asking"))
        st.caption(_limits())


def lines(found: Mapping[str, Any]) -> list[str]:
    """One line a protection: what holds, with its number, or that it does not hold here."""
    told = []
    for name in _SHOWN:
        value = found.get(name)
        if value is None or value is False:
            told.append(":material/warning: " + t(f"safety.{name}.not"))
        else:
            told.append(":material/check: " + t(f"safety.{name}", n=f"{int(value):,}"))
    return told


def _found() -> Mapping[str, Any] | None:
    if _FOUND in st.session_state:
        return dict(st.session_state[_FOUND])
    try:
        result = measuring.result(_PURPOSE)
        if result is None and _PURPOSE not in session().other:
            measuring.start("protections", _PURPOSE, {"server": _SERVER})
            result = measuring.result(_PURPOSE)
    except LwcoreError as error:
        errors.tell(str(error))
        return None
    if result is not None:
        st.session_state[_FOUND] = result
    return result


def _limits() -> str:
    s = SETTINGS
    return t(
        "safety.limits",
        upload=s.upload_mb,
        seconds=s.parse_seconds,
        nodes=f"{s.nodes:,}",
        tensor=s.tensor_mb,
        files=f"{s.archive_files:,}",
        archive=s.archive_mb,
        edge=f"{s.image_edge:,}",
        clip=s.clip_seconds,
    )
