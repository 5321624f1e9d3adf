"""The search of a session: begin it, find it again after a reload, take its result in, stop it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from lwcore.errors import LwcoreError
from lwcore.recipe import Recipe
from lwcore.scenarios import Attempt
from pages.ui import errors, frame, goals, measuring, service
from pages.ui.goals import Goal, Search
from pages.ui.state import session, update
from pages.ui.text import note, plain, t

_LIVE = ("queued", "running")
_URL = "search"


def current() -> Search | None:
    """The search of the present model."""
    found = session().search
    return found if found is not None and found.model == session().model else None


def _arguments(goal: Goal, samples: str = "") -> dict[str, Any]:
    s = session()
    return {
        "model": s.model,
        "samples": samples or measuring.samples(s).ref,
        "target": goal.target(),
        "seconds": goal.seconds,
        "seed": goal.seed,
    }


def begin() -> None:
    """Ask a worker to search for the present goal; another search that still runs is stopped."""
    stop()
    s = session()
    try:
        arguments = _arguments(s.goal)
        job = service.submit("search", arguments, s.owner)
    except LwcoreError as error:  # no limit was chosen, or the queue is full
        update(search=Search(arguments={"model": s.model}, job="", goal=s.goal, error=str(error)))
        return
    update(search=Search(arguments=arguments, job=job, goal=s.goal, began=s.recipe))


def stop() -> None:
    """Stop the search on a person's word; what it tried is kept, and the same goal goes on from there."""
    found = session().search
    if found is not None and found.running:
        service.cancel(found.job)
        update(search=replace(found, error="", job=""))


def dismiss() -> None:
    """Put the search's panel away."""
    stop()
    update(search=None)


def collect() -> None:
    """Take in a search that has ended; harmless when there is none. Its recipe goes into untouched controls."""
    found = session().search
    if found is None or not found.running:
        return
    status = service.status(found.job)
    if status.state in _LIVE:
        return
    if status.state != "done" or status.result is None:
        update(search=replace(found, error=status.error or ""))
        return
    s = session()
    known = Attempt.from_result(found.model, str(found.arguments["samples"]), status.result)
    update(log=s.log.add(known), search=replace(found, result=dict(status.result)))
    if found.model == s.model and s.recipe == found.began:
        adopt(known.recipe)


def adopt(recipe: Recipe) -> None:
    """Put a found recipe into the controls, and show them."""
    try:
        frame.load_recipe(recipe)
    except LwcoreError as error:
        errors.tell(str(error))
        return
    update(way="hand")


def trials(found: Search) -> list[dict[str, Any]]:
    """What was tried so far."""
    if found.result is not None:
        return list(found.result["trials"])
    return service.trials(found.arguments) if "target" in found.arguments else []


# -- the URL -------------------------------------------------------------------------------------------------------


def enter() -> None:
    """After a reload: take up the search that the URL names. A link alone never begins one.

    Whoever comes by the link gets a ticket of their own for the same work, so that nobody stops somebody else's.
    """
    if "entered-search" in st.session_state:
        return
    st.session_state["entered-search"] = True
    text = st.query_params.get(_URL)
    if not text or not session().model:
        return
    try:
        job, goal, samples = goals.from_text(text)
        arguments = _arguments(goal, samples)
        status = service.status(job)
        known = status.task == "search" and (status.state in _LIVE or status.result is not None)
        if known:
            job = service.submit("search", arguments, session().owner)
        found = Search(arguments=arguments, job=job, goal=goal, error=None if known else status.error or "")
        update(goal=goal, way="find", search=found)
    except LwcoreError as error:
        st.toast(plain(note(str(error))), icon=":material/link_off:")


def keep_link() -> None:
    """The URL names the search of the present model, as long as its panel is open."""
    found = current()
    wanted = (
        goals.to_text(found.job, found.goal, str(found.arguments["samples"]))
        if found is not None and found.job
        else None
    )
    if wanted is None:
        if _URL in st.query_params:
            del st.query_params[_URL]
    elif st.query_params.get(_URL) != wanted:
        st.query_params[_URL] = wanted


def words(found: Search) -> str:
    """Where a running search stands."""
    status = service.status(found.job)
    if status.state == "queued" and status.position:
        return t("measure.queued", n=status.position)
    return t("find.running", what=note(status.message)) if status.message else t("find.starting")
