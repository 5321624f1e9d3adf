"""The files to take home, made when they are asked for."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping
from functools import partial

import streamlit as st

from lwcore import report, units
from lwcore.errors import LwcoreError
from lwcore.scenarios import Attempt
from lwcore.store import is_fingerprint
from pages.ui import errors, measuring, service
from pages.ui.slim import methods
from pages.ui.state import Session, session
from pages.ui.text import t
from pages.ui.wording import title
from pages.ui.workspaces import sharing


def attempt() -> Attempt | None:
    """The measured attempt of the present recipe with its file; when there is none yet, it is asked for here."""
    measuring.keep_up()
    s = session()
    known = measuring.attempt(s)
    if known is not None:
        return known if known.is_original or _is_there(known) else None
    if s.measuring:
        measuring.watch()
        return None
    if s.failed and s.failed[0] == s.recipe and s.failed[1]:
        errors.tell(s.failed[1])
    st.markdown(t("take.not_measured"))
    st.button(
        t("measure.button"),
        key="measure",
        type="primary",
        on_click=measuring.keep_up,
        args=(True,),
        icon=":material/speed:",
    )
    return None


def _is_there(known: Attempt) -> bool:
    """Whether the slimmed file is in the store; one that was swept away is made again: the same recipe, the same bytes.

    (Uploads stay; what can be made again has to make room.)
    """
    if service.store().has_model(known.slimmed):
        return True
    purpose = f"again-{known.slimmed}"
    try:
        found = measuring.result(purpose)
        if found is not None and found["model"] != known.slimmed:
            errors.tell(t("take.other"))
            return False
        if found is None and purpose not in session().other:
            arguments = {"model": known.model, "recipe": known.recipe.to_json(), "samples": known.samples}
            measuring.start("measure", purpose, arguments)
    except LwcoreError as error:
        errors.tell(str(error))
        return False
    if found is None:
        measuring.wait(purpose, t("take.again.making"))
    return found is not None


def stem(known: Attempt) -> str:
    """A file name made of the model's name; only plain letters, because names come from strangers."""
    name = known.model if not is_fingerprint(known.model) else service.model(known.model).card.name
    plain = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "model"
    return plain[:60] + ("" if known.is_original else "-slim")


def draw_files(known: Attempt) -> None:
    """One card a file; the model is the primary action."""
    name, slimmed = stem(known), service.model(known.slimmed)
    with st.container(border=True, key="take-files"):
        st.markdown(
            t(
                "take.summary",
                what=title(known.recipe),
                size=units.size(slimmed.size_bytes),
                change=units.change(known.before.size_bytes, slimmed.size_bytes),
            )
        )
        st.download_button(
            t("take.onnx"),
            slimmed.data,
            f"{name}.onnx",
            "application/octet-stream",
            key="take-onnx",
            type="primary",
            icon=":material/download:",
            on_click="ignore",
        )
        if methods.shrinks_gzipped(known.recipe):
            st.download_button(
                t("take.gzip", size=units.size(known.evaluation.gzip_bytes)),
                lambda: gzip.compress(slimmed.data, 6, mtime=0),
                f"{name}.onnx.gz",
                "application/gzip",
                key="take-gzip",
                icon=":material/folder_zip:",
                on_click="ignore",
            )
        _draw_beside(known, name)
        st.caption(t("take.text"))


def _draw_beside(known: Attempt, name: str) -> None:
    """What must travel with the model, card, recipe and report."""
    words = {key: t(f"report.{key}") for key in report.WORDS}
    with st.container(horizontal=True):
        for file, data in service.model(known.slimmed).files.items():
            st.download_button(
                t("take.file"),
                data,
                file,
                "application/json",
                key=f"take-{file}",
                help=t("take.file.help"),
                on_click="ignore",
                icon=":material/translate:",
            )
        st.download_button(
            t("take.card"),
            lambda: service.model(known.slimmed).card_json().encode(),
            f"{name}.json",
            "application/json",
            key="take-card",
            on_click="ignore",
            icon=":material/badge:",
        )
        st.download_button(
            t("take.recipe"),
            known.recipe.dumps().encode(),
            f"{name}-recipe.json",
            "application/json",
            key="take-recipe",
            on_click="ignore",
            icon=":material/list_alt:",
        )
        st.download_button(
            t("take.report"),
            partial(_report, known, session().log.of(known.model, known.samples), words),
            f"{name}-report.html",
            "text/html",
            key="take-report",
            on_click="ignore",
            icon=":material/article:",
        )


def _report(known: Attempt, others: tuple[Attempt, ...], words: Mapping[str, str]) -> bytes:
    """The report; all that belongs to a session comes along, because a download runs outside of it."""
    return report.build(service.model(known.model), service.model(known.slimmed), known, others, words).encode()


def draw_lines(known: Attempt) -> None:
    """Python and command lines for the same bytes."""
    st.subheader(t("take.again"), anchor=False)
    st.caption(t("take.again.text"))
    own = is_fingerprint(known.model)
    ref = f"{stem(known).removesuffix('-slim')}-original.onnx" if own else known.model
    samples = "pictures.zip" if is_fingerprint(known.samples) else known.samples
    calibration = service.model(known.model).card.calibration or samples
    if own:
        original = service.model(known.model)
        st.download_button(
            t("take.original"),
            original.data,
            ref,
            "application/octet-stream",
            key="take-original",
            on_click="ignore",
            icon=":material/download:",
        )
    name = stem(known)
    st.code(
        f"python -m lwcore slim {ref} --recipe {name}-recipe.json --samples {calibration} --out {name}.onnx",
        "bash",
        wrap_lines=True,
    )
    st.code(
        "\n".join(
            (
                "from pathlib import Path",
                "import lwcore",
                "",
                f"model = lwcore.load({ref!r})",
                f"recipe = lwcore.Recipe.from_json({json.dumps(_minimal(known))})",
                f"samples = lwcore.load_samples({calibration!r}, model)",
                "slimmed = lwcore.apply(model, recipe, samples=samples)",
                f"Path({name + '.onnx'!r}).write_bytes(slimmed.model.data)",
            )
        ),
        "python",
        wrap_lines=True,
    )


def _minimal(known: Attempt) -> dict[str, object]:
    """The recipe as Python can read it: JSON's null, true and false have other names there, so they are left out."""
    data = known.recipe.to_json()
    data["steps"] = [{k: v for k, v in step.items() if v is not None} for step in data["steps"]]
    return data


def draw_link(s: Session) -> None:
    """A link that opens the same model with the same sliders."""
    st.subheader(t("take.link"), anchor=False)
    st.caption(t("take.link.text"))
    st.code(sharing.url(s, measuring.attempt(s)), None, wrap_lines=True)
    if is_fingerprint(s.model):
        st.caption(t("take.link.own"))
