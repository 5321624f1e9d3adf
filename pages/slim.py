"""Slim: set how small, or say what must be reached; see at once what is saved and a moment later what it costs."""

from __future__ import annotations

import streamlit as st

from pages.ui import frame
from pages.ui.search import control_goal, found
from pages.ui.slim import controls, results

frame.draw_title("slim")
frame.needs_model()
left, right = st.columns([2, 3], gap="large")
with left:
    if controls.draw_way() == "find":
        control_goal.draw()
    else:
        controls.draw()
with right:
    found.draw()
    results.draw()
