"""The gallery: one card a built-in model, with the silhouette of its layers."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from lwcore import units
from lwcore.model import Card
from pages.ui import frame, service
from pages.ui.state import session
from pages.ui.text import known, t

_COLOUR = "#009E73"


def silhouette(widths: Sequence[float], width: int = 320, height: int = 56) -> str:
    """An SVG of the network: one bar a layer, as tall as it has channels."""
    if not widths:
        return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"/>'
    step = width / len(widths)
    bars = "".join(
        f'<rect x="{i * step:.1f}" y="{(height - max(3.0, w * height)) / 2:.1f}" width="{max(0.8, step * 0.68):.1f}" '
        f'height="{max(3.0, w * height):.1f}" rx="{min(2.0, step * 0.3):.1f}"/>'
        for i, w in enumerate(widths)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'fill="{_COLOUR}">{bars}</svg>'
    )


def draw() -> None:
    """All cards; the first one carries the page's one primary action until a model is chosen."""
    with st.grid("auto", min_column_width=290):
        for ref, card in sorted(service.gallery().items(), key=lambda item: item[0] != frame.FIRST):
            with st.container(border=True, height="stretch", key=f"card-{ref}"):
                _card(ref, card)


def _card(ref: str, card: Card) -> None:
    chosen = session().model == ref
    st.markdown(f"**{known(f'gallery.{ref}.name', card.name)}**")
    st.image(silhouette(service.outline(ref)), width="stretch", alt=t("gallery.silhouette", name=card.name))
    st.caption(known(f"gallery.{ref}", card.description))
    cost = service.cost(ref)
    numbers = {"params": cost.params, "macs": cost.macs}
    words = {key: units.count(value) for key, value in numbers.items()} | {"size": units.size(cost.size_bytes)}
    st.markdown(t("gallery.costs", **{key: word.replace(" ", "\u00a0") for key, word in words.items()}))
    st.markdown(_worth(card))
    st.space("stretch")
    if chosen:
        if st.button(t("gallery.go"), key="go-on", type="primary", width="stretch", icon=":material/tune:"):
            frame.open_page("slim")
        return
    first = ref == frame.FIRST and not session().model
    if st.button(t("gallery.open"), key=f"open-{ref}", type="primary" if first else "secondary", width="stretch"):
        frame.choose(ref)
        frame.open_page("layers")


def _worth(card: Card) -> str:
    if card.random_weights:
        return t("gallery.random")
    accuracy = (card.accuracy or {}).get("top1")
    if isinstance(accuracy, int | float):
        return t("gallery.accuracy", accuracy=units.percent(float(accuracy)))
    return t("gallery.pictures")
