"""The server's side of one warm parent: starting it, handing it jobs, hearing what became of them."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from lwcore.errors import JobError
from lwcore.jobs.worker import PACKET_BYTES
from lwcore.settings import ROOT, Settings

# What a worker may know of our environment: places and language, but no secrets that happen to lie there.
_KEPT = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
    "TORCH_HOME",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_ENDPOINT",
    "XDG_CACHE_HOME",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "LWCORE_CLUSTER",
)


class WarmParent:
    """A worker process that forks a child per job. Start it from a thread that lives as long as the server.

    (Linux ends it when the *thread* that started it ends, so a page's thread must not.)
    """

    def __init__(self, kind: str, settings: Settings, modules: Sequence[str] = ()) -> None:
        self.kind = kind
        self.ready = False
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.setblocking(False)
        with theirs:
            command = [sys.executable, "-m", "lwcore.jobs.worker", kind, str(theirs.fileno()), *modules]
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=_environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )

    def fork(self, run: str, task: str, arguments: dict[str, Any], limits: dict[str, Any]) -> int:
        """Hand over a job; returns the read end of the pipe on which its child reports.

        Raises:
            JobError: the arguments are too large, or the parent is gone.
        """
        packet = json.dumps({"run": run, "task": task, "arguments": arguments, "limits": limits}).encode()
        if len(packet) > PACKET_BYTES:
            raise JobError(f"Expected a request of at most {PACKET_BYTES} bytes, found {len(packet)}.")
        ours, theirs = os.pipe()
        try:
            socket.send_fds(self.socket, [packet], [theirs])
        except OSError as error:
            os.close(ours)
            raise JobError(f"The {self.kind} worker cannot be reached ({error}). Try again.") from None
        finally:
            os.close(theirs)
        os.set_blocking(ours, False)
        return ours

    def kill(self, run: str) -> None:
        """End one job's whole process group at once."""
        try:
            self.socket.send(json.dumps({"kill": run}).encode())
        except OSError:  # a parent that cannot be told is stuck; its children go with it
            self.process.kill()

    def hear(self) -> dict[str, Any] | None:
        """The next message; None when the parent is gone."""
        try:
            packet = self.socket.recv(PACKET_BYTES)
        except BlockingIOError:
            return {}
        except OSError:
            return None
        message: dict[str, Any] | None = json.loads(packet) if packet else None
        return message

    def close(self) -> None:
        """Hang up and wait until the parent has ended its children and itself."""
        self.socket.close()
        try:
            self.process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _environment(settings: Settings) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    told = [f.name for f in dataclasses.fields(settings) if not f.metadata.get("secret")]
    limits = {f"SLIMLAB_{name.upper()}": str(getattr(settings, name)) for name in told}
    # numpy's solves are small: its threads cost four times what they save when a core is busy elsewhere. onnxruntime's
    # threads are set per session.
    return {
        **kept,
        **limits,
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": str(settings.threads),
        "MKL_NUM_THREADS": str(settings.threads),
        "MALLOC_ARENA_MAX": "2",
        # Activations come and go by the megabyte: keep the pages instead of returning and clearing them each time.
        "MALLOC_MMAP_THRESHOLD_": "1073741824",
        "MALLOC_TRIM_THRESHOLD_": "1073741824",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
