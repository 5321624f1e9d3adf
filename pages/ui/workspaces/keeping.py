"""What must be on the disk before a page shows it: the workspace itself, and every measured attempt."""

from __future__ import annotations

import streamlit as st

from lwcore.errors import LwcoreError, WorkspaceError
from lwcore.scenarios import Log
from pages.ui import service
from pages.ui.text import note, plain
from pages.ui.workspaces import door, who

URL = "w"
_BEGUN = "workspace-begun"


def begin() -> None:
    """Begin this tab's workspace, unless it was; from now on the URL names it."""
    if st.session_state.get(_BEGUN) != who.owner():
        service.workspaces().create(who.owner(), who.person(), door.stamp(who.token()))
        mark()
    if st.query_params.get(URL) != who.token():
        st.query_params[URL] = who.token()


def mark() -> None:
    """This tab's workspace is in the database."""
    st.session_state[_BEGUN] = who.owner()


def is_begun() -> bool:
    """Whether there is anything to come back to."""
    return bool(st.session_state.get(_BEGUN) == who.owner())


def record(before: Log, after: Log) -> Log:
    """Write the attempts down that `after` has and `before` has not; returns the log with the numbers they got.

    When the database fails, this tab goes on with what it knows and says so.
    """
    log = before
    for attempt in after.attempts[len(before.attempts) :]:
        try:
            begin()
            log = Log((*log.attempts, *service.workspaces().add(who.owner(), attempt, len(log.attempts))))
        except WorkspaceError as error:
            tell(error)
        log = log.add(attempt)  # is there already, unless the database failed
    return log


def take(data: bytes) -> str:
    """Put uploaded bytes into the store, for a worker to read; returns their fingerprint.

    Raises:
        WorkspaceError: there is no room for them in this workspace, or on this server.
        StoreError: the disk is full.
    """
    service.workspaces().check_room(who.owner(), len(data))
    return service.store().put_upload(data)


def tell(error: LwcoreError) -> None:
    """Say that something could not be kept; the page goes on."""
    st.toast(plain(note(str(error))), icon=":material/sync_problem:")
