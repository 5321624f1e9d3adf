"""The page script: frame, navigation, the chosen page, the cost line. `app.py` starts it."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import streamlit as st

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from pages.ui import costline, frame, measuring  # noqa: E402  (the path above comes first)
from pages.ui.errors import PageEnd  # noqa: E402
from pages.ui.search import finding  # noqa: E402  (the path above comes first)
from pages.ui.text import t  # noqa: E402
from pages.ui.turn import turn  # noqa: E402  (the path above comes first)
from pages.ui.workspaces import door, workspace  # noqa: E402  (the path above comes first)

with turn():
    frame.choose_language()
    st.set_page_config(
        page_title="SlimLab", page_icon=frame.picture("icon.png"), layout="wide", menu_items={"about": t("about")}
    )
    st.logo(frame.picture("logo.svg"), size="large")
    if door.opened():
        measuring.start_clock()
        frame.enter()
        page = st.navigation(list(frame.pages().values()), position="top")
        frame.draw_header()
        frame.keep_link()
        measuring.collect()
        finding.collect()
        with suppress(PageEnd):
            page.run()
        costline.draw()
        workspace.keep()
