"""Compare: everything measured in this workspace, worth against cost; go back to any attempt."""

from __future__ import annotations

import streamlit as st

from pages.ui import comparing, frame, measuring
from pages.ui.state import session
from pages.ui.text import t

frame.draw_title("compare")
frame.needs_model()
known = session().log.of(session().model, measuring.samples(session()).ref)
if not known:
    st.markdown(t("compare.empty"))
    st.page_link(frame.pages()["slim"], label=t("compare.go"), icon=":material/tune:")
else:
    known = comparing.with_original(known)
    chosen = comparing.draw_chart(known)
    chosen = comparing.draw_table(known, chosen)
    comparing.draw_return(known, chosen)
frame.follow()
