"""Who is here: the token of this tab's workspace, its name in the database, and the person where one logs in."""

from __future__ import annotations

import hashlib

import streamlit as st

from lwcore.workspaces import identify, new_token

_KEY = "workspace"


def token() -> str:
    """The token of this tab's workspace; the workspace itself begins with the first thing worth keeping."""
    if _KEY not in st.session_state:
        st.session_state[_KEY] = new_token()
    return str(st.session_state[_KEY])


def become(text: str) -> None:
    """Take the workspace of a token that was checked."""
    st.session_state[_KEY] = text


def owner() -> str:
    """What this tab's workspace is called in the database and by the workers."""
    return identify(token())


def person() -> str:
    """The person who logged in, as a digest; empty where nobody has to."""
    if not st.user.get("is_logged_in"):
        return ""
    name = f"{st.user.get('iss', '')} {st.user.get('sub') or st.user.get('email', '')}"
    return hashlib.sha256(name.encode()).hexdigest()
