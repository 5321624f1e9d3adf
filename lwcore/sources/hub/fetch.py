"""`fetch`: one file from a hub: resumed where it broke off, checked by its checksum, kept in the cache.

A download may be killed at any moment: what has arrived lies in a part file, and the next call goes on from there.
"""

from __future__ import annotations

import hashlib
import http.client
import socket
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lwcore import units
from lwcore.errors import ModelError
from lwcore.progress import Progress, silent
from lwcore.settings import SETTINGS
from lwcore.sources.hub import cache

TIMEOUT_S = 30  # of silence
TRIES = 4
PAUSE_S = 1.0  # before the second try; doubled before every further one
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file at a hub.

    Attributes:
        url: its address.
        name: its name, shown to people and part of its name in the cache.
        what: what it is to people, such as "the weights of resnet18".
        otherwise: a sentence that says what to do instead of downloading it.
        sha256: the checksum or its beginning, hexadecimal, as the hub itself gives it.
        git_sha1: the other checksum that hubs give, for small files.
    """

    url: str
    name: str
    what: str
    otherwise: str
    sha256: str = ""
    git_sha1: str = ""


def cached(url: str, name: str) -> Path:
    """Where the file of an address lies once it is here."""
    return cache.folder() / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"


def fetch(remote: Remote, progress: Progress = silent) -> Path:
    """Bring a file here, unless it is here already.

    Raises:
        ModelError: no network, not there, too large, no space, or not the bytes that the hub promises; one sentence.
    """
    path = cached(remote.url, remote.name)
    part = path.with_name(path.name + cache.PART)
    if not path.is_file():
        with cache.locked(part.with_suffix(".lock")):
            if not path.is_file():
                _bring(remote, part, progress)
                part.replace(path)
        part.with_suffix(".lock").unlink(missing_ok=True)
        cache.sweep(spare=path)
    cache.touch(path)
    return path


def _bring(remote: Remote, part: Path, progress: Progress) -> None:
    resumed = part.is_file() and part.stat().st_size > 0
    _download(remote, part, progress)
    if _is_right(remote, part):
        return
    part.unlink()
    if resumed:  # the beginning may have been of an older version
        _download(remote, part, progress)
        if _is_right(remote, part):
            return
        part.unlink()
    raise ModelError(
        f"Expected {remote.what} as the hub describes them, received other bytes: the checksum of {remote.name} is "
        f"wrong. Try again later. {remote.otherwise}"
    )


def _download(remote: Remote, part: Path, progress: Progress) -> None:
    """Fill the part file, going on after interruptions as long as every try brings something."""
    tried = 0
    while True:
        before = part.stat().st_size if part.is_file() else 0
        try:
            _receive(remote, part, progress)
            return
        except urllib.error.HTTPError as error:
            if error.code == 416 and before:  # nothing is left to send, or the file has become shorter
                if error.headers.get("Content-Range") == f"bytes */{before}":
                    return
                part.unlink()
                continue
            if error.code not in (429, 500, 502, 503, 504):
                raise _refused(remote, error) from None
            reason: object = f"the hub answers {error.code}"
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in (27, 28):  # EFBIG, ENOSPC
                part.unlink(missing_ok=True)
                raise ModelError(f"There is no space left for {remote.what} ({remote.name}).") from None
            reason = getattr(error, "reason", error)
        tried = 1 if part.is_file() and part.stat().st_size > before else tried + 1
        if tried >= TRIES or _is_hopeless(reason):
            raise _unreachable(remote, reason) from None
        time.sleep(PAUSE_S * 2 ** (tried - 1))


def _receive(remote: Remote, part: Path, progress: Progress) -> None:
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(remote.url, headers={"Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        have = (
            have if answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-") else 0
        )
        length = answer.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else None
        _check_size(remote, total or 0)
        with open(part, "r+b" if have else "wb") as file:
            file.seek(have)
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                have += len(chunk)
                _check_size(remote, have)
                _tell(remote, have, total, progress)
    if total is not None and have < total:
        raise ConnectionError(f"the connection ended after {units.size(have)} of {units.size(total)}")


def _tell(remote: Remote, have: int, total: int | None, progress: Progress) -> None:
    of = f" of {units.size(total)}" if total else ""
    progress(have / total if total else 0.5, f"Downloading {remote.name}: {units.size(have)}{of}")


def _check_size(remote: Remote, size: int) -> None:
    if size > SETTINGS.download_mb * 1_000_000:
        raise ModelError(
            f"Expected a download of at most {SETTINGS.download_mb} MB, found {size // 1_000_000} MB for {remote.what}."
            " Take a smaller model."
        )


def _is_right(remote: Remote, path: Path) -> bool:
    if remote.sha256 and not _hash(path, hashlib.sha256()).startswith(remote.sha256.lower()):
        return False
    blob = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    return not remote.git_sha1 or _hash(path, blob) == remote.git_sha1.lower()


def _hash(path: Path, total: hashlib._Hash) -> str:
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            total.update(chunk)
    return total.hexdigest()


def _is_hopeless(reason: object) -> bool:
    """No name service, no route, nobody listening: another try would tell the same."""
    return isinstance(reason, ConnectionRefusedError | socket.gaierror)


def _refused(remote: Remote, error: urllib.error.HTTPError) -> ModelError:
    told = {
        401: "the hub asks for a login",
        403: "the hub does not allow it; some models must be asked for first",
        404: "the hub has no file of that name",
        410: "the hub has it no more",
    }.get(error.code, f"the hub answers {error.code}")
    return ModelError(f"Expected to download {remote.what} ({remote.name}), but {told}. {remote.otherwise}")


def _unreachable(remote: Remote, reason: object) -> ModelError:
    host = urlsplit(remote.url).hostname or "the hub"
    return ModelError(
        f"The download of {remote.what} from {host} failed ({str(reason)[:120]}). Connect to the internet and try "
        f"again; it goes on where it stopped. {remote.otherwise}"
    )
