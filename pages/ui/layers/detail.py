"""One layer: its shapes, its weights, what hangs together with it, and what removing a tenth of that would save."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import streamlit as st

import lwcore
from lwcore import units
from lwcore.errors import LwcoreError
from lwcore.graph import Graph
from pages.ui import charts, service
from pages.ui.layers.table import View
from pages.ui.state import session, update
from pages.ui.text import note, t

_TENTH = 0.1


def draw(view: View) -> None:
    """The card beside the chart."""
    names = [row["name"] for row in view.rows]
    row = view.layer or max(view.rows, key=lambda r: r["params"], default=None)
    if row is None:
        return
    st.session_state["layer-choice"] = row["name"]
    st.selectbox(t("layers.pick"), names, key="layer-choice", on_change=_layer_changed)
    _facts(row)
    _weights(view.ref, row)
    _coupled(view.ref, row)


def _layer_changed() -> None:
    update(layer=st.session_state["layer-choice"])


def _facts(row: dict[str, Any]) -> None:
    st.text(f"{row['kind']}  →  {row['shape']}")
    st.markdown(
        t(
            "layers.facts",
            params=f"{row['params']:,}",
            macs=units.count(row["macs"]),
            flops=units.count(2 * row["macs"]),
            weights=units.size(row["weight_bytes"]),
            activations=units.size(row["activation_bytes"]),
        )
    )
    if row.get("note"):
        st.text(note(row["note"]))


@st.cache_data(max_entries=256)
def _histogram(ref: str, names: tuple[str, ...]) -> tuple[list[int], list[float], float] | None:
    constants = Graph.view(service.model(ref)).constants
    arrays = [constants[n].astype(np.float32).ravel() for n in names if n in constants]
    values = np.concatenate(arrays) if arrays else np.zeros(0, np.float32)
    if not values.size or not np.isfinite(values).all():
        return None
    counts, edges = np.histogram(values, bins=min(48, max(8, int(values.size**0.5))))
    return counts.tolist(), edges.tolist(), float((values == 0).mean())


def _weights(ref: str, row: dict[str, Any]) -> None:
    found = _histogram(ref, tuple(row["weights"]))
    if found is None:
        st.caption(t("layers.no_weights"))
        return
    counts, edges, zeros = found
    st.vega_lite_chart(
        charts.histogram(counts, edges, x=t("layers.value"), y=t("layers.how_many")),
        alt=t("layers.histogram.alt", low=f"{edges[0]:.2g}", high=f"{edges[-1]:.2g}"),
    )
    if zeros > 0:
        st.caption(t("layers.zeros", share=units.percent(zeros)))


def _coupled(ref: str, row: dict[str, Any]) -> None:
    """Groups that this layer belongs to; the torch tree names layers as the graph does."""
    coupling = service.coupling(ref)
    groups = [g for g in coupling.groups if row["name"] in g.layers]
    frozen = [f for f in coupling.frozen if f.layer == row["name"]]
    for group in groups[:2]:
        st.markdown(t("layers.group", n=group.channels, layers=len(group.layers)))
        _name_list(group.layers)
        _tenth(ref, group.name)
    for item in frozen[:1]:
        st.markdown(t("layers.frozen.meant" if item.meant else "layers.frozen.rule"))
        st.text(note(item.reason))
    if not groups and not frozen:
        st.caption(t("layers.no_group"))


def _name_list(names: Sequence[str]) -> None:
    with st.expander(t("layers.group.list")):
        st.text("\n".join(names))


def _tenth(ref: str, group: str) -> None:
    recipe = lwcore.Recipe(steps=(lwcore.Channels(groups={group: _TENTH}, compensate="none"),))
    try:
        plan = service.plan(ref, recipe)
    except LwcoreError as error:
        st.text(note(str(error)))
        return
    st.markdown(
        t(
            "layers.tenth",
            params=units.count(plan.before.params - plan.after.params),
            macs=units.count(plan.before.macs - plan.after.macs),
            share=units.change(plan.before.macs, plan.after.macs),
        )
    )
    if ref == session().model:
        st.caption(t("layers.tenth.hint"))
