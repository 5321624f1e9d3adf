"""What an uploaded file does not say: how samples become its input, and what its classes are called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import streamlit as st

from lwcore.domains import domain
from lwcore.errors import LwcoreError
from lwcore.model import Card, ClipLayout, ClipSpec, Color, InputSpec, Layout, Model
from pages.ui import errors, frame, service
from pages.ui.state import put, session, update
from pages.ui.text import named, note, plain, t

_EDGE, _FRAMES = 4096, 1024


def draw(ref: str) -> None:
    """The form for one uploaded model, filled in with what was read or guessed."""
    model = service.model(ref)
    with st.form("describe", border=False):
        st.markdown(t("describe.title"))
        for sentence in model.notes:
            st.caption(plain(note(sentence)))
        fields: dict[str, Any] = {"name": st.text_input(t("describe.name"), model.card.name, max_chars=80)}
        fields["name"] = fields["name"] or model.card.name
        spec = model.card.input
        if isinstance(spec, InputSpec):
            fields |= {"task": _task(model.card.task), "input": _picture(spec)}
        if domain(model).classes:
            fields["classes"] = _classes(model.card)
        if st.form_submit_button(t("describe.use"), type="primary", key="describe-use"):
            _use(model, fields)


def _task(task: str) -> str:
    tasks = [task, "generic"]
    return st.selectbox(t("describe.task"), tasks, format_func=named("task", tasks), help=t("describe.task.help"))


def _picture(spec: InputSpec) -> dict[str, Any]:
    """How a picture, or every frame of a clip, becomes the input."""
    layouts, colours = list(get_args(ClipLayout if isinstance(spec, ClipSpec) else Layout)), list(get_args(Color))
    fields: dict[str, Any] = {}
    with st.container(horizontal=True):
        if isinstance(spec, ClipSpec):
            fields["frames"] = st.number_input(t("describe.frames"), 1, _FRAMES, spec.frames)
        height = st.number_input(t("describe.height"), 1, _EDGE, spec.size[0])
        width = st.number_input(t("describe.width"), 1, _EDGE, spec.size[1])
        layout = st.selectbox(t("describe.layout"), layouts, index=layouts.index(spec.layout))
        color = st.selectbox(
            t("describe.color"), colours, index=colours.index(spec.color), format_func=named("color", colours)
        )
    with st.container(horizontal=True):
        mean = st.text_input(t("describe.mean"), _numbers(spec.mean), help=t("describe.mean.help"))
        std = st.text_input(t("describe.std"), _numbers(spec.std), help=t("describe.std.help"))
    return {
        **fields,
        "size": [height, width],
        "layout": layout,
        "color": color,
        "mean": _read(mean),
        "std": _read(std),
    }


def _classes(card: Card) -> list[str]:
    text = st.text_area(t("describe.classes"), "\n".join(card.classes), help=t("describe.classes.help"), height=120)
    return [line.strip() for line in text.splitlines() if line.strip()]


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{v:g}" for v in values)


def _read(text: str) -> list[str]:
    return [part for part in re.split(r"[,;\s]+", text.strip()) if part]


def _use(model: Model, fields: dict[str, Any]) -> None:
    if fields.get("task") == "generic":
        fields = {"name": fields["name"], "task": "generic", "classes": []}
    try:
        described = replace(model, card=Card.from_json(fields, model.card))
    except LwcoreError as error:
        errors.tell(str(error))
        return
    ref = service.store().put_model(described)
    update(uploads=put(session().uploads, ref, described.card.name), draft="")
    frame.choose(ref)
    frame.open_page("layers")
