"""What a forked job gives up before it touches anybody's bytes: memory, time, places, its session and the network.

`confine` takes it away; `found` tries, in the same process, what is really gone, for the page to tell people.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import resource
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lwcore.jobs import calls, places

_PR_SET_PDEATHSIG = 1
_PR_GET_NO_NEW_PRIVS = 39
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_NICE = 10  # the web server answers first
_USER = os.geteuid()  # of the warm parent; in a user namespace a job no longer knows it
_BEYOND = 64_000_000  # bytes more than what is left of a limit: surely refused


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one job: wall-clock seconds (kept by the server) and what the process itself may use.

    Attributes:
        network: whether it may open connections to anywhere.
        programs: whether it may start processes and signal others (`lwcore.jobs.calls`), read and write whatever the
            server's user may (`lwcore.jobs.places`).
    """

    seconds: int
    memory_mb: int
    file_mb: int = 2048
    files: int = 256
    network: bool = False
    programs: bool = True

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


def confine(limits: Limits, folder: Path, store: Path | None = None) -> None:
    """Put this (freshly forked) process under its limits; it cannot lift them again.

    Args:
        limits: memory comes on top of the address space that was inherited.
        folder: an own, empty folder: working directory and place of temporary files.
        store: home of the store, for those that may not touch everything.
    """
    os.setsid()
    die_with_parent(signal.SIGKILL)
    _give_way()
    os.chdir(folder)
    os.environ["TMPDIR"] = str(folder)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, virtual_bytes() + limits.memory_mb * 1_000_000)
    _limit(resource.RLIMIT_CPU, limits.seconds * (os.cpu_count() or 1))
    _limit(resource.RLIMIT_FSIZE, limits.file_mb * 1_000_000)
    _limit(resource.RLIMIT_NOFILE, limits.files)
    calls.give_up_rights()
    if not limits.network:
        leave_network()
    if not limits.programs:
        places.keep_to(folder, store)
        calls.forbid()


def _give_way() -> None:
    """Pages go before jobs; where Linux shares time out by session, this new session is told so as well."""
    os.nice(_NICE)
    with suppress(OSError):  # a container may forbid it, and older systems have no such file
        if sys.platform == "linux":
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            Path("/proc/self/autogroup").write_text(str(_NICE), encoding="ascii")


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


# -- what holds ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Protections:
    """What a process found when it tried; a limit is None, and the others are False, where nothing held it back.

    Attributes:
        memory_mb, file_mb: of memory beyond what was inherited, and of one file that it writes.
        files: that may be open at once.
        processor_seconds: of all cores together.
        network: True when not even this computer's own addresses can be reached.
        programs: True when no program and no process can be started.
        signals: True when no other process can be ended.
        elsewhere: True when files outside of its folder and the store cannot be read or written, nor can the memory of
            another process.
        rights: True when nothing it starts could have more rights than it.
        user: True when it was not started by the system's administrator.
    """

    memory_mb: int | None
    file_mb: int | None
    files: int | None
    processor_seconds: int | None
    network: bool
    programs: bool
    signals: bool
    elsewhere: bool
    rights: bool
    user: bool

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def found() -> Protections:
    """Try what this process can still do; nothing outside of it is changed."""
    return Protections(
        memory_mb=_memory_mb(),
        file_mb=_file_mb(),
        files=_limit_of(resource.RLIMIT_NOFILE),
        processor_seconds=_limit_of(resource.RLIMIT_CPU),
        network=_is_refused(_reach_myself),
        programs=_is_refused(_start_program) and _is_refused(_start_process),
        signals=_is_refused(lambda: os.kill(os.getppid(), 0)) and _is_refused(_name_another_to_signal),
        elsewhere=places.complete() and all(map(_is_refused, (_write_beside, _read_beside, _read_memory))),
        rights=sys.platform == "linux" and _libc().prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1,
        user=_USER != 0,
    )


def _limit_of(kind: int) -> int | None:
    _, hard = resource.getrlimit(kind)
    return None if hard == resource.RLIM_INFINITY else hard


def _memory_mb() -> int | None:
    limit = _limit_of(resource.RLIMIT_AS)
    if limit is None:
        return None
    left = max(0, limit - virtual_bytes())
    return left // 1_000_000 if _is_refused(lambda: mmap.mmap(-1, left + _BEYOND).close()) else None


def _file_mb() -> int | None:
    limit = _limit_of(resource.RLIMIT_FSIZE)
    if limit is None:
        return None
    with tempfile.TemporaryFile(dir=os.getcwd()) as file:  # no byte of it is ever written
        return limit // 1_000_000 if _is_refused(lambda: os.ftruncate(file.fileno(), limit + 1)) else None


def _reach_myself() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("127.0.0.1", 9))  # sends nothing; only where there is a network is there a way


def _start_program() -> None:
    try:
        os.execv(os.path.join(os.getcwd(), "no-such-program"), ["no-such-program"])
    except FileNotFoundError:  # it was looked for
        return


def _start_process() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _write_beside() -> None:
    with tempfile.TemporaryFile(dir=Path.cwd().parent):  # gone at once, and nothing is written to it
        return


def _read_beside() -> None:
    os.listdir(Path.cwd().parent)


def _read_memory() -> None:
    with open(f"/proc/{os.getppid()}/mem", "rb"):
        return


def _name_another_to_signal() -> None:
    """The kernel signals whom a file names once it is ready; nothing is written to this one."""
    ends = os.pipe()
    try:
        fcntl.fcntl(ends[0], fcntl.F_SETOWN, os.getppid())
    finally:
        for end in ends:
            os.close(end)


def _is_refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return True
    return False
