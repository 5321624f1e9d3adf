"""Slim: set how small, see at once what is saved and a moment later what it costs on real samples."""

from __future__ import annotations

import streamlit as st

from pages.ui import controls, frame, results

frame.draw_title("slim")
frame.needs_model()
left, right = st.columns([2, 3], gap="large")
with left:
    controls.draw()
with right:
    results.draw()
