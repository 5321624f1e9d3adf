"""What is kept of hubs on disk: downloaded files and models exported from them; the least recently used goes first."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from lwcore.settings import SETTINGS

PART = ".part"


def folder() -> Path:
    """Where it is kept."""
    return Path(SETTINGS.home) / "hub"


def kept(name: str, make: Callable[[], bytes]) -> bytes:
    """The bytes of that name, made and kept when there are none; a reader sees a whole file or none."""
    path = folder() / name
    if not path.is_file():
        data = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=PART, delete=False) as part:
            part.write(data)
        Path(part.name).replace(path)
        sweep()
        return data
    touch(path)
    return path.read_bytes()


def touch(path: Path) -> None:
    """Note that a file was used just now."""
    with contextlib.suppress(OSError):  # swept away meanwhile, or a read-only disk: only the order suffers
        os.utime(path)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file for this process alone; another that asks for it waits. The system lets go when a process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sweep(spare: Path | None = None) -> int:
    """Remove what was not used for longest, parts of downloads included, until the limit holds; how many files went."""
    files = []
    for path in folder().glob("*"):
        with contextlib.suppress(OSError):
            info = path.stat()
            files.append((info.st_mtime, info.st_size, path))
    total, removed = sum(size for _, size, _ in files), 0
    for _, size, path in sorted(files):
        if total <= SETTINGS.hub_mb * 1_000_000:
            break
        if path != spare:
            path.unlink(missing_ok=True)
            total, removed = total - size, removed + 1
    return removed
