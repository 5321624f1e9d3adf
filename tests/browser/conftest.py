"""A server of the tests' own on a free port, and a chromium page that fails a test on anything it fetches elsewhere."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(home: Path, port: int, **environment: str) -> subprocess.Popen[bytes]:
    """A dashboard on a port, ready; started from another folder, because that must work too."""
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "app.py")]
    with (home / "server.log").open("a") as log:
        process = subprocess.Popen(
            [*command, "--server.port", str(port), "--server.address", "127.0.0.1"],
            cwd=home,
            env={**os.environ, "SLIMLAB_HOME": str(home / "slimlab"), **environment},
            stdout=log,
            stderr=log,
        )
    for _ in range(240):
        if process.poll() is not None:
            pytest.fail(f"The server ended: {(home / 'server.log').read_text()[-2000:]}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1)
            break
        except OSError:
            time.sleep(0.5)
    return process


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a running dashboard."""
    port = free_port()
    process = start(tmp_path_factory.mktemp("home"), port)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(timeout=20)


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Chromium, once for all tests."""
    api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser, server) -> Iterator[object]:  # type: ignore[no-untyped-def]
    """A fresh page; afterwards: nothing was fetched from anywhere but the server."""
    context = browser.new_context(
        viewport={"width": 1440, "height": 1000}, locale="en-GB", accept_downloads=True, base_url=server
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    yield page
    context.close()
    elsewhere = [url for url in fetched if not url.startswith((server, "data:", "blob:", "ws://127.0.0.1"))]
    assert not elsewhere, f"the page asked other servers: {elsewhere[:3]}"
