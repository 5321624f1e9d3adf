"""Measuring: ask the workers for the present recipe's numbers, drop what is stale, write down what comes back."""

from __future__ import annotations

import time
from typing import Any

import streamlit as st

from lwcore import units
from lwcore.errors import LwcoreError
from lwcore.jobs.pool import JobStatus
from lwcore.recipe import Distill
from lwcore.samples import builtin
from lwcore.scenarios import Attempt
from lwcore.slimming import Plan
from pages.ui import errors, service
from pages.ui.state import OwnSamples, Session, Ticket, put, session, update
from pages.ui.text import known, note, plain, t
from pages.ui.turn import once

_LIVE = ("queued", "running")
_POLL_SECONDS = 0.2
_POLLS_PER_SECOND = 20  # of all tabs together: each look takes milliseconds of the process that answers everybody
# Where runs are slow the server has no time for looks either, so they wait.
_RUNS_BETWEEN = 4
_LONGEST_WAIT = 5.0  # seconds, on that account: the first run after a start is slow and says little of later ones
_CLOCK = "run-began"


@once
def sample_choices(s: Session) -> dict[str, OwnSamples]:
    """Sets that fit the present model: its own, those that any model of its kind can be asked about, uploaded ones."""
    card = service.model(s.model).card
    refs = dict.fromkeys([*card.sample_sets, *builtin.common(card.task)])
    found = {ref: _builtin(ref) for ref in refs if ref in builtin.SETS}
    return found | {own.ref: own for own in s.own.get(s.model, ())}


def _builtin(ref: str) -> OwnSamples:
    entry = builtin.SETS[ref]
    return OwnSamples(ref=ref, name=known(f"samples.{ref}", entry.title), n=entry.n, labelled=entry.labelled)


@once
def samples(s: Session) -> OwnSamples:
    """The chosen set of the present model."""
    choices = sample_choices(s)
    return choices.get(s.samples.get(s.model, ""), next(iter(choices.values())))


@once
def attempt(s: Session) -> Attempt | None:
    """The measured attempt of the present model, samples and recipe."""
    return s.log.find(s.model, samples(s).ref, s.recipe) if s.model else None


@once
def original(s: Session) -> tuple[float | None, float | None]:
    """Measured accuracy (None without labels) and latency of the original, from any attempt on the same samples."""
    for measured in reversed(s.log.of(s.model, samples(s).ref)):
        e = measured.evaluation
        accuracy = e.top1 if measured.is_original else e.reference_top1
        return accuracy, e.reference_latency_ms or e.latency_ms
    return None, None


def by_itself(s: Session) -> bool:
    """Whether the present recipe is measured without being asked: it is quick, and all it trains is trained."""
    return service.is_quick(s.model, samples(s).n) and not trains(s)


def trains(s: Session) -> bool:
    """Whether measuring the present recipe means training for minutes first."""
    known = service.trainings(s.model, s.recipe)
    steps = [position for position, step in enumerate(s.recipe.steps) if isinstance(step, Distill)]
    return any(position not in known or not known[position]["finished"] for position in steps)


@once
def plan(s: Session) -> Plan:
    """What the present recipe would leave; raises `LwcoreError` when it cannot be carried out."""
    return service.plan(s.model, s.recipe, s.measured.get(_place(s), {}), _calibration(s))


def missing(s: Session) -> str:
    """What has to be measured before the plan is exact, empty when nothing; asks a worker for it.

    Raises:
        LwcoreError: it could not be measured.
    """
    place = _place(s)
    have = s.measured.get(place, {})
    for need in plan(s).needs:
        if need in have:
            continue
        purpose = f"{need}-{place}"
        if purpose not in session().other:
            start(need, purpose, {"model": s.model, "samples": _calibration(s)})
        found = result(purpose)
        if found is None:
            return need
        have = {**have, need: found}
        update(measured=put(session().measured, place, have))
    return ""


def found(need: str) -> Any:
    """What was measured of the present model for exact plans, by name; None before."""
    s = session()
    return s.measured.get(_place(s), {}).get(need)


def wait_for(need: str) -> None:
    """Progress of what `missing` asked for."""
    wait(f"{need}-{_place(session())}", t(f"slim.wait.{need}"))


def _place(s: Session) -> str:
    """Where that is kept: it belongs to a model and to calibration pictures."""
    return f"{s.model} {_calibration(s)}"


def _calibration(s: Session) -> str:
    return service.model(s.model).card.calibration or samples(s).ref


def keep_up(asked: bool = False, train: bool = True) -> None:
    """Stop a job whose question has changed, and ask the present one when it is quick or was `asked` for.

    Args:
        train: begin to train where the recipe says so; else take what a training that was broken off has come to.
    """
    s = session()
    ref = samples(s).ref
    wanted = (s.model, ref, s.recipe)
    ticket = s.measuring
    if ticket and (ticket.model, ticket.samples, ticket.recipe) != wanted:
        service.cancel(ticket.job)
        s = update(measuring=None)
    failed_before = s.failed is not None and s.failed[0] == s.recipe
    if s.measuring or attempt(s) or not (asked or (by_itself(s) and not failed_before)):
        return
    arguments = {"model": s.model, "recipe": s.recipe.to_json(), "samples": ref}
    task = "measure"
    if any(isinstance(step, Distill) for step in s.recipe.steps):
        task, arguments = "distill", {**arguments, "train": train}
    try:
        job = service.submit(task, arguments, s.owner)
    except LwcoreError as error:  # the queue is full
        update(failed=(s.recipe, str(error)))
        return
    ticket = Ticket(job=job, task=task, arguments=arguments, model=s.model, samples=ref, recipe=s.recipe)
    update(measuring=ticket, failed=None)
    collect()  # what somebody measured before is known at once


