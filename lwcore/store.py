"""`Store`: content-addressed files and JSON results on disk, shared by the web server and its workers.

Every file carries the SHA-256 of what follows it and is put in place by an atomic rename, so a reader sees a whole file
or none; a damaged file counts as missing. A model or sample set is read only if its content gives its name: a job that
reads a stranger's bytes may add files, and could add a wrong one under the name that somebody's upload will have. The
oldest files (by last use) go when the store outgrows its limit; pinned ones, which cannot be made again, stay.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import struct
import tempfile
import threading
import time
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lwcore.errors import ModelError, SampleError, StoreError
from lwcore.model import Card, Model
from lwcore.samples import SampleSet
from lwcore.settings import SETTINGS

_DIGEST = 64  # hexadecimal digits of a SHA-256
_DURABLE = frozenset({"models", "samples", "uploads"})  # what a finished attempt may refer to; the rest is worked out
_PINS = "pins"  # empty files named like what they pin: every process that sweeps sees them
_PART = ".part-"
_STALE_SECONDS = 3600  # of a half-written file, whose writer was killed, and of a pin that nobody wrote down
_HEX = re.compile(r"[0-9a-f]{64}")
_NOT_OURS = (  # what reading says of bytes that `Store` did not write; a lack of memory is no fault of the file
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)


def digest(*parts: bytes | memoryview) -> str:
    """SHA-256 of the parts, hexadecimal; their lengths count, so that no two lists of parts run into each other."""
    total = hashlib.sha256()
    for part in parts:
        total.update(f"{len(part)}:".encode())
        total.update(part)
    return total.hexdigest()


def is_fingerprint(text: object) -> bool:
    """Whether a text is a fingerprint of this store; nothing else ever becomes a part of a path."""
    return isinstance(text, str) and _HEX.fullmatch(text) is not None


def _model_key(body: bytes) -> str:
    """The fingerprint of a model as `put_model` writes it; empty when that did not write it."""
    try:
        end = body.index(b"\n")
        start = end + 1 + sum(json.loads(body[:end])["files"].values())
        view = memoryview(body)
        return digest(view[start:], view[:end], view[end + 1 : start])
    except _NOT_OURS:
        return ""


@lru_cache(maxsize=8)  # thirty people who ask the same
def _parsed(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body)
    return found


class Store:
    """Models, sample sets, uploads, arrays and JSON results by fingerprint; safe for several threads and processes.

    Args:
        home: the folder; `SETTINGS.home` when None.
        limit_mb: the files together, before the oldest are removed; `SETTINGS.store_mb` when None.
        parts: for a job that may only add (`lwcore.jobs.places`): where it writes a file before it is moved to its
            place; it leaves sweeping to others.
    """

    def __init__(self, home: str | Path | None = None, limit_mb: int | None = None, parts: Path | None = None) -> None:
        self.home = Path(home or SETTINGS.home) / "store"
        self.limit_bytes = (SETTINGS.store_mb if limit_mb is None else limit_mb) * 1_000_000
        self._parts = parts
        self._written = 0  # bytes since the last sweep of this process
        self._lock = threading.Lock()

    # -- models --------------------------------------------------------------------------------------------------

    def put_model(self, model: Model) -> str:
        """Keep a model; the key covers card, notes and files, so the same bytes with another card are another."""
        sizes = {name: len(data) for name, data in sorted(model.files.items())}
        about = {"card": model.card.to_json(), "notes": model.notes, "files": sizes}
        head = json.dumps(about, sort_keys=True).encode()
        beside = b"".join(model.files[name] for name in sizes)
        key = digest(model.data, head, beside)
        self._write("models", key, head + b"\n" + beside + model.data)
        return key

    def model(self, key: str) -> Model:
        """The model of that fingerprint; raises `ModelError` when the store has none (any more)."""
        body = self._read("models", key)
        if body is None:
            raise ModelError(
                f"Expected the fingerprint of a stored model, found {str(key)[:12]!r}, which is not "
                "in the store (any more). Choose or upload the model again."
            )
        return self.unpack_model(body)

    @staticmethod
    def unpack_model(body: bytes) -> Model:
        """A model as `put_model` writes it."""
        head, _, data = body.partition(b"\n")
        fields = json.loads(head)
        files, start = {}, 0
        for name, size in fields["files"].items():
            files[name] = data[start : start + size]
            start += size
        return Model(data=data[start:], card=Card.from_json(fields["card"]), notes=tuple(fields["notes"]), files=files)

    def has_model(self, key: str) -> bool:
        """Whether a model of that fingerprint is stored."""
        return self._has("models", key)

    # -- samples -------------------------------------------------------------------------------------------------

    def put_samples(self, samples: SampleSet) -> str:
        """Keep a sample set; the key covers arrays, labels and all names."""
        about = json.dumps({"name": samples.name, "names": samples.names, "notes": samples.notes}, sort_keys=True)
        key = digest(samples.fingerprint.encode(), about.encode())
        arrays = {f"array.{name}": array for name, array in samples.arrays.items()}
        arrays["about"] = np.frombuffer(about.encode(), np.uint8)
        if samples.labels is not None:
            arrays["labels"] = samples.labels
        self.put_arrays(key, arrays, folder="samples")
        return key

    def samples(self, key: str) -> SampleSet:
        """The sample set of that fingerprint; raises `SampleError` when the store has none (any more)."""
        arrays = self.arrays(key, folder="samples")
        if arrays is not None:
            try:
                found = self.unpack_samples(arrays)
                # as it is written, so that a field that comes later makes no old file a wrong one
                ours = digest(found.fingerprint.encode(), arrays["about"].tobytes()) == key
            except _NOT_OURS:
                ours = False
            if ours:
                return found
            self._refuse(self._path("samples", key))
        raise SampleError(
            f"Expected the fingerprint of a stored sample set, found {str(key)[:12]!r}, which is "
            "not in the store (any more). Choose or upload the samples again."
        )

    @staticmethod
    def unpack_samples(arrays: Mapping[str, np.ndarray]) -> SampleSet:
        """A sample set as `put_samples` writes it."""
        about = json.loads(arrays["about"].tobytes())
        return SampleSet(
            name=about["name"],
            arrays={n.removeprefix("array."): a for n, a in arrays.items() if n.startswith("array.")},
            labels=arrays.get("labels"),
            names=tuple(about["names"]),
            notes=tuple(about["notes"]),
        )

    def has_samples(self, key: str) -> bool:
        """Whether a sample set of that fingerprint is stored."""
        return self._has("samples", key)

    # -- uploads, arrays, results --------------------------------------------------------------------------------

    def put_upload(self, data: bytes) -> str:
        """Keep uploaded bytes, unread, for a worker to look at; returns their fingerprint."""
        key = digest(data)
        self._write("uploads", key, data)
        return key

    def upload(self, key: str) -> bytes:
        """The uploaded bytes; raises `ModelError` when they are gone."""
        data = self._read("uploads", key)
        if data is None:
            raise ModelError("The uploaded file is not in the store any more. Upload it again.")
        return data

    def put_arrays(self, key: str, arrays: dict[str, np.ndarray], folder: str = "arrays") -> None:
        """Keep named arrays (statistics, outputs of a model) under a fingerprint; no Python objects."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        self._write(folder, key, buffer.getvalue())

    def arrays(self, key: str, folder: str = "arrays") -> dict[str, np.ndarray] | None:
        """The arrays of that fingerprint, or None."""
        body = self._read(folder, key)
        try:
            return None if body is None else self.unpack_arrays(body)
        except _NOT_OURS:
            self._refuse(self._path(folder, key))
            return None

    @staticmethod
    def unpack_arrays(body: bytes) -> dict[str, np.ndarray]:
        """Arrays as `put_arrays` writes them."""
        with np.load(io.BytesIO(body), allow_pickle=False) as file:
            if any(member.compress_type != zipfile.ZIP_STORED for member in file.zip.infolist()):
                raise ValueError("Expected arrays as they are, found compressed ones, which could be of any size.")
            return {name: file[name] for name in file.files}

    def drop_arrays(self, key: str, folder: str = "arrays") -> None:
        """Give their room back before the sweep would: nobody will ask for them again."""
        self._path(folder, key).unlink(missing_ok=True)

    def put_result(self, key: str, result: dict[str, Any]) -> None:
        """Keep a JSON result under a fingerprint."""
        self._write("results", key, json.dumps(result).encode())

    def get_result(self, key: str) -> dict[str, Any] | None:
        """The JSON result of that fingerprint (never change it), or None; also None when a file it names is gone."""
        body = self._read("results", key)
        if body is None:
            return None
        result = _parsed(body)
        for name, folder in (("model", "models"), ("samples", "samples"), ("decoded", "decoded")):
            if is_fingerprint(result.get(name)) and not self._has(folder, result[name]):
                return None
        return result

    # -- pins ----------------------------------------------------------------------------------------------------

    def size_bytes(self, folder: str, key: str) -> int | None:
        """How much room a file takes; None when it is not there."""
        found = _stat(self._path(folder, key))
        return None if found is None else found[1]

    def raw(self, folder: str, key: str) -> bytes | None:
        """A file as it was written, or None."""
        return self._read(folder, key)

    def pin(self, key: str) -> None:
        """Never sweep away the files of this fingerprint."""
        path = self._path(_PINS, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def unpin(self, key: str) -> None:
        """Let the sweep have them again."""
        self._path(_PINS, key).unlink(missing_ok=True)

    def set_pins(self, keys: frozenset[str]) -> None:
        """Pin exactly these; a pin of the last hour stays, as another process may be about to write it down."""
        for key in keys - self._pinned():
            self.pin(key)
        for path in self.home.glob(f"{_PINS}/*/*"):
            if path.name not in keys and _age(path) > _STALE_SECONDS:
                path.unlink(missing_ok=True)

    def _pinned(self) -> set[str]:
        return {path.name for path in self.home.glob(f"{_PINS}/*/*")}

    # -- files ---------------------------------------------------------------------------------------------------

    def _path(self, folder: str, key: str) -> Path:
        if not is_fingerprint(key):
            raise ModelError(f"Expected a fingerprint of 64 hexadecimal digits, found {str(key)[:80]!r}.")
        return self.home / folder / key[:2] / key

    def _has(self, folder: str, key: str) -> bool:
        return is_fingerprint(key) and self._path(folder, key).is_file()

    def _write(self, folder: str, key: str, body: bytes) -> None:
        path = self._path(folder, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _put(path, body, self._parts, durable=folder in _DURABLE)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise StoreError(
                f"The disk of this server is full: {len(body) // 1_000_000 + 1} MB more could not be kept. "
                "Ask whoever runs it to make room."
            ) from None
        with self._lock:
            self._written += len(body)
            due = self._parts is None and self._written > self.limit_bytes // 20
            self._written = 0 if due else self._written
        if due:
            self.sweep()

    def _read(self, folder: str, key: str) -> bytes | None:
        path = self._path(folder, key)
        try:
            data = path.read_bytes()
            os.utime(path)  # last use, for the sweep
        except OSError:
            return None
        body = data[_DIGEST:]
        if (
            _model_key(body) == key
            if folder == "models"
            else hashlib.sha256(body).hexdigest().encode() == data[:_DIGEST]
        ):
            return body
        self._refuse(path)
        return None

    def _refuse(self, path: Path) -> None:
        """Remove a file that is not what it says, so that a job that may only add can bring it anew."""
        if self._parts is None:
            path.unlink(missing_ok=True)

    def sweep(self) -> int:
        """Remove the files that were not used for longest until the store fits its limit; returns how many went."""
        pinned = self._pinned()
        paths = [path for path in self.home.glob("*/*/*") if path.parent.parent.name != _PINS]
        files = sorted((entry for path in paths if (entry := _stat(path))), key=lambda e: e[0])
        total, removed = sum(size for _, size, _ in files), 0
        for _, size, path in files:
            stale = path.name.startswith(_PART) and _age(path) > _STALE_SECONDS
            if path.name in pinned or (total <= self.limit_bytes and not stale):
                continue
            path.unlink(missing_ok=True)
            total -= size
            removed += 1
        return removed


def _put(path: Path, body: bytes, parts: Path | None, durable: bool) -> None:
    """Put a file in its place whole; when it is to be durable, on the disk and not only on its way there."""
    handle, name = tempfile.mkstemp(dir=parts or path.parent, prefix=_PART)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(body).hexdigest().encode())
            file.write(body)
            file.flush()
            if durable:
                os.fsync(file.fileno())
            _move(Path(name), path, may_stay=parts is not None)
            if durable and parts is not None:  # it may not open the folder; journals write the new name with the file
                os.fsync(file.fileno())
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    if durable and parts is None:
        _sync_folder(path.parent)


def _move(file: Path, path: Path, may_stay: bool) -> None:
    try:
        os.replace(file, path)
    except PermissionError:
        if not may_stay or not path.exists():
            raise
        file.unlink()  # a job that may only add: what has this name has this content, or is refused when it is read
        os.utime(path)


def _sync_folder(path: Path) -> None:
    """A rename is in the folder's own data."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _stat(path: Path) -> tuple[float, int, Path] | None:
    try:
        info = path.stat()
    except OSError:  # another process swept it away
        return None
    return info.st_mtime, info.st_size, path


def _age(path: Path) -> float:
    found = _stat(path)
    return 0.0 if found is None else time.time() - found[0]
