"""A login provider for the tests (OpenID Connect, authorisation code): on loopback, two people, no passwords.

Its page asks who one is; what it signs is checked by the app's own libraries as any provider's would be.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

PEOPLE = ("ada", "bob")
CLIENT, SECRET = "slimlab-test", "not a secret"


class Provider(ThreadingHTTPServer):
    """One provider with one key; codes are good for one use."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.key = RSAKey.generate_key(2048, {"kid": "1", "alg": "RS256", "use": "sig"})
        self.codes: dict[str, dict[str, str]] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"

    def settings(self, app: str) -> str:
        """What stands in the app's `secrets.toml`."""
        return (
            f'[auth]\nredirect_uri = "{app}/oauth2callback"\ncookie_secret = "{secrets.token_hex(32)}"\n'
            f'client_id = "{CLIENT}"\nclient_secret = "{SECRET}"\n'
            f'server_metadata_url = "{self.url}/.well-known/openid-configuration"\n'
        )


class _Handler(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        """Discovery, keys, and the page on which one says who one is."""
        split = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        url = self.server.url
        if split.path == "/.well-known/openid-configuration":
            self._json(
                {
                    "issuer": url,
                    "authorization_endpoint": f"{url}/authorize",
                    "token_endpoint": f"{url}/token",
                    "jwks_uri": f"{url}/keys",
                    "response_types_supported": ["code"],
                    "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": ["RS256"],
                }
            )
        elif split.path == "/keys":
            self._json({"keys": [self.server.key.as_dict(private=False)]})
        elif split.path == "/authorize" and "who" in query:
            code = secrets.token_urlsafe()
            self.server.codes[code] = {"sub": query["who"], "nonce": query.get("nonce", "")}
            self._answer(
                302, b"", Location=query["redirect_uri"] + "?" + urlencode({"code": code, "state": query["state"]})
            )
        elif split.path == "/authorize":
            links = "".join(
                f'<p><a href="{self.path}&who={name}">{name}</a></p>'.replace("&", "&amp;") for name in PEOPLE
            )
            self._answer(200, links.encode(), **{"Content-Type": "text/html"})
        else:
            self._answer(404, b"")

    def do_POST(self) -> None:
        """A code for a signed word on who it was given to, once."""
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        person = self.server.codes.pop(form.get("code", [""])[0], None)
        if person is None:
            self._answer(400, b'{"error": "invalid_grant"}', **{"Content-Type": "application/json"})
            return
        now = int(time.time())
        claims = {"iss": self.server.url, "aud": CLIENT, "iat": now, "exp": now + 600, "name": person["sub"], **person}
        token = jwt.encode({"alg": "RS256", "kid": "1"}, claims, self.server.key)
        self._json({"access_token": secrets.token_urlsafe(), "token_type": "Bearer", "id_token": token})

    def _json(self, content: dict[str, Any]) -> None:
        self._answer(200, json.dumps(content).encode(), **{"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def provider() -> Iterator[Provider]:
    """A running one."""
    server = Provider()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
