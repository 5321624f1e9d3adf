"""The plug pulled on a real server, with a browser at the other end: after the restart everything is there again."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import free_port, start
from tests.browser.walk import go, slide, visit

pytestmark = pytest.mark.browser
LONG = 120_000  # milliseconds
SHOTS = os.environ.get("SLIMLAB_SHOTS")  # a folder for screenshots, for people


def _shot(page: Any, name: str) -> None:
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)


def _line(page: Any) -> str:
    return str(page.locator(".sl-line > div").nth(3).inner_text())


def test_a_killed_server_comes_back_with_everything(browser: Any, tmp_path: Path) -> None:
    """SIGKILL while a page is open: after the restart the same link shows the same slider and the same numbers."""
    port = free_port()
    process = start(tmp_path, port)
    context = browser.new_context(base_url=f"http://127.0.0.1:{port}", viewport={"width": 1440, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(LONG)
    try:
        visit(page, "/slim?model=fashion-mobilenetv2&lang=en")
        slide(page, "channels-amount", 6)
        page.get_by_text("Measured", exact=True).wait_for(timeout=LONG)
        page.wait_for_function("location.search.includes('w=')")
        shown, address = _line(page), page.url
        process.send_signal(signal.SIGKILL)
        process.wait()
        process = start(tmp_path, port)
        page.goto(address)
        page.get_by_text("Measured", exact=True).wait_for(timeout=LONG)
        assert _line(page) == shown
        assert page.locator(".st-key-channels-amount input[type=range]").input_value() == "30"
        _shot(page, "slim-again")
        go(page, "Take home")
        page.get_by_text("Your workspace", exact=True).wait_for()
        _shot(page, "take-en")
        go(page, "Compare")
        page.get_by_text("Return to this attempt").wait_for()
        visit(page, address.replace("/slim", "/take-home").replace("lang=en", "lang=zh"))
        page.get_by_text("你的工作区", exact=True).wait_for()
        _shot(page, "take-zh")
    finally:
        context.close()
        process.kill()
        process.wait()
