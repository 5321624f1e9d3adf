"""Two people on one server that asks for a login: each has a workspace of their own, and no cookie can be made up."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import free_port, start
from tests.browser.walk import settled, slide, visit
from tests.provider import Provider, provider

pytestmark = [pytest.mark.browser, pytest.mark.slow]
LONG = 120_000  # milliseconds
COOKIE = "_streamlit_user"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A dashboard with `[auth]` in its secrets; its address."""
    home, port = tmp_path_factory.mktemp("people"), free_port()
    address = f"http://localhost:{port}"
    with provider() as found:
        _configure(home, found, address)
        process = start(home, port)
        yield address
        process.terminate()
        process.wait(timeout=120)


def _configure(home: Path, found: Provider, address: str) -> None:
    (home / ".streamlit").mkdir()
    (home / ".streamlit" / "secrets.toml").write_text(found.settings(address), encoding="utf-8")


@pytest.fixture
def visitor(browser: Any, guarded: str) -> Iterator[Any]:
    """Makes pages of people who share nothing: each call is another browser."""
    contexts = []

    def made() -> Any:
        contexts.append(browser.new_context(base_url=guarded, viewport={"width": 1440, "height": 1000}, locale="en-GB"))
        page = contexts[-1].new_page()
        page.set_default_timeout(LONG)
        return page

    yield made
    for context in contexts:
        context.close()


def log_in(page: Any, name: str) -> None:
    visit(page, "/")
    page.locator(".st-key-door-login button").click()
    page.get_by_role("link", name=name).click()
    page.locator(".st-key-open-fashion-mobilenetv2 button").wait_for()
    settled(page)


def outside(page: Any) -> bool:
    """Whether the door is all that is shown."""
    page.locator(".st-key-door-login button").wait_for()
    settled(page)
    return page.locator(".st-key-open-fashion-mobilenetv2, .st-key-channels-amount").count() == 0


def test_each_has_a_workspace_of_their_own(visitor: Any) -> None:
    """Ada's link opens for Ada after a reload; for Bob it opens nothing, and unknown visitors see the door."""
    ada, bob, nobody = visitor(), visitor(), visitor()
    log_in(ada, "ada")
    visit(ada, "/slim?model=fashion-mobilenetv2&lang=en")
    slide(ada, "channels-amount", 6)
    ada.get_by_text("Measured", exact=True).wait_for()
    ada.wait_for_function("location.search.includes('w=')")
    link = ada.url
    visit(ada, link)
    ada.get_by_text("Measured", exact=True).wait_for()
    assert ada.locator(".st-key-channels-amount input[type=range]").input_value() == "30"

    visit(nobody, link)
    assert outside(nobody)

    log_in(bob, "bob")
    visit(bob, link)
    bob.locator(".st-key-channels-amount input[type=range]").wait_for()
    assert bob.locator(".st-key-channels-amount input[type=range]").input_value() == "0"
    assert link.split("w=")[1].split("&")[0] not in bob.url


def test_a_made_up_cookie_opens_nothing(visitor: Any, guarded: str) -> None:
    """Neither a plain one, nor a real one with another name in it, nor one without its signature."""
    ada = visitor()
    log_in(ada, "ada")
    real = next(c["value"] for c in ada.context.cookies() if c["name"] == COOKIE).strip('"')
    copy = visitor()
    copy.context.add_cookies([{"name": COOKIE, "value": real, "url": guarded}])
    visit(copy, "/")
    copy.locator(".st-key-open-fashion-mobilenetv2 button").wait_for()
    said = json.dumps({"sub": "ada", "is_logged_in": True, "origin": guarded, "provider": "default"}).encode()
    plain = base64.b64encode(said).decode()
    for value in (plain, real[:-6], real.replace(real[:40], plain[:40], 1), plain + "." + real.rsplit(".", 2)[-1]):
        page = visitor()
        page.context.add_cookies([{"name": COOKIE, "value": value, "url": guarded}])
        visit(page, "/")
        assert outside(page)
