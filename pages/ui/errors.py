"""Errors that a person caused: one sentence on the page, never a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from lwcore.errors import LwcoreError
from pages.ui.text import note, plain


@contextmanager
def shown() -> Iterator[None]:
    """Turn an `LwcoreError` of the block into one line on the page and end the page there."""
    try:
        yield
    except LwcoreError as error:
        tell(str(error))
        st.stop()


def tell(sentence: str) -> None:
    """Show an error sentence; names in it are a stranger's, so Markdown is escaped."""
    st.error(plain(note(sentence)), icon=":material/error:")
