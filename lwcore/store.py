"""`Store`: content-addressed files and JSON results on disk, shared by the web server and its workers.

Every file carries the SHA-256 of what follows it and is put in place by an atomic rename, so a reader sees a whole file
or none; a damaged file counts as missing. The oldest files (by last use) go when the store outgrows its limit.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np

from lwcore.errors import ModelError, SampleError
from lwcore.model import Card, Model
from lwcore.samples import SampleSet
from lwcore.settings import SETTINGS

LIMIT_MB = 4096
_DIGEST = 64  # hexadecimal digits of a SHA-256
_HEX = re.compile(r"[0-9a-f]{64}")


def digest(*parts: bytes) -> str:
    """SHA-256 of the parts, hexadecimal; their lengths count, so that no two lists of parts run into each other."""
    total = hashlib.sha256()
    for part in parts:
        total.update(f"{len(part)}:".encode())
        total.update(part)
    return total.hexdigest()


def is_fingerprint(text: object) -> bool:
    """Whether a text is a fingerprint of this store; nothing else ever becomes a part of a path."""
    return isinstance(text, str) and _HEX.fullmatch(text) is not None


class Store:
    """Models, sample sets, uploads, arrays and JSON results by fingerprint; safe for several threads and processes.

    Args:
        home: the folder; `SETTINGS.home` when None.
        limit_mb: the files together, before the oldest are removed.
    """

    def __init__(self, home: str | Path | None = None, limit_mb: int = LIMIT_MB) -> None:
        self.home = Path(home or SETTINGS.home) / "store"
        self.limit_bytes = limit_mb * 1_000_000
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
        if arrays is None:
            raise SampleError(
                f"Expected the fingerprint of a stored sample set, found {str(key)[:12]!r}, which is "
                "not in the store (any more). Choose or upload the samples again."
            )
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
        if body is None:
            return None
        with np.load(io.BytesIO(body), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    def put_result(self, key: str, result: dict[str, Any]) -> None:
        """Keep a JSON result under a fingerprint."""
        self._write("results", key, json.dumps(result).encode())

    def get_result(self, key: str) -> dict[str, Any] | None:
        """The JSON result of that fingerprint, or None; also None when a model or sample set it names is gone."""
        body = self._read("results", key)
        if body is None:
            return None
        result: dict[str, Any] = json.loads(body)
        for name, has in (("model", self.has_model), ("samples", self.has_samples)):
            if is_fingerprint(result.get(name)) and not has(result[name]):
                return None
        return result

    # -- files ---------------------------------------------------------------------------------------------------

    def _path(self, folder: str, key: str) -> Path:
        if not is_fingerprint(key):
            raise ModelError(f"Expected a fingerprint of 64 hexadecimal digits, found {str(key)[:80]!r}.")
        return self.home / folder / key[:2] / key

    def _has(self, folder: str, key: str) -> bool:
        return is_fingerprint(key) and self._path(folder, key).is_file()

    def _write(self, folder: str, key: str, body: bytes) -> None:
        path = self._path(folder, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(body).hexdigest().encode())
                file.write(body)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        with self._lock:
            self._written += len(body)
            due = self._written > self.limit_bytes // 20
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
        return body if hashlib.sha256(body).hexdigest().encode() == data[:_DIGEST] else None

    def sweep(self) -> int:
        """Remove the files that were not used for longest until the store fits its limit; returns how many went."""
        files = sorted((entry for path in self.home.glob("*/*/*") if (entry := _stat(path))), key=lambda e: e[0])
        total, removed = sum(size for _, size, _ in files), 0
        for _, size, path in files:
            if total <= self.limit_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size
            removed += 1
        return removed


def _stat(path: Path) -> tuple[float, int, Path] | None:
    try:
        info = path.stat()
    except OSError:  # another process swept it away
        return None
    return info.st_mtime, info.st_size, path
