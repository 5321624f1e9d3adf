"""Walks through what Slim can do beside channels: a goal that is searched, blocks and low rank, int8 by operator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.browser.walk import choose, download, go, settled, visit

pytestmark = pytest.mark.browser
ORIGINAL = Path(__file__).resolve().parents[2] / "assets/models/fashion-mobilenetv2.onnx"
LONG = 600_000  # milliseconds; a busy machine measures slowly, and nothing here asserts on speed


def _measured(page: Any) -> str:
    page.get_by_text("Measured", exact=True).wait_for(timeout=LONG)
    settled(page)
    return str(page.locator(".sl-line > div").nth(3).inner_text())


def _taken(page: Any) -> tuple[bytes, dict[str, Any]]:
    go(page, "Take home")
    data = download(page, "take-onnx")
    runner = onnxruntime.InferenceSession(data)
    assert runner.run(None, {runner.get_inputs()[0].name: np.zeros((1, 1, 28, 28), np.float32)})[0].shape == (1, 10)
    return data, json.loads(download(page, "take-recipe"))


def test_a_goal_is_found_adopted_and_taken_home(page: Any) -> None:
    """From a typed goal to the recipe in the controls and its file; a reload in the middle loses nothing."""
    visit(page, "/slim?model=fashion-mobilenetv2")
    choose(page, "slim-way", "Find it for me")
    page.locator(".st-key-goal-advanced summary").click()
    page.wait_for_timeout(800)  # it unfolds slowly
    choose(page, "goal-seconds", "30 s")
    page.locator(".st-key-find button").click()
    page.get_by_text("Searching", exact=True).wait_for(timeout=LONG)
    assert "w=" in page.url  # the workspace, by which a reload finds the search again
    page.reload()
    settled(page)
    page.get_by_text("Why this one").wait_for(timeout=LONG)
    settled(page)
    page.get_by_text("These are the settings in the controls now.").wait_for(timeout=LONG)
    assert "→" in _measured(page)
    data, recipe = _taken(page)
    assert recipe["steps"]
    assert len(data) < ORIGINAL.stat().st_size
    go(page, "Slim")
    page.get_by_text("Why this one").first.wait_for(timeout=LONG)
    settled(page)
    page.locator(".st-key-found-close button").first.click()
    settled(page)
    assert page.locator(".st-key-found").count() == 0


def test_blocks_and_low_rank_are_measured(page: Any) -> None:
    """Both are off until chosen; chosen, the model is measured with them, and the file at the end has both."""
    visit(page, "/slim?model=fashion-resnet20")
    page.get_by_text("The original, measured").wait_for(timeout=LONG)
    choose(page, "slim-more", "Drop blocks")
    first = _measured(page)
    page.get_by_text("Dropped whole").first.wait_for(timeout=LONG)
    choose(page, "slim-more", "Low rank")
    page.wait_for_timeout(500)
    assert _measured(page) != ""
    assert "→" in first
    data, recipe = _taken(page)
    assert [step["kind"] for step in recipe["steps"]] == ["blocks", "low-rank"]
    assert data


def test_one_click_keeps_an_operator_in_float(page: Any) -> None:
    """The chart of int8 errors is measured, and its worst operator is float in the file."""
    visit(page, "/slim?model=fashion-mobilenetv2")
    choose(page, "precision-family", "Integers (int8)")
    _measured(page)
    choose(page, "slim-tab", "int8 by operator")
    page.locator(".st-key-nodes-ask button").click()
    page.locator(".st-key-keep-worst button").wait_for(timeout=LONG)
    settled(page)
    page.locator(".st-key-keep-worst button").click()
    settled(page)
    _measured(page)
    _, recipe = _taken(page)
    assert len(recipe["steps"][0]["keep"]) == 1
