"""The controls of a precision step: formats by what they do, and what int8 keeps in float."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import streamlit as st

from lwcore.recipe import Precision
from pages.ui import service
from pages.ui.slim import bound, methods
from pages.ui.slim.methods import FAMILIES, Method
from pages.ui.state import session, update
from pages.ui.text import named, t

RANGES = ("auto", "minmax", "percentile", "mse", "entropy")
_MOST_POINTS = 20.0


def draw(method: Method, step: Precision) -> None:
    """The family, its formats where there are several, and one sentence about the chosen one."""
    family = methods.family(method)
    st.segmented_control(
        t("slim.precision"),
        list(FAMILIES),
        key=bound.shown(f"{method.name}-family", family),
        required=True,
        wrap=True,
        format_func=named("family", FAMILIES),
        help=t("slim.precision.help"),
        on_change=_family_changed,
        args=(method.name,),
    )
    formats = FAMILIES[family]
    if len(formats) > 1:
        bound.choice(method, "format", formats)
    st.caption(t(f"precision.{step.format if method.on else 'fp32'}.text"))
    if family == "palette":
        _bits(method, step)
    elif method.on and step.format == "int8-static":
        _static(method, step)


def _family_changed(name: str) -> None:
    method = methods.find(session().methods, name)
    family = st.session_state[f"{name}-family"]
    if method is None or family not in FAMILIES:
        return
    formats = FAMILIES[family]
    step = replace(method.step, format=formats[0]) if formats else method.step
    update(methods=methods.edited(session().methods, name, step, on=bool(formats)))


def _bits(method: Method, step: Precision) -> None:
    st.slider(
        t("slim.bits"),
        1,
        8,
        step=1,
        format=t("slim.bits.format"),
        help=t("slim.bits.help"),
        **bound.bind(method, "bits", step.bits),
    )
    st.caption(t("slim.bits.values", n=2**step.bits))


def _static(method: Method, step: Precision) -> None:
    st.number_input(
        t("slim.drop"),
        0.0,
        max(_MOST_POINTS, step.drop or 0.0),  # recipes may say more
        value=None,
        step=0.1,
        format="%.1f",
        placeholder=t("slim.drop.none"),
        help=t("slim.drop.help"),
        **bound.bind(method, "drop", step.drop),
    )
    if step.keep:
        _keep(method, step)
    bound.advanced(method, lambda: _advanced(method, step))


def _advanced(method: Method, step: Precision) -> None:
    if not step.keep:
        _keep(method, step)
    bound.choice(method, "ranges", RANGES)
    st.number_input(
        t("slim.calibration"),
        1,
        2000,
        step=50,
        help=t("slim.calibration.help"),
        **bound.bind(method, "samples", step.samples),
    )


def _keep(method: Method, step: Precision) -> None:
    """Folded away until there is something in it."""
    st.multiselect(
        t("slim.keep"),
        _nodes(step.keep),
        placeholder=t("slim.keep.none"),
        help=t("slim.keep.help"),
        **bound.bind(method, "keep", list(step.keep), lambda s, names: replace(s, keep=tuple(names))),
    )


def _nodes(kept: Sequence[str]) -> list[str]:
    """Operators that int8 turns into integers, and those kept already, which an earlier step may have made."""
    return list(dict.fromkeys([*kept, *service.quantizable(session().model)]))
