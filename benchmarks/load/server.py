"""A dashboard of its own for a benchmark: on a free port, with an empty store, ended with everything it started."""

from __future__ import annotations

import os
import re
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
_TALLY = re.compile(r"^Jobs: .*$", re.MULTILINE)


@dataclass(frozen=True)
class Server:
    """A running dashboard.

    Attributes:
        home: its store and database; there until the block ends, the server itself may be stopped before.
    """

    port: int
    process: psutil.Process
    home: Path

    def stop(self) -> None:
        """End it as a service manager would; harmless when it has ended."""
        if self.process.is_running():
            self.process.terminate()
            self.process.wait(60)

    def tally(self) -> str:
        """What it said about its jobs when it ended; empty when it did not."""
        found = _TALLY.findall((self.home / "log").read_text(encoding="utf-8", errors="replace"))
        return found[-1] if found else ""


@contextmanager
def serve(script: str, options: Sequence[str] = ()) -> Iterator[Server]:
    """Start a dashboard and wait until it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as home, (Path(home) / "log").open("wb") as log:
        command = [sys.executable, "-m", "streamlit", "run", script, *options]
        command += [f"--server.port={port}", "--server.address=127.0.0.1"]
        started = psutil.Popen(command, cwd=ROOT, env={**os.environ, "SLIMLAB_HOME": home}, stdout=log, stderr=log)
        server = Server(port, started, Path(home))
        try:
            _wait_for(port)
            yield server
        finally:
            server.stop()


def _wait_for(port: int) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit("The server did not start.")


def megabytes(process: psutil.Process) -> float:
    """Memory of one process, what it shares with others in parts: workers are forks of one parent."""
    try:
        return float(process.memory_full_info().pss) / 1e6
    except psutil.Error:
        return 0.0


def processor_seconds(process: psutil.Process) -> float:
    """Processor time of one process so far, without its children."""
    times = process.cpu_times()
    return float(times.user + times.system)
