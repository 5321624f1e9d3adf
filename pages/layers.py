"""Layers: where the parameters and the work are; one layer picked in chart, table or box is told about in detail."""

from __future__ import annotations

import streamlit as st

from pages.ui import frame
from pages.ui.layers import detail as layer_detail
from pages.ui.layers import frozen as layer_frozen
from pages.ui.layers import table as layer_table
from pages.ui.layers import whatif
from pages.ui.text import t

frame.draw_title("layers")
frame.needs_model()
ref = layer_table.draw_switch()
profile = layer_table.profile(ref)
if profile is not None:
    view = layer_table.View(ref, profile)
    view.draw_totals()
    charts, detail = st.columns([3, 2], gap="medium")
    with charts:
        view.draw_chart()
    with detail, st.container(border=True, key="layer-detail"):
        layer_detail.draw(view)
    view.draw_table()
    layer_frozen.draw(ref)
    st.caption(t("layers.source"))
    whatif.draw()
frame.follow()
