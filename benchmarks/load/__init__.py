"""Visitors without a browser: they speak Streamlit's WebSocket protocol, so that thirty fit on one machine."""
