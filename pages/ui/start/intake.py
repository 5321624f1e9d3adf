"""Bringing a model or pictures: bytes go to the store at once and are read by a worker, never here."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import streamlit as st
from streamlit.typing import UploadedFile

from lwcore.domains import domain
from lwcore.errors import LwcoreError
from lwcore.settings import SETTINGS
from lwcore.sources import hub
from lwcore.sources.text.files import holds_encoder
from lwcore.sources.weights import is_weights
from pages.ui import errors, measuring, service
from pages.ui.start import describe
from pages.ui.state import OwnSamples, put, session, update
from pages.ui.text import lookup, note, plain, t
from pages.ui.workspaces import keeping


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
    ticket = session().other.get("ingest")
    try:
        result = measuring.result("ingest")
        if ticket and result and "decoded" in result:
            _go_on(result, ticket.question)
    except LwcoreError as error:
        errors.tell(str(error))
        return
    if "ingest" in session().other:
        words = t("weights.fitting") if session().weights else t("upload.reading")
        measuring.wait("ingest", words, long=True)
    elif result and "model" in result:
        update(draft=str(result["model"]), weights=None)
    if session().weights and "ingest" not in session().other:
        _ask_architecture(*session().weights)
    if session().draft:
        describe.draw(session().draft)


def _take_model(dropped: UploadedFile) -> None:
    data, name = dropped.getvalue(), PurePath(dropped.name).name[:120]
    try:
        upload = keeping.take(data)
    except LwcoreError as error:
        errors.tell(str(error))
        return
    measuring.give_up("ingest")
    update(drops=session().drops + 1, draft="", weights=None)
    if is_weights(data) or holds_encoder(data):
        measuring.start("decode", "ingest", {"upload": upload}, question=name)
    else:
        measuring.start("ingest", "ingest", {"upload": upload, "name": name})
    st.rerun()


def _go_on(read: Mapping[str, Any], name: str) -> None:
    """After weights were read: build the network, once it is known which."""
    if read["encoder"]:
        measuring.start("build", "ingest", {"decoded": read["decoded"], "name": name})
    else:
        update(weights=(str(read["decoded"]), name))


def _ask_architecture(decoded: str, name: str) -> None:
    """Weights without a network: which structure do they belong to?"""
    st.markdown(t("weights.title"))
    st.text(name)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        architecture = st.selectbox(
            t("weights.label"),
            hub.structures(),
            index=None,
            placeholder=t("weights.placeholder"),
            key="weights-architecture",
            width=420,
        )
        if st.button(t("weights.fit"), key="weights-fit", disabled=architecture is None):
            arguments = {"decoded": decoded, "name": name, "architecture": str(architecture)}
            measuring.start("build", "ingest", arguments)
            st.rerun()
        st.button(t("weights.drop"), key="weights-drop", on_click=lambda: update(weights=None))


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
    try:
        arguments = {"upload": keeping.take(data), "model": session().model, "name": first}
    except LwcoreError as error:
        errors.tell(str(error))
        return
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
