"""A real Dask scheduler and real workers on loopback, each a process of its own; for tests and benchmarks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lwcore.errors import SearchError
from lwcore.settings import ROOT

PATIENCE = 90  # seconds for processes to come up on a busy machine


class Cluster:
    """A scheduler and workers of one thread that import lwcore from `code`; `address` is for `LWCORE_CLUSTER`."""

    def __init__(self, folder: Path, workers: int, code: Path = ROOT) -> None:
        self._folder, self._code = folder, code
        file = folder / "scheduler.json"
        self.scheduler = self._start("scheduler", "--port", "0", "--scheduler-file", str(file))
        self.address = until(lambda: json.loads(file.read_text())["address"])
        options = ("--nthreads", "1", "--no-nanny", "--memory-limit", "0", "--death-timeout", str(PATIENCE))
        self.workers = [self._start("worker", self.address, *options) for _ in range(workers)]

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        threads = dict.fromkeys(("SLIMLAB_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments, "--host", "127.0.0.1", "--no-dashboard"],
            cwd=self._folder,
            env={**os.environ, **threads, "PYTHONPATH": str(self._code)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def close(self) -> None:
        """End every process that was started."""
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


def until(look: Callable[[], Any]) -> Any:
    """What `look` gives once it neither fails nor comes back empty; raises `TimeoutError`."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            found = look()
        except (OSError, ValueError, SearchError):
            found = None
        if found:
            return found
        time.sleep(0.1)
    raise TimeoutError(f"expected the cluster within {PATIENCE} seconds")
