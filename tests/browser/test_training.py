"""A training in chromium: its curves grow, a reload finds it, a cancel keeps the best state, and the file runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.browser.walk import choose, download, go, settled, slide, visit

pytestmark = [pytest.mark.browser, pytest.mark.slow]
LONG = 600_000  # milliseconds; a busy machine measures slowly, and nothing here asserts on speed
TEXTS = Path(__file__).resolve().parents[2] / "pages/ui/texts"
SHOTS = os.environ.get("SLIMLAB_SHOTS")  # a folder for screenshots, for people
CARD = ".st-key-training-1"


def _words(language: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((TEXTS / f"{language}.json").read_text(encoding="utf-8"))
    return found


def _shot(page: Any, name: str) -> None:
    if not SHOTS:
        return
    for width, height in ((1440, 1900), (390, 3200), (1440, 1000)):  # the page scrolls inside, so all of it must fit
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(1000)
        page.screenshot(path=f"{SHOTS}/{name}-{width}-{height}.png")


def _begin(page: Any, language: str, minutes: float) -> None:
    """Channels down, training on, so many minutes, and the button."""
    words = _words(language)
    visit(page, f"/slim?model=fashion-squeezenet&lang={language}")
    slide(page, "channels-amount", 10)
    choose(page, "slim-more", words["method.distill"])
    field = page.locator(".st-key-distill-minutes input")
    field.wait_for()
    field.fill(str(minutes))
    field.press("Enter")
    settled(page)
    page.locator(".st-key-measure button").click()


def _left(page: Any, words: dict[str, str], before: str = "") -> str:
    """The time that the running training says it has left, once it says something else than before."""
    start = words["training.left"].partition("{")[0]
    line = page.locator(CARD).get_by_text(start).first
    line.wait_for(timeout=LONG)
    while line.inner_text() == before:
        page.wait_for_timeout(300)
    page.locator(f"{CARD} [data-testid=stVegaLiteChart]").first.wait_for(timeout=LONG)
    return str(line.inner_text())


def _measured(page: Any, words: dict[str, str]) -> str:
    page.get_by_text(words["result.measured.title"].strip("#* "), exact=True).wait_for(timeout=LONG)
    settled(page)
    assert page.get_by_test_id("stException").count() == 0
    return str(page.locator(".sl-line > div").nth(3).inner_text())


def _runs(data: bytes) -> np.ndarray:
    runner = onnxruntime.InferenceSession(data)
    found = runner.run(None, {runner.get_inputs()[0].name: np.ones((1, 1, 28, 28), np.float32)})[0]
    assert found.shape == (1, 10)
    return found


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_training_goes_on_through_a_reload_and_is_taken_home(page: Any, language: str) -> None:
    """The second language trains for another time, so that it does not find the first one's result in the store."""
    words = _words(language)
    _begin(page, language, 0.5 if language == "en" else 0.6)
    first = _left(page, words)
    left = _left(page, words, first)  # the curves grow while one looks
    _shot(page, f"training-{language}")
    page.reload()
    settled(page)
    page.locator(".st-key-cancel-measure").wait_for(timeout=LONG)  # the same job, still running
    assert page.locator(".st-key-measure").count() == 0
    assert _left(page, words, left) != first, "it goes on where it was"
    assert "→" in _measured(page, words)
    page.locator(CARD).get_by_text(words["training.both"].partition(":")[0].partition("：")[0]).wait_for(timeout=LONG)
    _shot(page, f"trained-{language}")
    go(page, words["page.take-home"])
    page.locator(".st-key-take-onnx").wait_for(timeout=LONG)
    settled(page)
    taught = _runs(download(page, "take-onnx"))
    recipe = json.loads(download(page, "take-recipe"))
    assert [step["kind"] for step in recipe["steps"]] == ["channels", "distill"]
    assert np.isfinite(taught).all()


def test_a_cancelled_training_leaves_its_best_state(page: Any) -> None:
    """It is offered at once, and also after a reload; taken, it is measured without any training."""
    words = _words("en")
    _begin(page, "en", 2.0)
    _left(page, words, _left(page, words))
    page.locator(".st-key-cancel-measure button").click()
    page.locator(".st-key-training-take button").wait_for(timeout=LONG)
    page.reload()
    settled(page)
    page.locator(".st-key-training-take button").wait_for(timeout=LONG)
    _shot(page, "broken-off")
    page.locator(".st-key-training-take button").click()
    assert "→" in _measured(page, words)
    assert page.locator(CARD).count() == 1
