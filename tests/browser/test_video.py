"""A walk with a video network: slimmed, its changed clips as film strips, and what smaller inputs would cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.browser.walk import settled, slide, visit

pytestmark = pytest.mark.browser
LONG = 600_000  # milliseconds; a busy machine measures slowly, and nothing here asserts on speed
TEXTS = Path(__file__).resolve().parents[2] / "pages/ui/texts"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_video_network_is_slimmed_and_asked_what_smaller_clips_would_cost(page: Any, language: str) -> None:
    """Both languages ask for the same, so the second one is answered from the store."""
    words = json.loads((TEXTS / f"{language}.json").read_text(encoding="utf-8"))
    visit(page, f"/slim?model=motion-mc3&lang={language}")
    slide(page, "channels-amount", 8)
    page.get_by_text(words["result.measured.title"].strip("#* "), exact=True).wait_for(timeout=LONG)
    settled(page)
    tabs = page.locator(".st-key-slim-tab")
    tabs.get_by_text(words["tab.changed"], exact=True).click()
    settled(page)
    page.get_by_test_id("stImage").first.wait_for(timeout=LONG)
    strip = page.get_by_test_id("stImage").locator("img").first.bounding_box()
    assert strip["width"] > 4 * strip["height"]
    visit(page, f"/layers?model=motion-mc3&lang={language}")
    page.locator(".st-key-what-if button").click(timeout=LONG)
    page.locator(".st-key-what-if-use").wait_for(timeout=LONG)
    assert page.get_by_text(words["whatif.title"], exact=True).is_visible()
