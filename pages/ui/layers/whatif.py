"""What if the input were smaller: pictures of another size, clips of fewer frames; measured by a worker when asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from lwcore import units
from lwcore.errors import LwcoreError
from lwcore.resizing import may_resize
from lwcore.scenarios import pareto
from pages.ui import charts, errors, frame, measuring, service
from pages.ui.state import put, session, update
from pages.ui.text import t

_PURPOSE = "what-if"


def draw() -> None:
    """The section on Layers; nothing for a network that is built for one size."""
    s = session()
    if not may_resize(service.model(s.model)):
        return
    st.subheader(t("whatif.title"), anchor=False)
    st.caption(t("whatif.text"))
    key = f"{s.model} {measuring.samples(s).ref}"
    found = s.sizes.get(key) or _ask(key)
    if found is not None:
        _chart(found)
        _table(found)
        _adopt(found)


def _ask(key: str) -> Mapping[str, Any] | None:
    """The measurement, once it is there; before, its progress or the button that begins it."""
    ticket = session().other.get(_PURPOSE)
    try:
        found = measuring.result(_PURPOSE)
    except LwcoreError as error:
        errors.tell(str(error))
        found = None
    if found is not None and ticket is not None:
        update(sizes=put(session().sizes, ticket.question, found))
        if ticket.question == key:
            return found
    ticket = session().other.get(_PURPOSE)
    if ticket is not None and ticket.question == key:
        measuring.wait(_PURPOSE, t("whatif.wait"))
    elif st.button(t("whatif.measure"), key="what-if", icon=":material/aspect_ratio:"):
        s = session()
        arguments = {"model": s.model, "samples": measuring.samples(s).ref}
        measuring.start("what_if", _PURPOSE, arguments, question=key)
        st.rerun()
    return None


def _title(setting: Mapping[str, Any]) -> str:
    height, width = setting["size"]
    values = {"size": f"{height} × {width}", "frames": setting["frames"]}
    return t("whatif.pictures" if setting["frames"] is None else "whatif.clips", **values)


def _quality(found: Mapping[str, Any]) -> str:
    return t("cost.accuracy" if found["labelled"] else "cost.agreement")


def _chart(found: Mapping[str, Any]) -> None:
    rows = [
        {
            "number": number,
            "x": setting["macs"],
            "y": setting["quality"],
            "low": setting["low"],
            "high": setting["high"],
            "original": number == 0,
            "title": _title(setting),
            "tip": f"{units.percent(setting['quality'])} · {units.count(setting['macs'])} MACs",
        }
        for number, setting in enumerate(found["settings"])
    ]
    spec = charts.attempts(
        rows,
        x=t("compare.macs.axis"),
        y=_quality(found),
        front=pareto([(r["x"], r["y"]) for r in rows]),
        legend={key: t(f"compare.{key}") for key in ("original", "front", "other")},
        height=280,
    )
    st.vega_lite_chart(spec, alt=t("whatif.alt", n=len(rows)))


def _table(found: Mapping[str, Any]) -> None:
    own = found["settings"][0]
    table = pd.DataFrame(
        [
            {
                "input": _title(setting),
                "macs": f"{units.count(setting['macs'])} ({units.change(own['macs'], setting['macs'])})",
                "latency": f"{units.milliseconds(setting['latency_ms'])} "
                f"({units.change(own['latency_ms'], setting['latency_ms'])})",
                "quality": 100 * setting["quality"],
            }
            for setting in found["settings"]
        ]
    )
    columns: dict[str, Any] = {
        "input": t("whatif.input"),
        "macs": t("cost.macs"),
        "latency": t("cost.latency"),
        "quality": st.column_config.NumberColumn(_quality(found), format="%.1f %%"),
    }
    st.dataframe(table, hide_index=True, column_config=columns, key="what-if-table", alt=t("whatif.title"))
    st.caption(t("whatif.measured", n=f"{found['n']:,}"))


def _adopt(found: Mapping[str, Any]) -> None:
    """Go on with the network at another size: a model of its own from then on."""
    others = {ref: _title(setting) for ref, setting in zip(found["models"], found["settings"], strict=True)}
    others.pop(found["models"][0])
    with st.container(horizontal=True, vertical_alignment="bottom"):
        ref = st.selectbox(
            t("whatif.pick"), list(others), format_func=lambda r: others.get(r, str(r)), key="what-if-pick", width=320
        )
        if st.button(t("whatif.use"), key="what-if-use") and ref in others:
            name = f"{service.model(session().model).card.name} · {others[ref]}"
            update(uploads=put(session().uploads, ref, name))
            frame.choose(ref)
            st.rerun()
