"""What the recipe saves and costs: the estimate at once, the measurement when it is there."""

from __future__ import annotations

import streamlit as st

from lwcore import units
from lwcore.errors import LwcoreError
from lwcore.evaluation.result import Evaluation
from lwcore.scenarios import Attempt
from lwcore.slimming import Plan
from pages.ui import errors, measuring
from pages.ui.costline import points
from pages.ui.slim import causes, details, likeness, methods, nodes, training
from pages.ui.state import Session, session
from pages.ui.text import note, plain, t
from pages.ui.workspaces import sharing

_SURE = 0.05  # the customary level of a test


def draw() -> None:
    """The right-hand side of Slim."""
    try:
        need = measuring.missing(session())
        if not need:
            measuring.keep_up()
        s = session()
        known, plan = measuring.attempt(s), measuring.plan(s)
    except LwcoreError as error:
        errors.tell(str(error))
        return
    with st.container(border=True, key="verdict"):
        if known:
            _measured(known)
        else:
            _estimate(plan)
            if need:
                measuring.wait_for(need)
            else:
                _progress(s)
    training.draw()
    if known is None:
        nodes.draw_meanwhile(nodes.Asked(s.model, measuring.samples(s).ref, s.recipe))
        return
    sharing.draw(known)
    _strip(known)
    causes.draw(known)
    _notes(known.notes)
    details.draw(known)


def _estimate(plan: Plan) -> None:
    st.markdown(t("result.estimate.title"))
    st.markdown(
        t(
            "result.estimate.rough" if plan.estimated else "result.estimate",
            params=units.change(plan.before.params, plan.after.params),
            macs=units.change(plan.before.macs, plan.after.macs),
            size=units.change(plan.before.size_bytes, plan.after.size_bytes),
        )
    )


def _progress(s: Session) -> None:
    """How far the measurement is, or the button that begins it."""
    if s.measuring:
        measuring.watch()
        return
    if s.failed and s.failed[0] == s.recipe and s.failed[1]:
        errors.tell(s.failed[1])
    trains = measuring.trains(s)
    if trains:
        st.caption(t("training.before"))
    elif not measuring.by_itself(s):
        st.caption(t("measure.slow"))
    st.button(
        t("training.button" if trains else "measure.button"),
        key="measure",
        type="primary",
        on_click=measuring.keep_up,
        args=(True,),
        icon=":material/speed:",
    )


def _measured(known: Attempt) -> None:
    e = known.evaluation
    if known.is_original:
        st.markdown(t("result.original.title"))
        _headline_original(e)
        return
    st.markdown(t("result.measured.title"))
    if e.top1 is not None and e.reference_top1 is not None:
        st.markdown(t("result.accuracy", before=units.percent(e.reference_top1), after=units.percent(e.top1)))
        _interval(e.top1_low, e.top1_high, e.n)
        st.markdown(verdict(e))
    elif e.similarity is not None:
        likeness.draw_headline(e)
    elif e.agreement is not None:
        st.markdown(t("result.agreement", share=units.percent(e.agreement)))
        _interval(e.agreement_low, e.agreement_high, e.n)
        st.markdown(t("result.agreement.text", n=f"{e.changed_total:,}", all=f"{e.n:,}"))
    if methods.shrinks_gzipped(known.recipe):
        st.markdown(gzipped(e))


def gzipped(e: Evaluation) -> str:
    """The compressed size, before and after, beside that of the file."""
    before = e.reference_gzip_bytes or e.gzip_bytes
    return t(
        "result.gzip",
        before=units.size(before),
        after=units.size(e.gzip_bytes),
        change=units.change(before, e.gzip_bytes),
        file=units.size(e.size_bytes),
    )


def _interval(low: float | None, high: float | None, n: int) -> None:
    if low is not None and high is not None:
        st.caption(t("result.interval", low=units.percent(low), high=units.percent(high), n=f"{n:,}"))


def _headline_original(e: Evaluation) -> None:
    if e.top1 is not None:
        st.markdown(t("result.original", accuracy=units.percent(e.top1)))
        _interval(e.top1_low, e.top1_high, e.n)
    elif e.similarity is not None:
        st.markdown(t("result.original.numbers"))
    else:
        st.markdown(t("result.original.unlabelled"))
    st.markdown(t("result.original.next"))


def verdict(e: Evaluation) -> str:
    """The paired test in plain words."""
    difference, p = e.difference or 0.0, e.p_value if e.p_value is not None else 1.0
    values = {
        "points": points(difference)[1:],
        "n": f"{e.n:,}",
        "p": "< 0.001" if p < 0.001 else f"= {p:.2g}",
        "low": points(e.difference_low or 0),
        "high": points(e.difference_high or 0),
    }
    if not difference:
        return t("verdict.same", **values)
    if p >= _SURE:
        return t("verdict.noise", **values)
    return t("verdict.worse" if difference < 0 else "verdict.better", **values)


def _strip(known: Attempt) -> None:
    """The honest-size strip: all sizes together, so that none can flatter alone."""
    e, before = known.evaluation, known.before
    now, was = e.latency_ms, None if known.is_original else e.reference_latency_ms
    with st.grid(3, min_column_width=130, border=True):
        _metric("cost.params", units.count(e.params), _delta(before.params, e.params))
        _metric("strip.nonzeros", units.count(e.nonzeros), _delta(before.params, e.nonzeros), t("strip.nonzeros.help"))
        _metric("cost.macs", units.count(e.macs), _delta(before.macs, e.macs))
        _metric("cost.file", units.size(e.size_bytes), _delta(before.size_bytes, e.size_bytes))
        _metric(
            "strip.gzip", units.size(e.gzip_bytes), _delta(e.reference_gzip_bytes, e.gzip_bytes), t("strip.gzip.help")
        )
        if now is not None:
            _metric(
                "cost.latency",
                units.milliseconds(now),
                _delta(was, now),
                t(
                    "strip.latency.help",
                    low=units.milliseconds(e.latency_low_ms or now),
                    high=units.milliseconds(e.latency_high_ms or now),
                    threads=e.threads,
                    batch=e.latency_batch,
                ),
            )


def _metric(key: str, value: str, delta: str | None, more: str | None = None) -> None:
    st.metric(t(key), value, delta, delta_color="inverse", help=more)


def _delta(before: float | None, after: float) -> str | None:
    change = units.change(before, after) if before else "–"
    return None if change in ("–", "±0 %") else change.replace("−", "-")


def _notes(notes: tuple[str, ...]) -> None:
    for sentence in dict.fromkeys(notes):
        st.markdown(f":material/info: {plain(note(sentence))}")
