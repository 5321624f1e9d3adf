"""What stands before every request: headers on every answer, and only the names that are allowed."""

from __future__ import annotations

import asyncio
import re
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from pages.ui import guard

ROOT = Path(__file__).resolve().parents[1]


def ask(hosts: str, host: str, path: str = "/") -> tuple[int, dict[str, str]]:
    """Status and headers of one request."""
    app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("x"))], middleware=guard.middleware(hosts))
    sent: list[dict] = []

    async def receive() -> dict:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [(b"host", host.encode())]}
    with ThreadPoolExecutor(1) as elsewhere:  # a browser test before this one leaves its loop running in this thread
        elsewhere.submit(asyncio.run, app(scope, receive, send)).result()
    return sent[0]["status"], {k.decode(): v.decode() for k, v in sent[0]["headers"]}


def test_every_answer_has_the_headers() -> None:
    """Refusals too."""
    for host in ("lab.example.org", "evil.example"):
        _, headers = ask("lab.example.org", host)
        assert {name.lower(): value for name, value in guard.HEADERS.items()}.items() <= headers.items()


@pytest.mark.parametrize(
    ("hosts", "host", "status"),
    [
        ("", "anything", 200),
        ("lab.example.org", "lab.example.org:8501", 200),
        ("a.example, *.example.org", "x.example.org", 200),
        ("lab.example.org", "evil.example", 400),
    ],
)
def test_only_allowed_names_are_answered(hosts: str, host: str, status: int) -> None:
    """Without a setting every name is, as on one's own computer."""
    assert ask(hosts, host)[0] == status


@pytest.mark.parametrize("path", ["/_stcore/metrics", "/_stcore/metrics/", "/below/_stcore/metrics"])
def test_nobody_is_told_how_many_people_are_here(path: str) -> None:
    """Streamlit's own figures are answered as if there were none."""
    app = Starlette(routes=[Route(path, lambda _: PlainTextResponse("x"))], middleware=guard.middleware(""))
    assert ask("", "anything", path)[0] == 404
    with ThreadPoolExecutor(1) as elsewhere:
        assert elsewhere.submit(lambda: TestClient(app).get(path).status_code).result() == 404


def test_pictures_from_elsewhere_are_not_loaded_and_nobody_else_may_frame_the_page() -> None:
    """The two rules that a stranger's Markdown and a stranger's page would break."""
    rules = dict(rule.split(" ", 1) for rule in guard.CONTENT.split("; "))
    assert rules["img-src"] == "'self' data: blob:"
    assert rules["frame-ancestors"] == "'self'"


def test_the_server_is_configured_as_the_design_says() -> None:
    """XSRF protection on, no details of errors for visitors, no statistics sent; the guard stands in app.py."""
    config = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    assert config["server"]["enableXsrfProtection"] is True
    assert config["client"]["showErrorDetails"] == "none"
    assert config["browser"]["gatherUsageStats"] is False
    assert "middleware=guard.middleware(SETTINGS.hosts)" in (ROOT / "app.py").read_text(encoding="utf-8")


def test_every_threat_names_tests_that_exist() -> None:
    """The table in the handbook is one for readers, and stays true."""
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8").split("### Each threat")[1]
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 14
    for row in rows:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", row)
        assert named, row
        for file, test in named:
            assert f"def {test}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), f"{file}::{test}"


def test_no_page_lets_a_text_become_html() -> None:
    """`unsafe_allow_html` is nowhere; `st.html` only shows what the product itself wrote."""
    users = [str(p) for p in (ROOT / "pages").rglob("*.py") if "unsafe_allow_html" in p.read_text(encoding="utf-8")]
    assert not users
