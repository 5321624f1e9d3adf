"""Start: choose a trained model, or bring one; choose what it is measured on."""

from __future__ import annotations

import streamlit as st

from pages.ui import frame
from pages.ui.start import gallery, hub, intake, safety
from pages.ui.state import session
from pages.ui.text import t

st.title(t("start.title"), anchor=False)
st.markdown(t("start.lead"))
gallery.draw()
with st.container(border=True, key="bring"):
    st.subheader(t("upload.title"), anchor=False)
    intake.draw_model()
    safety.draw()
hub.draw()
if session().model:
    with st.container(border=True, key="samples"):
        st.subheader(t("samples.title"), anchor=False)
        intake.draw_samples()
frame.follow()