def collect() -> None:
    """Write down a finished measurement; harmless when there is none."""
    s = session()
    if not s.measuring:
        return
    ticket, status = s.measuring, service.status(s.measuring.job)
    if status.state in _LIVE:
        return
    if status.state == "done" and status.result is not None:
        update(log=s.log.add(Attempt.from_result(ticket.model, ticket.samples, status.result)), measuring=None)
    elif status.state == "failed":
        update(measuring=None, failed=(ticket.recipe, status.error or ""))
    else:
        update(measuring=None)


def stop() -> None:
    """Cancel on a person's word; nothing is asked again until something changes."""
    s = session()
    if s.measuring:
        service.cancel(s.measuring.job)
        update(measuring=None, failed=(s.recipe, ""))


def start_clock() -> None:
    """A run of the page begins."""
    st.session_state[_CLOCK] = time.monotonic()


def pace(least: float = _POLL_SECONDS) -> float:
    """Seconds until a tab looks at its job again: longer where many wait or the server is slow."""
    took = time.monotonic() - st.session_state.get(_CLOCK, time.monotonic())
    return max(least, service.jobs().waited_for() / _POLLS_PER_SECOND, min(_RUNS_BETWEEN * took, _LONGEST_WAIT))


def watch(quiet: bool = False) -> None:
    """Progress of the live measurement; when it ends, the whole page runs again. Called only while one is live."""
    st.fragment(_watch, run_every=pace())(quiet)


def _watch(quiet: bool) -> None:
    ticket = session().measuring
    if ticket is None:
        st.rerun()
    status = service.status(ticket.job)
    if status.state not in _LIVE:
        collect()
        st.rerun()
    if not quiet:
        _progress(status)


def left(status: JobStatus) -> str:
    """How long it will still take, as an end to the words of a progress bar; empty when that cannot be told."""
    return "" if status.remaining is None else t("measure.left", time=units.duration(status.remaining))


def _progress(status: JobStatus) -> None:
    words = (
        t("measure.queued", n=status.position)
        if status.state == "queued" and status.position
        else (t("measure.running", what=note(status.message)) if status.message else t("measure.starting"))
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.progress(min(1.0, max(0.0, status.progress)), text=words + left(status))
        st.button(t("measure.cancel"), key="cancel-measure", on_click=stop, icon=":material/close:")


def start(task: str, purpose: str, arguments: dict[str, Any], question: str = "") -> None:
    """Ask a worker for something other than a measurement; a job under the same purpose is stopped."""
    s = session()
    if purpose in s.other:
        service.cancel(s.other[purpose].job)
    job = service.submit(task, arguments, s.owner)
    ticket = Ticket(job=job, task=task, arguments=arguments, model=s.model, question=question)
    update(other=put(s.other, purpose, ticket))


def result(purpose: str) -> dict[str, Any] | None:
    """What the job brought, once; None while it runs (then show `wait`) or when none was started.

    Raises:
        LwcoreError: the job failed; its sentence says why.
    """
    ticket = session().other.get(purpose)
    if ticket is None:
        return None
    status = service.status(ticket.job)
    if status.state in _LIVE:
        return None
    forget(purpose)
    if status.state == "done" and status.result is not None:
        return dict(status.result)
    raise LwcoreError(status.error or t("measure.cancelled"))


def follow(purpose: str, field: str, words: str) -> bool:
    """Follow a job begun with `start`: its answer goes into a mapping of the session, under the job's question.

    The page runs again when it is there; why there is none is told.

    Args:
        field: the mapping's name in `Session`.
        words: beside the progress.

    Returns:
        Whether it is still worked on, so that its progress was drawn.
    """
    ticket = session().other.get(purpose)
    try:
        found = result(purpose)
    except LwcoreError as error:
        errors.tell(str(error))
        found = None
    if found is not None and ticket is not None:
        update(**{field: put(getattr(session(), field), ticket.question, found)})
        st.rerun()
    if purpose in session().other:
        wait(purpose, words)
        return True
    return False


def forget(purpose: str) -> None:
    """Drop the ticket of a job."""
    update(other=put(session().other, purpose, None))


def give_up(purpose: str) -> None:
    """Stop a job begun with `start`; harmless when there is none."""
    ticket = session().other.get(purpose)
    if ticket is not None:
        service.cancel(ticket.job)
        forget(purpose)


def wait(purpose: str, words: str, long: bool = False) -> None:
    """Progress of a job begun with `start`; when it ends, the whole page runs again.

    A `long` one says what it is doing in its own words and can be given up.
    """
    st.fragment(_wait, run_every=pace())(purpose, words, long)


def _wait(purpose: str, words: str, long: bool) -> None:
    ticket = session().other.get(purpose)
    status = service.status(ticket.job) if ticket else None
    if status is None or status.state not in _LIVE:
        st.rerun()
    share = min(1.0, max(0.0, status.progress))
    if not long:
        st.progress(share, text=words + left(status))
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.progress(share, text=(plain(note(status.message)) if status.message else words) + left(status))
        st.button(
            t("measure.cancel"), key=f"cancel-{purpose}", on_click=give_up, args=(purpose,), icon=":material/close:"
        )
