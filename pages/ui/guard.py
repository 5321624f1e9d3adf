"""What stands before every request: security headers, allowed names, and what is closed."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Streamlit's client evaluates Vega expressions and writes styles inline, so scripts and styles cannot be stricter; what
# counts is that nothing is loaded from, or told to, anybody else: by a picture's address in an uploaded name, say.
CONTENT = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' 'wasm-unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' ws: wss: data: blob:",
        "worker-src 'self' blob:",
        "frame-src 'self' blob: data:",
        "frame-ancestors 'self'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",  # addresses carry a person's workspace
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}


# Streamlit's figures about itself: how many people are here, and how much memory what they do takes.
CLOSED = ("/_stcore/metrics",)


class SecurityHeaders:
    """Put the headers on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)


class Closed:
    """Answer that there is nothing under the addresses in `CLOSED`; Streamlit has no option for it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        found = scope["type"] == "http" and scope["path"].rstrip("/").endswith(CLOSED)
        await (PlainTextResponse("Not Found", status_code=404) if found else self._app)(scope, receive, send)


def middleware(hosts: str) -> list[Middleware]:
    """What `app.py` puts before the app.

    Args:
        hosts: names under which the server may be called, apart by commas (`lab.example.org, *.lab.example.org`);
            empty for any, as on one's own computer.
    """
    names = [name.strip() for name in hosts.split(",") if name.strip()]
    allowed = [Middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False)] if names else []
    return [Middleware(SecurityHeaders), *allowed, Middleware(Closed)]
