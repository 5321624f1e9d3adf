"""Places (Landlock) that a job which reads a stranger's bytes may touch: libraries and its upload, little to write.

Should a fault in a parser let a file run code of its own, that code finds the rest closed, whatever the server's user
may do: the database, other people's choices, the home folder, secrets beside the program, and the memory of every other
process. In the store it may read what it knows the fingerprint of (no folder can be listed) and add files; what lies
there it can neither change nor remove, because a file is written in the job's own folder and then moved. Refused is
with EACCES. (Linux 5.19 at least; `complete` from 6.2, https://docs.kernel.org/userspace-api/landlock.html.)
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from lwcore.jobs import calls
from lwcore.settings import ASSETS, ROOT

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the calls' numbers, the same on all of `_MACHINES`
_MACHINES = ("x86_64", "aarch64")
_VERSION, _BENEATH = 1, 1  # LANDLOCK_CREATE_RULESET_VERSION, LANDLOCK_RULE_PATH_BENEATH
_WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5
_MAKE_DIR, _MAKE_REG, _REFER, _TRUNCATE, _DEVICES = 1 << 7, 1 << 8, 1 << 13, 1 << 14, 1 << 15
_FIRST = (1 << 13) - 1  # every right that the first version knew
_SINCE = {_FIRST: 1, _REFER: 2, _TRUNCATE: 3, _DEVICES: 5}  # the version that brought each
_OLDEST = 2  # before it nothing can be moved between folders
_COMPLETE = 3  # before it whoever may not write a file can still empty it
_SCOPED, _OTHERS = 6, 0b11  # since when: no socket without a path and no signal to processes that are not behind it

_READ = _READ_FILE | _READ_DIR
_OWN = _READ | _WRITE_FILE | _TRUNCATE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER
_ADDED = _READ_FILE | _MAKE_DIR | _MAKE_REG | _REFER
_STORE: Mapping[str, int] = {"uploads": _READ_FILE, "models": _ADDED, "samples": _ADDED, "decoded": _ADDED}
_SYSTEM: Mapping[str, int] = {
    **dict.fromkeys(("/usr", "/lib", "/lib64", "/proc/self", "/sys/devices/system/cpu"), _READ),
    **dict.fromkeys(("/etc/ld.so.cache", "/etc/localtime", "/proc/cpuinfo", "/proc/meminfo"), _READ_FILE),
    **dict.fromkeys(("/dev/urandom", "/dev/random", "/dev/zero"), _READ_FILE),
    "/dev/null": _READ_FILE | _WRITE_FILE,
}


class _Ruleset(ctypes.Structure):
    """`struct landlock_ruleset_attr`; older systems take the whole of it while what they do not know is zero."""

    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Rule(ctypes.Structure):
    """`struct landlock_path_beneath_attr`."""

    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """Which Landlock this system has; 0 when none, or when it is switched off."""
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        return 0
    return max(0, _call(_CREATE, None, ctypes.c_size_t(0), _VERSION))


def complete() -> bool:
    """Whether this system's Landlock leaves no way to change a file that may not be written."""
    return version() >= _COMPLETE


def keep_to(folder: Path, store: Path | None) -> bool:
    """Close everything else to this process, and all it will start, for good; returns whether the system did it.

    Args:
        folder: of its own, to do anything in but make links and devices.
        store: home of the store; none can be used when None.
    """
    found = version()
    if found < _OLDEST or not calls.give_up_rights():
        return False
    known = sum(rights for rights, since in _SINCE.items() if since <= found)
    wanted = _Ruleset(known, 0, _OTHERS if found >= _SCOPED else 0)
    rules = _call(_CREATE, ctypes.byref(wanted), ctypes.c_size_t(ctypes.sizeof(wanted)), 0)
    if rules < 0:
        return False
    try:
        for path, rights in _allowed(folder, store):
            if not _allow(rules, path, rights & known):
                return False
        return _call(_RESTRICT, rules, 0) == 0
    finally:
        os.close(rules)


def _allowed(folder: Path, store: Path | None) -> Iterator[tuple[Path, int]]:
    """Each place that is there, and what may be done in it."""
    yield folder, _OWN
    if store is not None:
        for name, rights in _STORE.items():
            place = store / name
            place.mkdir(parents=True, exist_ok=True)  # what is made later would not be allowed
            yield place, rights
    libraries = {Path(prefix) / name for prefix in (sys.prefix, sys.base_prefix) for name in ("lib", "lib64")}
    packages = {Path(entry) for entry in sys.path if entry and not ROOT.is_relative_to(entry)}
    for place in sorted(libraries | packages | {ROOT / "lwcore", ASSETS}):
        if os.path.isdir(place):  # and within reach of this user
            yield place, _READ
    for name, rights in _SYSTEM.items():
        if os.path.exists(name):
            yield Path(name), rights


def _allow(rules: int, path: Path, rights: int) -> bool:
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = _Rule(rights, handle)
        return _call(_ADD, rules, _BENEATH, ctypes.byref(rule), 0) == 0
    finally:
        os.close(handle)


def _call(number: int, *arguments: object) -> int:
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    return int(call(ctypes.c_long(number), *arguments))
