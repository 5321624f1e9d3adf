"""A stand-in for the hubs: a web server on this machine that serves given files, and misbehaves on demand."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class StandIn:
    """What the server has, how it behaves, and what it was asked.

    Attributes:
        files: path → bytes.
        cut: bytes after which the next answers end, one entry an answer; then it answers whole.
        status: answer every request with this code.
        ranges: whether it can go on in the middle of a file.
        drip: seconds between two halves of every answer.
        lie: what it says the SHA-256 of every file is.
        asked: (method, path, Range header) of every request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)
    status: int = 0
    ranges: bool = True
    drip: float = 0.0
    lie: str = ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: StandIn

    def log_message(self, *_: object) -> None:
        return

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        hub, wanted = self.hub, self.headers.get("Range", "")
        hub.asked.append((self.command, self.path, wanted))
        data = hub.files.get(self.path)
        if hub.status or data is None:
            self.send_response(hub.status or 404)
            if data is None and "/resolve/" in self.path:
                known = any(p.startswith(self.path.partition("/resolve/")[0] + "/") for p in hub.files)
                self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(m[1]) if hub.ranges and (m := re.match(r"bytes=(\d+)-", wanted)) else 0
        if start >= len(data) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", f'"{hub.lie or hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if body:
            self._send(data[start:])

    def _send(self, data: bytes) -> None:
        if self.hub.cut:
            self.wfile.write(data[: self.hub.cut.pop(0)])
            self.close_connection = True
            return
        half = len(data) // 2
        with contextlib.suppress(ConnectionError):  # the other side has given up
            self.wfile.write(data[:half])
            self.wfile.flush()
            time.sleep(self.hub.drip)
            self.wfile.write(data[half:])


@contextlib.contextmanager
def serving(**facts: object) -> Iterator[StandIn]:
    """A running stand-in; `facts` are fields of `StandIn`."""
    hub = StandIn(**facts)  # type: ignore[arg-type]
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
