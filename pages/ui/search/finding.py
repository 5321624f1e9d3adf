"""The search of a session: begin it, take its result in, stop it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lwcore.errors import LwcoreError
from lwcore.recipe import Recipe
from lwcore.scenarios import Attempt
from pages.ui import errors, frame, measuring, service
from pages.ui.search.goals import Goal, Search
from pages.ui.state import session, update
from pages.ui.text import note, t

_LIVE = ("queued", "running")


def current() -> Search | None:
    """The search of the present model."""
    found = session().search
    return found if found is not None and found.model == session().model else None


def _arguments(goal: Goal) -> dict[str, Any]:
    s = session()
    return {
        "model": s.model,
        "samples": measuring.samples(s).ref,
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


def words(found: Search) -> str:
    """Where a running search stands."""
    status = service.status(found.job)
    if status.state == "queued" and status.position:
        return t("measure.queued", n=status.position)
    words = t("find.running", what=note(status.message)) if status.message else t("find.starting")
    return words + measuring.left(status)
