"""The samples whose answer changed, as people see them: a picture, a film strip, a text."""

from __future__ import annotations

import numpy as np
import streamlit as st
from PIL import Image

from lwcore import units
from lwcore.domains import domain
from lwcore.errors import LwcoreError
from lwcore.evaluation.result import Changed
from lwcore.samples import SampleSet
from lwcore.samples.builtin import load_set
from lwcore.scenarios import Attempt
from lwcore.store import is_fingerprint
from pages.ui import errors, service
from pages.ui.text import t

_SHOWN = 24
_EDGE = 112  # pixels high
_LETTERS = 300
_STRIP = 3  # times as wide as high: frames of a clip side by side


@service.remembered(6)
def _samples(model: str, ref: str) -> SampleSet:
    return service.store().samples(ref) if is_fingerprint(ref) else load_set(ref, service.model(model))


def draw(known: Attempt) -> None:
    """A wall of samples, the original's answer and the slimmed model's under each."""
    show = domain(service.model(known.model)).show
    try:
        samples = _samples(known.model, known.samples)
    except LwcoreError as error:
        errors.tell(str(error))
        return
    e = known.evaluation
    st.caption(t("changed.text", n=f"{e.changed_total:,}", all=f"{e.n:,}", shown=min(_SHOWN, len(e.changed))))
    first = show(samples, 0)
    strip = not isinstance(first, str) and first.shape[1] > _STRIP * first.shape[0]
    with st.grid("auto", min_column_width=280 if isinstance(first, str) else 440 if strip else 128):
        for item in sorted(e.changed, key=_harm)[:_SHOWN]:
            with st.container(gap="xxsmall"):
                _one(show(samples, item.index), item)


def _harm(item: Changed) -> tuple[bool, float]:
    """Right before and wrong now comes first; among those, what the original was surest of."""
    return not (item.label is not None and item.before == item.label), -item.before_confidence


def _one(shown: np.ndarray | str, item: Changed) -> None:
    if isinstance(shown, str):
        st.text(shown[:_LETTERS])
    else:
        st.image(_enlarged(shown), alt=item.label or item.name)
    if item.label is not None:
        st.text(f"= {item.label}")
    st.text(t("changed.one", before=item.before, after=item.after))
    st.caption(f"{units.percent(item.before_confidence, 0)} → {units.percent(item.after_confidence, 0)}")


def _enlarged(pixels: np.ndarray) -> Image.Image:
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    how = Image.Resampling.NEAREST if picture.height < _EDGE else Image.Resampling.BILINEAR
    return picture.resize((round(_EDGE * picture.width / picture.height), _EDGE), how)
