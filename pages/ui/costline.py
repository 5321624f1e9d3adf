"""The cost line at the foot of every page: what the model costs, before → after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape

import streamlit as st

from lwcore import units
from lwcore.errors import LwcoreError
from lwcore.slimming import Plan
from pages.ui import measuring, service
from pages.ui.slim.likeness import similarity
from pages.ui.state import session
from pages.ui.text import t

STYLE = """
[data-testid=stBottomBlockContainer]{padding-top:.55rem;padding-bottom:.45rem}
[data-testid=stBottom]>div{border-top:1px solid light-dark(#d3ded9,#2b3a34);background:light-dark(#f3f8f5,#121b17)}
.sl-line{display:grid;grid-template-columns:repeat(5,minmax(0,1fr));gap:.25rem 1rem;font-variant-numeric:tabular-nums;
 padding:.15rem 0}
.sl-line .l{font-size:.74rem;opacity:.72;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.sl-line .v{font-size:1.02rem;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.sl-line .b{opacity:.72}
.sl-line .a{font-weight:700;color:light-dark(#00664F,#5FD3B3)}
.sl-line .d{font-size:.74rem;opacity:.8;white-space:nowrap}
@media(max-width:640px){.sl-line{gap:.1rem .4rem}.sl-line .l,.sl-line .d{font-size:.66rem}
 .sl-line .v{font-size:.82rem}.sl-line .v.two .b{display:block;font-size:.66rem}.sl-line .v.two .s{display:none}}
"""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of the line; `after` is empty while nothing is slimmed or measured."""

    label: str
    before: str
    after: str = ""
    change: str = ""


def cells() -> tuple[Cell, ...]:
    """The five numbers of the present model and recipe."""
    s = session()
    if not s.model:
        return tuple(Cell(label=label, before="–") for label in _labels())
    before = service.cost(s.model)
    known = measuring.attempt(s)
    plan = None if known else _planned()
    after, rough = (known.after, False) if known else (plan.after, plan.estimated) if plan else (None, False)
    labels = _labels()
    slimmed = bool(s.recipe.steps)
    rows = [
        (units.count, before.params, after.params if after else None),
        (units.count, before.macs, after.macs if after else None),
        (units.size, before.size_bytes, after.size_bytes if after else None),
    ]
    line = [
        Cell(label=labels[i], before=show(b), **_after(show, b, a, estimate=known is None and (i == 2 or rough)))
        if slimmed and a is not None
        else Cell(label=labels[i], before=show(b))
        for i, (show, b, a) in enumerate(rows)
    ]
    return (*line, _accuracy(labels[3]), _latency(labels[4]))


def _after(show: Callable[[float], str], before: float, after: float, estimate: bool) -> dict[str, str]:
    return {"after": ("≈ " if estimate else "") + show(after), "change": units.change(before, after)}


def _labels() -> tuple[str, ...]:
    return (t("cost.params"), t("line.macs"), t("cost.file"), t("line.accuracy"), t("cost.latency"))


def _planned() -> Plan | None:
    s = session()
    try:
        return measuring.plan(s) if s.recipe.steps else None
    except LwcoreError:
        return None  # the page itself shows why


def _accuracy(label: str) -> Cell:
    s = session()
    known, (before, _) = measuring.attempt(s), measuring.original(s)
    if known and known.evaluation.similarity is not None:
        return Cell(
            label=t("line.similarity"),
            before=similarity(1.0),
            after="" if known.is_original else similarity(known.evaluation.similarity),
        )
    if known and known.evaluation.top1 is None and known.evaluation.agreement is not None:
        return Cell(
            label=t("line.agreement"),
            before=units.percent(1.0, 0),
            after="" if known.is_original else units.percent(known.evaluation.agreement),
        )
    if before is None:
        return Cell(label=label, before="–", after=_pending())
    if known is None or known.is_original or known.evaluation.top1 is None:
        return Cell(label=label, before=units.percent(before), after=_pending() if s.recipe.steps else "")
    change = known.evaluation.difference
    return Cell(
        label=label,
        before=units.percent(before),
        after=units.percent(known.evaluation.top1),
        change="" if change is None else t("cost.points", n=points(change)),
    )


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def _latency(label: str) -> Cell:
    s = session()
    known, (_, before) = measuring.attempt(s), measuring.original(s)
    if before is None:
        return Cell(label=label, before="–", after=_pending())
    now = known.evaluation.latency_ms if known and not known.is_original else None
    if now is None:
        return Cell(label=label, before=units.milliseconds(before), after=_pending() if s.recipe.steps else "")
    was = known.evaluation.reference_latency_ms or before if known else before
    return Cell(
        label=label, before=units.milliseconds(was), after=units.milliseconds(now), change=units.change(was, now)
    )


def _pending() -> str:
    return "…" if session().measuring else ""


def html(line: tuple[Cell, ...]) -> str:
    """The line as HTML; everything in it is our own text or a number, and escaped all the same."""
    return '<div class="sl-line">' + "".join(_cell(c) for c in line) + "</div>"


def _cell(cell: Cell) -> str:
    value = f'<span class="b">{escape(cell.before)}</span>'
    if cell.after:
        value += f'<span class="s"> → </span><span class="a">{escape(cell.after)}</span>'
    kind = "v two" if cell.after else "v"
    label = escape(cell.label)
    return (
        f'<div title="{label}"><div class="l">{label}</div><div class="{kind}">{value}</div>'
        f'<div class="d">{escape(cell.change) or "&nbsp;"}</div></div>'
    )


def draw() -> None:
    """Show the line."""
    with st.bottom, st.container(key="cost-line"):
        st.html(f"<style>{STYLE}</style>{html(cells())}")
