"""The layer table and its two charts, linked: whatever is clicked becomes the picked layer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
import streamlit as st

from lwcore import units
from lwcore.errors import LwcoreError
from lwcore.graph import Graph, attributes
from pages.ui import charts, errors, measuring, service
from pages.ui.state import put, session, update
from pages.ui.text import cell, named, t, uncelled

VALUES = ("params", "macs")
_OTHER = "…"


def draw_switch() -> str:
    """Original or slimmed; the reference of the model to look at."""
    s = session()
    known = measuring.attempt(s)
    slimmed = known if known and not known.is_original else None
    if slimmed is None:
        st.caption(t("layers.not_slimmed"))
        return s.model
    which = st.segmented_control(
        t("layers.which"),
        ["original", "slimmed"],
        default="original",
        required=True,
        format_func=named("layers", ["original", "slimmed"]),
        key="layers-which",
        label_visibility="collapsed",
        persist_state="session",
    )
    return slimmed.slimmed if which == "slimmed" else s.model


def profile(ref: str) -> Mapping[str, Any] | None:
    """The layer table of a model; None while a worker makes it (its progress is then on the page)."""
    s = session()
    if ref in s.profiles:
        return s.profiles[ref]
    purpose = f"profile-{ref}"
    try:
        if purpose not in s.other:
            measuring.start("profile", purpose, {"model": ref})
        found = measuring.result(purpose)
    except LwcoreError as error:
        errors.tell(str(error))
        return None
    if found is None:
        measuring.wait(purpose, t("layers.reading"))
        return None
    update(profiles=dict([*session().profiles.items(), (ref, found)][-8:]))
    return found


@dataclass(frozen=True)
class View:
    """One profile on the page."""

    ref: str
    profile: Mapping[str, Any]

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The layers, with the words that charts show."""
        graph = Graph.view(service.model(self.ref))
        by_itself = {n.name for n in graph.nodes if _int(attributes(n).get("group", 1)) > 1}
        return [
            dict(
                layer,
                shape=" × ".join(map(str, layer["output_shape"])),
                kind=_kind(layer, graph.shapes, by_itself),
                short=_short(layer["name"], layer["type"]),
                text=t("layers.tip", params=units.count(layer["params"]), macs=units.count(layer["macs"])),
            )
            for layer in self.profile["layers"]
        ]

    @cached_property
    def types(self) -> list[str]:
        """Kinds of layer for the legend, those with the most parameters first; the rest is one colour."""
        weight: Counter[str] = Counter()
        for row in self.rows:
            weight[row["kind"]] += row["params"] + row["macs"] // 100
        return [name for name, n in weight.most_common(5) if n]

    @property
    def layer(self) -> dict[str, Any] | None:
        """The picked layer."""
        return next((row for row in self.rows if row["name"] == session().layer), None)

    def draw_totals(self) -> None:
        """Sums of the table."""
        rows = self.rows
        with st.grid("auto", min_column_width=150):
            st.metric(t("cost.params"), units.count(sum(r["params"] for r in rows)))
            st.metric(t("cost.macs"), units.count(sum(r["macs"] for r in rows)), help=t("layers.macs.help"))
            st.metric(t("layers.flops"), units.count(2 * sum(r["macs"] for r in rows)))
            st.metric(t("layers.weights"), units.size(sum(r["weight_bytes"] for r in rows)))
            st.metric(
                t("layers.activations"),
                units.size(sum(r["activation_bytes"] for r in rows)),
                help=t("layers.activations.help"),
            )
            st.metric(t("layers.count"), str(len(rows)))

    def draw_chart(self) -> None:
        """Bars or treemap, by parameters or MACs; a click picks a layer."""
        with st.container(horizontal=True):
            value = st.segmented_control(
                t("layers.by"),
                list(VALUES),
                default="params",
                required=True,
                key="layers-by",
                format_func=named("cost", VALUES),
                label_visibility="collapsed",
                persist_state="session",
            )
            kind = st.segmented_control(
                t("layers.chart"),
                ["treemap", "bars"],
                default="treemap",
                required=True,
                format_func=named("layers", ["treemap", "bars"]),
                key="layers-kind",
                label_visibility="collapsed",
                persist_state="session",
            )
        value = value if value in VALUES else "params"
        rows = [dict(r, type=r["kind"] if r["kind"] in self.types else t("layers.rest")) for r in self.rows if r[value]]
        types = [k for k in (*self.types, t("layers.rest")) if any(r["type"] == k for r in rows)]
        if kind == "bars":
            spec = charts.bars(rows, value=value, title=t(f"cost.{value}"), types=types, chosen=session().layer)
        else:
            spec = charts.treemap(rows, value=value, types=types, chosen=session().layer)
        key = f"layers-{kind}-{value}-{self.ref[:12]}"
        box = st.container(height=430, border=False) if kind == "bars" else st.container()
        with box:
            event = st.vega_lite_chart(
                spec, on_select="rerun", key=key, selection_mode="pick", alt=self._alt(rows, value)
            )
        picked = event.selection.get("pick") or []
        _pick(key, uncelled(picked[0].get("name", "")) if picked else "")

    def _alt(self, rows: list[dict[str, Any]], value: str) -> str:
        most = max(rows, key=lambda r: r[value], default=None)
        return t("layers.alt", what=t(f"cost.{value}"), name=most["name"] if most else "–")

    def draw_table(self) -> None:
        """The whole table; a click on a row picks it."""
        total = {v: sum(r[v] for r in self.rows) or 1 for v in VALUES}
        frame = pd.DataFrame(
            [
                {
                    "name": cell(r["name"]),
                    "type": cell(r["kind"]),
                    "shape": r["shape"],
                    "params": r["params"],
                    "params_share": r["params"] / total["params"],
                    "macs": r["macs"],
                    "macs_share": r["macs"] / total["macs"],
                    "weights": units.size(r["weight_bytes"]),
                    "activations": units.size(r["activation_bytes"]),
                }
                for r in self.rows
            ]
        )
        share: dict[str, Any] = {"format": "percent", "min_value": 0.0, "max_value": 1.0}
        columns: dict[str, Any] = {
            "name": t("layers.name"),
            "type": t("layers.type"),
            "shape": t("layers.shape"),
            "params": st.column_config.NumberColumn(t("cost.params"), format="localized"),
            "params_share": st.column_config.ProgressColumn(t("layers.share"), **share),
            "macs": st.column_config.NumberColumn(t("cost.macs"), format="localized"),
            "macs_share": st.column_config.ProgressColumn(t("layers.share"), **share),
            "weights": t("layers.weights"),
            "activations": t("layers.activations"),
        }
        key = f"layers-table-{self.ref[:12]}"
        event = st.dataframe(
            frame,
            hide_index=True,
            column_config=columns,
            on_select="rerun",
            key=key,
            height=420,
            selection_mode="single-row",
            alt=t("layers.table"),
        )
        rows = event.selection.rows
        _pick(key, self.rows[rows[0]]["name"] if rows and rows[0] < len(self.rows) else "")


def _int(value: object) -> int:
    return value if isinstance(value, int) else 1


def _kind(layer: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], by_itself: Set[str]) -> str:
    """The type, and for convolutions the size of the kernel and whether every channel is filtered by itself."""
    shape = shapes.get(layer["weights"][0], ()) if layer["weights"] else ()
    if "Conv" not in layer["type"] or len(shape) < 3:
        return str(layer["type"])
    size = "×".join(map(str, shape[2:]))
    return f"Depthwise {size}" if shape[1] == 1 and layer["name"] in by_itself else f"{layer['type']} {size}"


def _short(name: str, kind: str) -> str:
    """The telling end of a dotted name, for a small box."""
    parts = [p for p in re.split(r"[./]", name) if p and p.lower() != kind.lower()]
    return ".".join(parts[-3:])[-18:]


def _pick(source: str, name: str) -> None:
    """Take a click over once: charts and tables repeat their selection at every run, and the last click must win."""
    seen = st.session_state.setdefault("layers-seen", {})
    if name == seen.get(source, ""):
        return
    st.session_state["layers-seen"] = put(seen, source, name)
    if name:
        update(layer=name)
        st.rerun()
