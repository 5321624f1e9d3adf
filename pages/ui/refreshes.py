"""A mend of Streamlit 1.67's `AppSession`: a refresh must not cost the end of the run before it.

A fragment's refresh that comes when the last runner has just stopped gets a runner of its own at once, and from then on
what the last one said and nobody has passed on yet is ignored: elements, the timer of the next refresh, the end of the
run. The page then stands still until somebody clicks. On a busy server, where words wait a moment to be passed on,
thirty tabs that watch their jobs meet this within a minute (`benchmarks/class_load.py`).
"""

from __future__ import annotations

import asyncio
from typing import Any

import streamlit
from streamlit.runtime.app_session import AppSession
from streamlit.runtime.scriptrunner_utils.script_requests import ScriptRequestType

_ask = AppSession.request_rerun


def mend() -> None:
    """Let a refresh wait its turn behind what a stopped runner has said; called once, before the first session.

    Another Streamlit than the one that was read for this is left as it is.
    """
    if not streamlit.__version__.startswith("1.67."):
        return
    AppSession.request_rerun = _request_rerun  # type: ignore[method-assign]


def _request_rerun(session: AppSession, client_state: Any) -> None:
    if client_state and client_state.fragment_id and _has_stopped(session):
        asyncio.get_running_loop().call_soon(_ask, session, client_state)
    else:
        _ask(session, client_state)


def _has_stopped(session: AppSession) -> bool:
    """Whether the runner has ended; all that it had to say is queued in the event loop by then."""
    runner = session._scriptrunner
    return runner is not None and runner._requests._state == ScriptRequestType.STOP
