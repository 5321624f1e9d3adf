"""Steps that every walk through the dashboard is made of."""

from __future__ import annotations

from typing import Any


def settled(page: Any) -> None:
    """Wait until the page is connected and no script run is going on."""
    page.wait_for_timeout(250)
    page.wait_for_selector("[data-testid=stApp][data-test-connection-state=CONNECTED]")
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")


def visit(page: Any, path: str) -> None:
    """Open a page by its address."""
    page.goto(path)
    settled(page)


def go(page: Any, name: str) -> None:
    """Open a page from the navigation."""
    page.get_by_test_id("stTopNavLink").filter(has_text=name).first.click()
    settled(page)


def slide(page: Any, key: str, steps: int) -> None:
    """Move a slider by key presses, as Streamlit commits them."""
    handle = page.locator(f".st-key-{key} input[type=range]")
    handle.focus()
    for _ in range(abs(steps)):
        page.keyboard.press("ArrowRight" if steps > 0 else "ArrowLeft")
    settled(page)


def choose(page: Any, key: str, label: str) -> None:
    """Press one of the options that lie side by side."""
    page.locator(f".st-key-{key}").get_by_role("button", name=label, exact=True).or_(
        page.locator(f".st-key-{key}").get_by_role("radio", name=label, exact=True)
    ).first.click()
    settled(page)


def download(page: Any, key: str) -> bytes:
    """The bytes behind a download button."""
    with page.expect_download() as waiting:
        page.locator(f".st-key-{key} button").first.click()  # the second one explains
    return bytes(waiting.value.path().read_bytes())
