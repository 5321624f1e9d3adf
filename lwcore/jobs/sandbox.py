"""What a forked job gives up before it touches anybody's bytes: memory, time, files, its session and the network."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_NICE = 5  # the web server answers first


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one job: wall-clock seconds (kept by the server) and what the process itself may use."""

    seconds: int
    memory_mb: int
    file_mb: int = 2048
    files: int = 256
    network: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@lru_cache(maxsize=1)
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def die_with_parent(number: signal.Signals) -> None:
    """Ask Linux for a signal when the parent (the thread that started us) ends; elsewhere the closed pipe must do."""
    if sys.platform == "linux":
        parent = os.getppid()
        _libc().prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)


def virtual_bytes() -> int:
    """Address space of this process: libraries that the warm parent mapped, which no job should be charged for."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return 0
    return pages * resource.getpagesize()


def confine(limits: Limits, folder: Path) -> None:
    """Put this (freshly forked) process under its limits; it cannot lift them again.

    Args:
        limits: memory comes on top of the address space that was inherited.
        folder: an own, empty folder: working directory and place of temporary files.
    """
    os.setsid()
    die_with_parent(signal.SIGKILL)
    os.nice(_NICE)
    os.chdir(folder)
    os.environ["TMPDIR"] = str(folder)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, virtual_bytes() + limits.memory_mb * 1_000_000)
    _limit(resource.RLIMIT_CPU, limits.seconds * (os.cpu_count() or 1))
    _limit(resource.RLIMIT_FSIZE, limits.file_mb * 1_000_000)
    _limit(resource.RLIMIT_NOFILE, limits.files)
    if not limits.network:
        leave_network()


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def leave_network() -> bool:
    """Move this process into an empty network namespace; returns whether the system allowed it."""
    if sys.platform != "linux":
        return False
    libc = _libc()
    return any(libc.unshare(flags) == 0 for flags in (_CLONE_NEWNET, _CLONE_NEWUSER | _CLONE_NEWNET))
