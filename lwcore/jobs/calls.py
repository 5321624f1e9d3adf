"""A filter on system calls (seccomp) for jobs that read a stranger's bytes: no programs, no connections, no signals.

Should a fault in a parser let a file run code of its own, that code can only do what is left here: it can start threads
but no process and no program, open no socket, trace no other process, end none and slow none down. A refused call fails
with EPERM, as if the user were not allowed to. (Where a container forbids network namespaces, this keeps a job off the
network.) Which files may be opened is `lwcore.jobs.places`' business, the memory of others (/proc/PID/mem) included;
what that cannot refuse stands here: owners, modes and attributes of files, and emptying one by its name.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_ALLOW, _REFUSE, _MISSING = 0x7FFF0000, 0x00050001, 0x00050026  # SECCOMP_RET_ALLOW, …_ERRNO with EPERM, with ENOSYS
_LOAD, _EQUAL, _AT_LEAST, _HAS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # the filter's instructions (linux/bpf_common.h)
_NUMBER, _MACHINE, _FIRST, _SECOND = 0, 4, 16, 24  # where in seccomp_data call, architecture and arguments stand
_X32 = 0x40000000  # from here on: a second numbering of the same calls on x86-64
_THREAD = 0x10000  # CLONE_THREAD
_NONE = 0xFFFFFFFF  # a call that an architecture has not
_CLONE3 = 435  # on every architecture; glibc goes back to clone, whose flags a filter can see, where it is missing


@dataclass(frozen=True, kw_only=True)
class _Table:
    """Numbers of the calls on one architecture; `own` may be made about oneself only, `clone` for threads only.

    `partly` are refused with the second arguments that `_PARTLY` lists.
    """

    audit: int
    clone: int
    refused: Mapping[str, int]
    own: Mapping[str, int]
    partly: Mapping[str, int]


def _numbers(names: Sequence[str], values: Sequence[int]) -> Mapping[str, int]:
    return dict(zip(names, values, strict=True))


_REFUSED = (
    *("fork", "vfork", "execve", "execveat", "socket", "connect", "ptrace", "process_vm_readv", "process_vm_writev"),
    *("tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_open", "pidfd_send_signal", "pidfd_getfd"),
    *("unshare", "setns", "mount", "bpf", "perf_event_open", "userfaultfd", "io_uring_setup"),
    *("add_key", "request_key", "keyctl", "init_module", "finit_module", "kexec_load", "open_by_handle_at"),
    *("setpriority", "ioprio_set", "truncate"),
    *("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchown", "fchownat"),
    *("setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr"),
    *("setxattrat", "removexattrat", "file_setattr"),
)
_OWN = ("kill", "tgkill", "prlimit64", "sched_setparam", "sched_setscheduler", "sched_setattr", "sched_setaffinity")
_PARTLY: Mapping[str, tuple[int, ...]] = {  # whom the kernel signals once a file is ready: a way round kill
    "fcntl": (8, 10, 15),  # F_SETOWN, F_SETSIG, F_SETOWN_EX
    "ioctl": (0x8901, 0x8902),  # FIOSETOWN, SIOCSPGRP
}
_TABLES: Mapping[str, _Table] = {  # numbers from the kernel's asm/unistd.h
    "x86_64": _Table(
        audit=0xC000003E,
        clone=56,
        refused=_numbers(
            _REFUSED,
            (
                *(57, 58, 59, 322, 41, 42, 101, 310, 311),
                *(200, 129, 297, 434, 424, 438),
                *(272, 308, 165, 321, 298, 323, 425),
                *(248, 249, 250, 175, 313, 246, 304),
                *(141, 251, 76),
                *(90, 91, 268, 452, 92, 94, 93, 260),
                *(188, 189, 190, 197, 198, 199),
                *(463, 466, 469),
            ),
        ),
        own=_numbers(_OWN, (62, 234, 302, 142, 144, 314, 203)),
        partly=_numbers(tuple(_PARTLY), (72, 16)),
    ),
    "aarch64": _Table(
        audit=0xC00000B7,
        clone=220,
        refused=_numbers(
            _REFUSED,
            (
                *(_NONE, _NONE, 221, 281, 198, 203, 117, 270, 271),
                *(130, 138, 240, 434, 424, 438),
                *(97, 268, 40, 280, 241, 282, 425),
                *(217, 218, 219, 105, 273, 104, 265),
                *(140, 30, 45),
                *(_NONE, 52, 53, 452, _NONE, _NONE, 55, 54),
                *(5, 6, 7, 14, 15, 16),
                *(463, 466, 469),
            ),
        ),
        own=_numbers(_OWN, (129, 131, 261, 118, 119, 274, 122)),
        partly=_numbers(tuple(_PARTLY), (25, 29)),
    ),
}


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("<HBBI", code, yes, no, value)


def _filter(table: _Table, own: int) -> bytes:
    """The filter's instructions: what is not refused is allowed; a call of another architecture is refused."""
    allow, refuse = _step(_RETURN, _ALLOW), _step(_RETURN, _REFUSE)
    steps = [_step(_LOAD, _MACHINE), _step(_EQUAL, table.audit, yes=1), refuse, _step(_LOAD, _NUMBER)]
    steps += [_step(_AT_LEAST, _X32, no=1), refuse]
    for number in table.refused.values():
        steps += [_step(_EQUAL, number, no=1), refuse]
    for number in table.own.values():  # zero stands for oneself too
        mine = [_step(_LOAD, _FIRST), _step(_EQUAL, own, yes=2), _step(_EQUAL, 0, yes=1), refuse, allow]
        steps += [_step(_EQUAL, number, no=len(mine)), *mine]
    for name, number in table.partly.items():
        ways = [step for way in _PARTLY[name] for step in (_step(_EQUAL, way, no=1), refuse)]
        steps += [_step(_EQUAL, number, no=len(ways) + 2), _step(_LOAD, _SECOND), *ways, allow]
    steps += [_step(_EQUAL, _CLONE3, no=1), _step(_RETURN, _MISSING)]
    steps += [_step(_EQUAL, table.clone, no=3), _step(_LOAD, _FIRST), _step(_HAS, _THREAD, yes=1), refuse]
    return b"".join([*steps, allow])


def forbid() -> bool:
    """Put this process, and all it will start, behind the filter for good; returns whether the system took it.

    It must have one thread, and be what `os.getpid` says it is.
    """
    table = _TABLES.get(platform.machine()) if sys.platform == "linux" else None
    if table is None or not give_up_rights():
        return False
    steps = _filter(table, os.getpid())
    program = _Program(len(steps) // 8, steps)
    return bool(ctypes.CDLL(None).prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0) == 0)


def give_up_rights() -> bool:
    """No program that this process starts may have more rights than it; returns whether the system took it."""
    return sys.platform == "linux" and bool(ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
