"""A session and its workspace: found again when the page is opened anew, kept as it changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import streamlit as st

from lwcore.errors import LwcoreError, WorkspaceError
from lwcore.jobs.table import UNKNOWN
from lwcore.recipe import Recipe
from lwcore.scenarios import Attempt, Log
from lwcore.workspaces import Owned, identify, is_token
from pages.ui import service
from pages.ui.state import OwnSamples, Session, Ticket, become, put, session, update
from pages.ui.text import t
from pages.ui.workspaces import keeping, saved, who

_SEEN, _AT_FIRST, _KEPT, _OWNED = "kept-session", "kept-at-first", "kept-parts", "kept-files"


# -- coming back ---------------------------------------------------------------------------------------------------


def enter() -> bool:
    """Open the workspace that the URL names; returns whether there was one."""
    text = st.query_params.get(keeping.URL)
    if not text:
        return False
    try:
        known = is_token(text) and service.workspaces().find(identify(text), who.person()) is not None
        if known:
            who.become(text)
            keeping.mark()
            _restore()
            return True
    except WorkspaceError as error:
        keeping.tell(error)
        return False
    del st.query_params[keeping.URL]
    st.toast(t("link.no_workspace"), icon=":material/link_off:")
    return False


def _restore() -> None:
    owner = who.owner()
    parts = service.workspaces().state(owner)
    fields = saved.read_choices(_json(parts.get("choices")))
    owned = service.workspaces().owned(owner)
    st.session_state[_OWNED] = {(file.kind, file.key, file.model) for file in owned}
    fields |= _files(owned)
    fields["log"] = Log(service.workspaces().attempts(owner))
    if not _is_here(fields.get("model", "")):
        fields["model"] = ""
    start = Session(owner=owner, **fields, loads=1)
    become(replace(start, **_jobs(owner, _json(parts.get("jobs")))))
    update(search=_search(owner, parts.get("search")))
    st.session_state[_KEPT] = parts


def _json(text: str | None) -> Any:
    return json.loads(text) if text else None


def _is_here(ref: str) -> bool:
    try:
        return bool(ref) and service.model(ref) is not None
    except LwcoreError:
        return False


def _files(owned: tuple[Owned, ...]) -> dict[str, Any]:
    own: dict[str, tuple[OwnSamples, ...]] = {}
    for file in owned:
        if file.kind == "samples":
            own[file.model] = (*own.get(file.model, ()), _samples(file))
    return {"uploads": {file.key: file.name for file in owned if file.kind == "model"}, "own": own}


def _samples(file: Owned) -> OwnSamples:
    about = file.about
    return OwnSamples(
        ref=file.key, name=file.name, n=about["n"], labelled=about["labelled"], notes=tuple(about["notes"])
    )


def _jobs(owner: str, data: Any) -> dict[str, Any]:
    """Jobs that were in flight; those that a new server does not know are asked for again."""
    if not isinstance(data, Mapping):
        return {}
    measuring = _ticket(owner, data["measuring"]) if data["measuring"] else None
    other = {name: found for name, item in data["other"].items() if (found := _ticket(owner, item))}
    return {"measuring": measuring, "other": other}


def _ticket(owner: str, item: Mapping[str, Any]) -> Ticket | None:
    recipe = Recipe.from_json(item["recipe"]) if item["recipe"] else None
    job = _again(owner, item["job"], item["task"], item["arguments"])
    return Ticket(**{**item, "job": job, "recipe": recipe}) if job else None


def _again(owner: str, job: str, task: str, arguments: Mapping[str, Any]) -> str:
    """The job, or one more of the same work when nobody knows it any more; empty when that is refused."""
    if service.status(job).error_kind != UNKNOWN:
        return job
    try:
        return service.submit(task, dict(arguments), owner)
    except LwcoreError:
        return ""


def _search(owner: str, text: str | None) -> Any:
    try:
        found = saved.read_search(_json(text))
    except (KeyError, TypeError, ValueError, AttributeError, LwcoreError):  # written by another release
        return None
    if found is None or not found.running:
        return found
    job = _again(owner, found.job, "search", found.arguments)
    return replace(found, job=job, error=None if job else "")


# -- keeping -------------------------------------------------------------------------------------------------------


def keep() -> None:
    """At the end of a run: write down what has changed since the last one."""
    s = session()
    if s is st.session_state.get(_SEEN):
        return
    st.session_state[_SEEN] = s
    try:
        _keep_files(s)
        _keep_parts(s.owner, saved.to_parts(s))
    except WorkspaceError as error:
        keeping.tell(error)


def _keep_parts(owner: str, parts: dict[str, str]) -> None:
    if not keeping.is_begun():
        if parts == st.session_state.setdefault(_AT_FIRST, parts):
            return  # a visitor who has changed nothing leaves nothing behind
        keeping.begin()
    known = st.session_state.get(_KEPT, {})
    changed = {name: text for name, text in parts.items() if known.get(name) != text}
    if changed:
        service.workspaces().put_state(owner, changed)
    st.session_state[_KEPT] = parts


def _keep_files(s: Session) -> None:
    """Own what was uploaded, in whichever way; a file that there is no room for is said once."""
    wanted = [Owned(kind="model", key=key, about={"name": name}) for key, name in s.uploads.items()]
    for model, sets in s.own.items():
        wanted += [Owned(kind="samples", key=own.ref, model=model, about=_about(own)) for own in sets]
    done: set[tuple[str, str, str]] = st.session_state.setdefault(_OWNED, set())
    for file in wanted:
        place = (file.kind, file.key, file.model)
        if place in done:
            continue
        done.add(place)
        try:
            keeping.begin()
            service.workspaces().own(s.owner, file)
        except WorkspaceError as error:
            keeping.tell(error)


def _about(own: OwnSamples) -> dict[str, Any]:
    return {"name": own.name, "n": own.n, "labelled": own.labelled, "notes": list(own.notes)}


def remove(file: Owned) -> None:
    """Let go of an upload; what was measured with it stays in the list."""
    service.workspaces().disown(who.owner(), file.kind, file.key)
    s = session()
    if file.kind == "model":
        update(uploads=put(s.uploads, file.key, None))
        if s.model == file.key:
            update(model="")
    else:
        left = tuple(own for own in s.own.get(file.model, ()) if own.ref != file.key)
        update(own=put(s.own, file.model, left))
    st.session_state.get(_OWNED, set()).discard((file.kind, file.key, file.model))


def take_in(found: Mapping[str, Any]) -> None:
    """Add an imported workspace to this one: its uploads, its attempts, and the choices it was left with.

    Raises:
        WorkspaceError: there is no room for it.
    """
    keeping.begin()
    files = [Owned(kind=f["kind"], key=f["key"], model=f["model"], about=f["about"]) for f in found["files"]]
    for file in files:
        service.workspaces().own(who.owner(), file)
    update(**_files(service.workspaces().owned(who.owner())))
    log = session().log
    for item in found["attempts"]:
        log = log.add(Attempt.from_json(item))
    update(log=log)
    fields = saved.read_choices(found["choices"])
    if _is_here(fields.get("model", "")):
        update(**fields, loads=session().loads + 1)


def export(s: Session, files: tuple[Owned, ...]) -> bytes:
    """A workspace as one file; raises `WorkspaceError` when it is too large. (A download runs outside of a session.)"""
    from lwcore.workspaces import bundle

    return bundle.write(service.store(), files, s.log.attempts, saved.choices(s))
