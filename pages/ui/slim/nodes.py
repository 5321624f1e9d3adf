"""Which operator int8 harms: each one's error, measured by a worker, and one click that keeps an operator in float."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

from lwcore import units
from lwcore.errors import LwcoreError
from lwcore.recipe import Precision, Recipe
from pages.ui import charts, measuring
from pages.ui.slim import methods
from pages.ui.state import session, update
from pages.ui.text import named, note, plain, t, uncelled

_PURPOSE = "nodes"
_SHOWN = 60
_MEASURES = ("alone", "without")


def step_of(recipe: Recipe) -> Precision | None:
    """The static int8 step of a recipe; the last one, when there are several."""
    static = [s for s in recipe.steps if isinstance(s, Precision) and s.format == "int8-static"]
    return static[-1] if static else None


def question(recipe: Recipe) -> Recipe:
    """The recipe that errors are measured for: nothing kept and nothing limited yet, so that clicks need no new run."""
    return replace(
        recipe,
        steps=tuple(
            replace(s, keep=(), drop=None) if isinstance(s, Precision) and s.format == "int8-static" else s
            for s in recipe.steps
        ),
    )


@dataclass(frozen=True)
class Asked:
    """What the errors are of: a model, the pictures it is measured on, and the recipe in the controls."""

    model: str
    samples: str
    recipe: Recipe

    @property
    def arguments(self) -> dict[str, Any]:
        """For the worker."""
        return {"model": self.model, "recipe": question(self.recipe).to_json(), "samples": self.samples}

    @property
    def key(self) -> str:
        """Under which the answer is kept."""
        return json.dumps(self.arguments, sort_keys=True)


def draw_meanwhile(asked: Asked) -> None:
    """The chart, if it was open, while what was clicked in it is being measured."""
    if st.session_state.get("slim-tab") == "nodes" and asked.key in session().harm:
        draw(asked)


def draw(asked: Asked) -> None:
    """The chart; a button first, because measuring every operator takes a while."""
    found = session().harm.get(asked.key)
    if found is None:
        _ask(asked)
    elif not found["nodes"]:
        st.caption(t("nodes.none"))
    else:
        st.markdown(t("nodes.text"))
        _chart(asked, found["nodes"])


def _ask(asked: Asked) -> None:
    if measuring.follow(_PURPOSE, "harm", t("nodes.wait")):
        return
    st.markdown(t("nodes.what"))
    st.button(
        t("nodes.ask"),
        key="nodes-ask",
        icon=":material/troubleshoot:",
        on_click=_begin,
        args=(asked,),
    )


def _begin(asked: Asked) -> None:
    try:
        measuring.start("node_errors", _PURPOSE, asked.arguments, asked.key)
    except LwcoreError as error:  # the queue is full
        st.toast(plain(note(str(error))), icon=":material/error:")


def _chart(asked: Asked, found: Sequence[dict[str, Any]]) -> None:
    step = step_of(asked.recipe)
    keep = step.keep if step else ()
    measure = st.segmented_control(
        t("nodes.measure"),
        _MEASURES,
        default="alone",
        required=True,
        key="nodes-measure",
        format_func=named("nodes", _MEASURES),
        label_visibility="collapsed",
        persist_state="session",
    )
    measure = measure if measure in _MEASURES else "alone"
    ranked = sorted(found, key=lambda row: -row[measure])
    rows = [
        {"name": r["node"], "value": r[measure], "kept": r["node"] in keep, "text": units.percent(r[measure], 2)}
        for r in ranked[:_SHOWN]
    ]
    spec = charts.node_errors(rows, x=t(f"nodes.{measure}.axis"), kept=t("nodes.kept"), int8=t("nodes.int8"))
    with st.container(height=430, border=False):
        event = st.vega_lite_chart(
            spec,
            # a new key after each click: the fresh chart has nothing selected, so the same bar can be clicked again
            key=f"nodes-{measure}-{asked.model[:12]}-{zlib.crc32(' '.join(keep).encode())}",
            on_select="rerun",
            selection_mode="pick",
            alt=t("nodes.alt", name=ranked[0]["node"]),
        )
    picked = event.selection.get("pick") or []
    if picked and picked[0].get("name"):
        toggle(uncelled(picked[0]["name"]))
        st.rerun()
    worst = next((row["node"] for row in ranked if row["node"] not in keep), None)
    if worst is not None:
        st.button(t("nodes.keep_worst"), key="keep-worst", icon=":material/lock:", on_click=toggle, args=(worst,))
        st.text(worst)


def toggle(node: str) -> None:
    """Keep an operator in float, or let it become int8 again."""
    listed = session().methods
    static = [m for m in listed if m.on and isinstance(m.step, Precision) and m.step.format == "int8-static"]
    if not static:
        return
    method = static[-1]
    assert isinstance(method.step, Precision)
    kept = method.step.keep
    keep = tuple(n for n in kept if n != node) if node in kept else (*kept, node)
    update(methods=methods.edited(listed, method.name, replace(method.step, keep=keep)))
