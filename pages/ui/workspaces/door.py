"""Who may come in: anybody, unless the server asks for a class code or for a login (OpenID Connect)."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections import deque

import streamlit as st
from streamlit.auth_util import get_secrets_auth_section

from lwcore.errors import WorkspaceError
from lwcore.settings import SETTINGS
from lwcore.workspaces import identify, is_token
from pages.ui import errors, service
from pages.ui.text import t
from pages.ui.workspaces import who

TRIES, SECONDS = 10, 60.0  # wrong codes of all visitors together in so long, then everybody waits
_INSIDE = "inside"


class Guesses:
    """Wrong codes lately. An address can be forged and a tab is quickly opened anew, so all count together."""

    def __init__(self) -> None:
        self._wrong: deque[float] = deque(maxlen=TRIES)
        self._lock = threading.Lock()

    def may_try(self, now: float) -> bool:
        """Whether another code is looked at now."""
        with self._lock:
            return len(self._wrong) < TRIES or now - self._wrong[0] > SECONDS

    def wrong(self, now: float) -> None:
        """Count one."""
        with self._lock:
            self._wrong.append(now)


@service.remembered()
def guesses() -> Guesses:
    """Those of this server."""
    return Guesses()


def code() -> str:
    """The class code; empty when there is none."""
    return SETTINGS.class_code


def stamp(token: str) -> str:
    """What says that a workspace was begun by somebody who knew the code of now; only its own link can check it."""
    return hashlib.sha256(f"{token} {code()}".encode()).hexdigest() if code() else ""


def needs_login() -> bool:
    """Whether this server has a login provider (`[auth]` in secrets.toml) and nobody is logged in here."""
    return bool(get_secrets_auth_section()) and not st.user.get("is_logged_in")


def opened() -> bool:
    """Whether this visitor may come in; else the door is drawn."""
    login = needs_login()
    if not login and (not code() or st.session_state.get(_INSIDE) or _came_before()):
        return True
    st.navigation(
        [st.Page(_draw_login if login else _draw_code, title="SlimLab", url_path="door")], position="hidden"
    ).run()
    return False


def _came_before() -> bool:
    """Whoever has the link of a workspace that was begun with this code need not type it again."""
    token = st.query_params.get("w", "")
    try:
        known = service.workspaces().find(identify(token), who.person()) if is_token(token) else None
    except WorkspaceError:
        known = None
    inside = known is not None and hmac.compare_digest(known, stamp(token))
    st.session_state[_INSIDE] = inside
    return inside


def _draw_code() -> None:
    st.title(t("door.title"), anchor=False)
    st.markdown(t("door.text"))
    with st.form("door", border=False):
        typed = st.text_input(t("door.code"), type="password", max_chars=200, key="door-code", width=340)
        pressed = st.form_submit_button(t("door.enter"), type="primary", key="door-enter")
    if not pressed:
        return
    now = time.monotonic()
    if not guesses().may_try(now):
        errors.tell(t("door.wait"))
    elif hmac.compare_digest(typed.strip().encode(), code().encode()):
        st.session_state[_INSIDE] = True
        st.rerun()
    else:
        guesses().wrong(now)
        errors.tell(t("door.wrong"))


def _draw_login() -> None:
    st.title(t("door.title"), anchor=False)
    st.markdown(t("door.login.text"))
    st.button(t("door.login"), type="primary", key="door-login", on_click=st.login)
