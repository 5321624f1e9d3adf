"""On Take home: the link back to this workspace, what it keeps, and the whole of it as a file."""

from __future__ import annotations

from functools import partial
from urllib.parse import urlencode, urlsplit

import streamlit as st

from lwcore import units
from lwcore.errors import LwcoreError
from lwcore.settings import SETTINGS
from lwcore.workspaces import Owned
from pages.ui import errors, measuring, service
from pages.ui.state import session, update
from pages.ui.text import lookup, t
from pages.ui.workspaces import keeping, who, workspace

_IMPORTED = "workspace-imported"


def draw() -> None:
    """The panel."""
    with st.container(border=True, key="workspace"):
        st.subheader(t("workspace.title"), anchor=False)
        if keeping.is_begun():
            _link()
            _uploads()
        else:
            st.caption(t("workspace.empty"))
        _export()
        _import()


def _link() -> None:
    here = urlsplit(st.context.url or "")
    root = here.path.rsplit("/", 1)[0]
    st.caption(t("workspace.link.text"))
    st.code(f"{here.scheme}://{here.netloc}{root}/?{urlencode({keeping.URL: who.token()})}", None, wrap_lines=True)


def _uploads() -> None:
    try:
        files, usage = service.workspaces().owned(who.owner()), service.workspaces().usage(who.owner())
    except LwcoreError as error:
        errors.tell(str(error))
        return
    if not files:
        return
    st.caption(t("workspace.room", mine=units.size(usage.mine), limit=units.size(usage.my_limit)))
    named = {f"{f.kind} {f.key} {f.model}": f for f in files}
    titles = {place: f"{f.name} · {units.size(f.size_bytes)}" for place, f in named.items()}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox(
            t("workspace.uploads"), list(named), format_func=lookup(titles), key="workspace-upload", width=420
        )
        st.button(
            t("workspace.remove"),
            key="workspace-remove",
            icon=":material/delete:",
            on_click=_remove,
            args=(named.get(chosen, files[0]),),
            help=t("workspace.remove.help"),
        )


def _remove(file: Owned) -> None:
    try:
        workspace.remove(file)
    except LwcoreError as error:
        keeping.tell(error)


def _export() -> None:
    """Made when it is asked for; what does not fit is said before."""
    files = service.workspaces().owned(who.owner()) if keeping.is_begun() else ()
    too_large = sum(f.size_bytes for f in files) > SETTINGS.upload_mb * 1_000_000
    st.download_button(
        t("workspace.export"),
        partial(workspace.export, session(), files),
        "slimlab-workspace.zip",
        "application/zip",
        key="workspace-export",
        icon=":material/archive:",
        on_click="ignore",
        disabled=too_large,
        help=t("workspace.export.large", mb=SETTINGS.upload_mb) if too_large else t("workspace.export.help"),
    )


def _import() -> None:
    dropped = st.file_uploader(
        t("workspace.import"), key=f"workspace-{session().drops}", max_upload_size=SETTINGS.upload_mb, type=["zip"]
    )
    try:
        if dropped is not None:
            measuring.start("import_workspace", "import", {"upload": keeping.take(dropped.getvalue())})
            update(drops=session().drops + 1)
            st.rerun()
        found = measuring.result("import")
        if found is not None:
            workspace.take_in(found)
            st.session_state[_IMPORTED] = len(found["attempts"])
            st.rerun()
    except LwcoreError as error:
        errors.tell(str(error))
    if _IMPORTED in st.session_state:
        st.success(t("workspace.imported", n=st.session_state.pop(_IMPORTED)), icon=":material/unarchive:")
    if "import" in session().other:
        measuring.wait("import", t("workspace.importing"))
