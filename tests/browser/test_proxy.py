"""The app behind nginx with the block of docs/deploy.md, and requests that no page of ours would make."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

from pages.ui import guard
from tests.browser.conftest import ROOT, free_port, start
from tests.browser.walk import settled, slide, visit

pytestmark = [pytest.mark.browser, pytest.mark.slow]
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
LONG = 120_000  # milliseconds
MEASURED = 300_000  # a job gives way to whatever else the machine does, the tests beside this one included
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "x" * 22 + "==",
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of a dashboard that answers to the name `localhost` only."""
    port = free_port()
    process = start(tmp_path_factory.mktemp("app"), port, SLIMLAB_HOSTS="localhost,127.0.0.1")
    yield port
    process.terminate()
    process.wait(timeout=120)


def documented(folder: Path, port: int, app: int) -> str:
    """The block of the handbook, but for its name, its port, its certificate and its log, in a whole configuration."""
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    block = re.search(r"```nginx\n(.*?)```", text, re.DOTALL)
    assert block is not None
    server = re.sub(r" *ssl_certificate.*\n", "", block[1])
    for old, new in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port};"),
        ("slimlab.example.org", "localhost"),
        ("http://127.0.0.1:8501", f"http://127.0.0.1:{app}"),
        ("/var/log/nginx/slimlab.log", f"{folder}/access.log"),
    ):
        assert old in server
        server = server.replace(old, new)
    places = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.geteuid() == 0 else ""  # its workers must reach the tests' folder
    return f"{user}pid {folder}/pid;\nevents {{}}\nhttp {{\n{places}{server}}}\n"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, app: int) -> Iterator[tuple[int, Path]]:
    """Port of nginx before it, and its log."""
    if NGINX is None:
        pytest.skip("no nginx on this machine")
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    (folder / "nginx.conf").write_text(documented(folder, port, app), encoding="utf-8")
    process = subprocess.Popen(
        [NGINX, "-p", str(folder), "-e", str(folder / "error.log"), "-c", "nginx.conf", "-g", "daemon off;"]
    )
    for _ in range(100):
        assert process.poll() is None, (folder / "error.log").read_text(encoding="utf-8")
        if (folder / "access.log").exists():
            break
        time.sleep(0.1)
    yield port, folder / "access.log"
    process.terminate()
    process.wait(timeout=120)


def asked(
    port: int, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str]]:
    """Status and headers of one plain request; `Content-Length` may promise more than is sent."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def test_through_the_proxy_a_model_comes_in_and_a_slider_answers(browser: Any, proxy: tuple[int, Path]) -> None:
    """WebSocket and upload pass; the log holds no query string, so nobody's workspace."""
    port, log = proxy
    context = browser.new_context(base_url=f"http://localhost:{port}", viewport={"width": 1440, "height": 1000})
    try:
        page = context.new_page()
        page.set_default_timeout(LONG)
        visit(page, "/?lang=en")
        page.locator(".st-key-bring input[type=file]").first.set_input_files(str(LIGHT / "light_squeezenet.onnx"))
        page.get_by_role("button", name="Use this model").wait_for()
        visit(page, "/slim?model=fashion-mobilenetv2&lang=en")
        slide(page, "channels-amount", 6)
        page.get_by_text("Measured", exact=True).first.wait_for(timeout=MEASURED)
        settled(page)
        assert "w=" in page.url
    finally:
        context.close()
    written = log.read_text(encoding="utf-8")
    assert "GET /_stcore/stream" in written
    assert "?" not in written


def test_the_proxy_keeps_to_its_limits_and_the_headers_pass(proxy: tuple[int, Path]) -> None:
    """What is far too large is refused before it is read; what the app says about security arrives."""
    port, _ = proxy
    assert asked(port, "/_stcore/upload_file/x/y", "PUT", b"x", Content_Length="230000000")[0] == 413
    status, headers = asked(port, "/", Host=f"localhost:{port}")
    assert status == 200
    assert {name.lower(): value for name, value in guard.HEADERS.items()}.items() <= headers.items()


def test_what_is_not_from_our_own_page_is_refused(app: int) -> None:
    """Other names, other origins, uploads without the token or into a session that nobody has."""
    own = {"Host": f"localhost:{app}", "Origin": f"http://localhost:{app}"}
    assert asked(app, "/", Host="evil.example")[0] == 400
    assert asked(app, "/_stcore/stream", **{**own, **UPGRADE, "Host": "evil.example"})[0] == 400
    assert asked(app, "/_stcore/stream", **{**own, **UPGRADE})[0] == 101
    assert asked(app, "/_stcore/stream", **{**own, **UPGRADE, "Origin": "http://evil.example"})[0] == 403
    for path in ("/_stcore/upload_file/somebody/else", "/_stcore/upload_file/../../etc"):
        assert asked(app, path, "PUT", b"x", **own)[0] in (400, 403, 404)
    assert asked(app, "/media/../../lwcore/settings.py", **own)[0] in (400, 403, 404)
    assert asked(app, "/ui/../../lwcore/settings.py", **own)[0] in (400, 403, 404)
    for path in ("/app/static/settings.py", "/media/" + "0" * 56 + ".onnx"):
        status, headers = asked(app, path, **own)
        assert status in (403, 404) or headers["content-type"].startswith("text/html"), path
    assert asked(app, "/", **own)[1]["content-security-policy"] == guard.CONTENT
