"""Bringing a model or pictures: bytes go to the store at once and are read by a worker, never here."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import streamlit as st
from streamlit.typing import UploadedFile

from lwcore.domains import domain
from lwcore.errors import LwcoreError
from lwcore.model import Card, Model
from lwcore.settings import SETTINGS
from pages.ui import errors, frame, measuring, service
from pages.ui.state import OwnSamples, put, session, update
from pages.ui.text import lookup, named, note, plain, t


def draw_model() -> None:
    """The box for an .onnx file, then the questions that the file itself does not answer."""
    st.caption(t("upload.text"))
    dropped = st.file_uploader(
        t("upload.label"),
        key=f"model-{session().drops}",
        label_visibility="collapsed",
        max_upload_size=SETTINGS.upload_mb,
    )
    if dropped is not None:
        _take_model(dropped)
    try:
        result = measuring.result("ingest")
    except LwcoreError as error:
        errors.tell(str(error))
        return
    if "ingest" in session().other:
        measuring.wait("ingest", t("upload.reading"))
    elif result:
        update(draft=str(result["model"]))
    if session().draft:
        _describe(session().draft)


def _take_model(dropped: UploadedFile) -> None:
    arguments = {"upload": service.store().put_upload(dropped.getvalue()), "name": PurePath(dropped.name).name[:120]}
    update(drops=session().drops + 1, draft="")
    measuring.start("ingest", "ingest", arguments)
    st.rerun()


def _describe(ref: str) -> None:
    model = service.model(ref)
    spec = model.card.input
    with st.form("describe", border=False):
        st.markdown(t("describe.title"))
        for sentence in model.notes:
            st.caption(plain(note(sentence)))
        name = st.text_input(t("describe.name"), model.card.name, max_chars=80)
        with st.container(horizontal=True):
            height = st.number_input(t("describe.height"), 1, 4096, spec.size[0])
            width = st.number_input(t("describe.width"), 1, 4096, spec.size[1])
            layout = st.selectbox(t("describe.layout"), ["NCHW", "NHWC"], index=["NCHW", "NHWC"].index(spec.layout))
            color = st.selectbox(
                t("describe.color"),
                ["rgb", "gray"],
                index=["rgb", "gray"].index(spec.color),
                format_func=named("color", ["rgb", "gray"]),
            )
        with st.container(horizontal=True):
            mean = st.text_input(t("describe.mean"), _numbers(spec.mean), help=t("describe.mean.help"))
            std = st.text_input(t("describe.std"), _numbers(spec.std), help=t("describe.std.help"))
        classes = st.text_area(
            t("describe.classes"), "\n".join(model.card.classes), help=t("describe.classes.help"), height=120
        )
        if st.form_submit_button(t("describe.use"), type="primary", key="describe-use"):
            _use(
                model,
                {
                    "name": name or model.card.name,
                    "classes": [line.strip() for line in classes.splitlines() if line.strip()],
                    "input": {
                        "size": [height, width],
                        "layout": layout,
                        "color": color,
                        "mean": _read(mean),
                        "std": _read(std),
                    },
                },
            )


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{v:g}" for v in values)


def _read(text: str) -> list[str]:
    return [part for part in re.split(r"[,;\s]+", text.strip()) if part]


def _use(model: Model, fields: dict[str, Any]) -> None:
    try:
        described = Model(data=model.data, card=Card.from_json(fields, model.card), notes=model.notes)
    except LwcoreError as error:
        errors.tell(str(error))
        return
    ref = service.store().put_model(described)
    update(uploads=put(session().uploads, ref, described.card.name), draft="")
    frame.choose(ref)
    frame.open_page("layers")


def draw_samples() -> None:
    """Which pictures the model is measured on, and a box for one's own."""
    s = session()
    choices = measuring.sample_choices(s)
    st.session_state["sample-choice"] = measuring.samples(s).ref
    titles = {ref: _title(own) for ref, own in choices.items()}
    st.selectbox(
        t("samples.label"),
        list(choices),
        format_func=lookup(titles),
        key="sample-choice",
        on_change=_samples_changed,
        width=520,
    )
    chosen = measuring.samples(s)
    for sentence in chosen.notes:
        st.caption(plain(note(sentence)))
    task = service.model(s.model).card.task
    st.caption(t(f"samples.text.{task}"))
    dropped = st.file_uploader(
        t(f"samples.upload.{task}"),
        accept_multiple_files=True,
        key=f"pictures-{s.drops}",
        max_upload_size=SETTINGS.upload_mb,
    )
    if dropped:
        _take_samples(dropped)
    _collect_samples()


def _title(own: OwnSamples) -> str:
    kind = t("samples.labelled") if own.labelled else t("samples.unlabelled")
    return t("samples.option", name=own.name, n=f"{own.n:,}", kind=kind)


def _samples_changed() -> None:
    s = session()
    ref = st.session_state["sample-choice"]
    if ref in measuring.sample_choices(s):
        update(samples=put(s.samples, s.model, ref), failed=None)


def _take_samples(dropped: Sequence[UploadedFile]) -> None:
    first = PurePath(dropped[0].name).name[:80]
    single = dropped[0].getvalue() if len(dropped) == 1 else b""
    alone = single[:2] == b"PK" or "zip" not in domain(service.model(session().model)).accepts
    data = single if single and alone else _zipped(dropped)
    arguments = {"upload": service.store().put_upload(data), "model": session().model, "name": first}
    update(drops=session().drops + 1)
    measuring.start("ingest_samples", "pictures", arguments)
    st.rerun()


def _zipped(files: Sequence[UploadedFile]) -> bytes:
    """Loose pictures as one archive, because that is what the worker reads; names are display only."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for i, file in enumerate(files):
            name = re.sub(r"[^A-Za-z0-9._-]", "_", PurePath(file.name).name)[-60:]
            archive.writestr(f"{i:04d}-{name}", file.getvalue())
    return buffer.getvalue()


def _collect_samples() -> None:
    s = session()
    ticket = s.other.get("pictures")
    if ticket is None:
        return
    try:
        result = measuring.result("pictures")
    except LwcoreError as error:
        errors.tell(str(error))
        return
    if result is None:
        measuring.wait("pictures", t("samples.reading"))
        return
    own = OwnSamples(
        ref=result["samples"],
        name=result["name"],
        n=result["n"],
        labelled=result["labelled"],
        notes=tuple(result["notes"]),
    )
    s = session()
    known = tuple(o for o in s.own.get(ticket.model, ()) if o.ref != own.ref)
    update(own=put(s.own, ticket.model, (*known, own)), samples=put(s.samples, ticket.model, own.ref))
    st.rerun()
