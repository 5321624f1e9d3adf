"""A share link: model, samples and recipe, and the figures that came of them, so that whoever opens it can compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import pandas as pd
import streamlit as st

from lwcore import units
from lwcore.errors import LwcoreError
from lwcore.scenarios import Attempt
from lwcore.store import is_fingerprint
from pages.ui import measuring, service
from pages.ui.state import OwnSamples, Session, Shared, put, session, update
from pages.ui.text import note, plain, t
from pages.ui.workspaces import links

_SHOWN: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "top1": ("cost.accuracy", units.percent),
    "agreement": ("cost.agreement", units.percent),
    "params": ("cost.params", lambda v: f"{v:,}"),
    "nonzeros": ("strip.nonzeros", lambda v: f"{v:,}"),
    "macs": ("cost.macs", lambda v: f"{v:,}"),
    "size_bytes": ("cost.file", lambda v: f"{v:,} B"),
    "gzip_bytes": ("strip.gzip", lambda v: f"{v:,} B"),
}


def figures(known: Attempt) -> dict[str, Any]:
    """What must come out again: everything but times. `file` begins the fingerprint of the slimmed model."""
    return {"file": known.slimmed[:16], **{name: getattr(known.evaluation, name) for name in _SHOWN}}


def url(s: Session, known: Attempt | None) -> str:
    """The address of Slim with everything of this attempt, and nothing of this workspace."""
    here = urlsplit(st.context.url or "")
    query = {"model": s.model, "samples": measuring.samples(s).ref, "recipe": links.to_link(s.recipe)}
    if known is not None:
        query["figures"] = links.pack(figures(known))
    root = here.path.rsplit("/", 1)[0]
    return f"{here.scheme}://{here.netloc}{root}/slim?{urlencode(query)}"


def enter() -> None:
    """Take samples and figures out of a share link; the recipe is in the controls by now."""
    ref, packed = st.query_params.get("samples", ""), st.query_params.get("figures", "")
    for name in ("samples", "figures"):
        if name in st.query_params:
            del st.query_params[name]
    if not session().model:
        return
    try:
        if ref:
            _take_samples(ref)
        if packed:
            expected = _checked(links.unpack(packed))
            s = session()
            update(shared=Shared(model=s.model, samples=measuring.samples(s).ref, recipe=s.recipe, figures=expected))
    except LwcoreError as error:
        st.toast(plain(note(str(error))), icon=":material/link_off:")


def _take_samples(ref: str) -> None:
    s = session()
    if is_fingerprint(ref) and ref not in measuring.sample_choices(s):
        found = service.workspaces().described("samples", ref)
        if found is None or found.model != s.model or not service.store().has_samples(ref):
            raise LwcoreError("The samples in this link are not here (any more). Choose or upload others.")
        about = found.about
        own = OwnSamples(ref=ref, name=found.name, n=about["n"], labelled=about["labelled"])
        update(own=put(s.own, s.model, (*s.own.get(s.model, ()), own)))
    if ref in measuring.sample_choices(session()):
        update(samples=put(session().samples, s.model, ref))


def _checked(found: Any) -> dict[str, Any]:
    """Only numbers under the names we know; whoever made the link could write anything."""
    if not isinstance(found, dict):
        return {}
    numbers = {n: v for n, v in found.items() if n in _SHOWN and (v is None or type(v) in (int, float))}
    return numbers | {"file": str(found.get("file", ""))[:16]}


def draw(known: Attempt) -> None:
    """On the attempt that a link promised: the same numbers, or what differs, then and now."""
    told = session().shared
    if told is None or (told.model, told.samples, told.recipe) != (known.model, known.samples, known.recipe):
        return
    now = figures(known)
    differing = [name for name in _SHOWN if name in told.figures and told.figures[name] != now[name]]
    if not differing:
        same = told.figures["file"] == now["file"]
        st.markdown(":material/verified: " + t("share.same" if same else "share.same.numbers"))
        return
    st.markdown(":material/difference: " + t("share.differs"))
    rows = [
        {"what": t(_SHOWN[name][0]), "then": _text(name, told.figures[name]), "now": _text(name, now[name])}
        for name in differing
    ]
    columns = {"what": t("share.what"), "then": t("share.then"), "now": t("share.now")}
    st.dataframe(pd.DataFrame(rows), hide_index=True, column_config=columns, key="share-table", alt=t("share.differs"))


def _text(name: str, value: Any) -> str:
    return "–" if value is None else _SHOWN[name][1](value)
