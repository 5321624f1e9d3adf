"""Two mends of Streamlit 1.67's `AppSession`; another Streamlit than the one that was read for them is left as it is.

A fragment's refresh that comes when the last runner has just stopped gets a runner of its own at once, and from then on
what the last one said and nobody has passed on yet is ignored: elements, the timer of the next refresh, the end of the
run. The page then stands still until somebody clicks. On a busy server, where words wait a moment to be passed on,
thirty tabs that watch their jobs meet this within a minute (`benchmarks/class_load.py`).

The theme goes along with every run and every refresh, read from the configuration's two hundred options each time: a
twelfth of a class's processor time. It is read once, so a change of it shows after the next start.
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

import streamlit
from streamlit.proto.NewSession_pb2 import CustomThemeConfig
from streamlit.runtime import app_session
from streamlit.runtime.app_session import AppSession
from streamlit.runtime.scriptrunner_utils.script_requests import ScriptRequestType

_ask = AppSession.request_rerun
_read_theme: Any = getattr(app_session, "_populate_theme_msg", None)  # there in 1.67; asked for by no other


def mend() -> None:
    """Let a refresh wait its turn behind what a stopped runner has said, and read the theme once.

    Called once, before the first session.
    """
    if not streamlit.__version__.startswith("1.67."):
        return
    AppSession.request_rerun = _request_rerun  # type: ignore[method-assign]
    app_session._populate_theme_msg = _populate_theme_msg


def _request_rerun(session: AppSession, client_state: Any) -> None:
    if client_state and client_state.fragment_id and _has_stopped(session):
        asyncio.get_running_loop().call_soon(_ask, session, client_state)
    else:
        _ask(session, client_state)


def _has_stopped(session: AppSession) -> bool:
    """Whether the runner has ended; all that it had to say is queued in the event loop by then."""
    runner = session._scriptrunner
    return runner is not None and runner._requests._state == ScriptRequestType.STOP


def _populate_theme_msg(message: CustomThemeConfig, section: str = "theme") -> None:
    theme = _theme(section)
    if theme.ListFields():  # a part that is set, though empty, means something else to the page than one that is not
        message.CopyFrom(theme)


@cache
def _theme(section: str) -> CustomThemeConfig:
    message = CustomThemeConfig()
    _read_theme(message, section)
    return message
