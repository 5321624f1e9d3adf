"""A whole workspace carried from one browser to another as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.browser.walk import download, go, settled, slide, visit

pytestmark = [pytest.mark.browser, pytest.mark.slow]
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
LONG = 120_000  # milliseconds


def test_an_exported_workspace_is_taken_in_by_another_browser(page: Any, browser: Any, server: str) -> None:
    """Attempts, an uploaded model and the slider come along; a file that is none is refused in words."""
    visit(page, "/?lang=en")
    page.locator(".st-key-bring input[type=file]").first.set_input_files(str(LIGHT / "light_squeezenet.onnx"))
    page.get_by_role("button", name="Use this model").click(timeout=LONG)
    page.locator(".st-key-layer-detail").wait_for(timeout=LONG)
    go(page, "Start")
    page.locator(".st-key-open-fashion-mobilenetv2 button").click()
    page.locator(".st-key-layer-detail").wait_for(timeout=LONG)
    go(page, "Slim")
    page.get_by_text("The original, measured").wait_for(timeout=LONG)
    slide(page, "channels-amount", 6)
    page.get_by_text("Measured", exact=True).wait_for(timeout=LONG)
    go(page, "Take home")
    data = download(page, "workspace-export")
    assert data[:2] == b"PK"

    context = browser.new_context(base_url=server, viewport={"width": 1440, "height": 1000}, locale="en-GB")
    try:
        other = context.new_page()
        other.set_default_timeout(LONG)
        visit(other, "/take-home?model=fashion-resnet20&lang=en")
        box = other.locator(".st-key-workspace input[type=file]")
        box.set_input_files({"name": "w.zip", "mimeType": "application/zip", "buffer": b"PK\x05\x06" + bytes(18)})
        other.locator("[data-testid=stAlert]").get_by_text("Expected a workspace").wait_for()
        settled(other)
        box.set_input_files({"name": "w.zip", "mimeType": "application/zip", "buffer": data})
        other.get_by_text("Imported: 2 attempts").wait_for()
        settled(other)
        assert query(other.url, "w") != query(page.url, "w")
        go(other, "Slim")
        other.get_by_text("Measured", exact=True).wait_for()
        assert other.locator(".st-key-channels-amount input[type=range]").input_value() == "30"
        other.locator(".st-key-header input").first.click()
        other.get_by_role("option").filter(has_text="light_squeezenet").wait_for()
    finally:
        context.close()


def query(address: str, name: str) -> str:
    """`name=value` in an address."""
    return next(part for part in address.split("?")[1].split("&") if part.startswith(f"{name}="))
