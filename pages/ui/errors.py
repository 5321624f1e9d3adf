"""Errors that a person caused: one sentence on the page, never a traceback."""

from __future__ import annotations

import streamlit as st

from pages.ui.text import note, plain


class PageEnd(Exception):
    """Ends a page early but not the frame around it; `st.stop` would end both, the cost line included."""


def tell(sentence: str) -> None:
    """Show an error sentence; names in it are a stranger's, so Markdown is escaped."""
    st.error(plain(note(sentence)), icon=":material/error:")
