"""A whole workspace as one file: a zip with a manifest, the attempts, and every upload by its digest.

What is read may come from anybody: names come from the manifest's digests only, sizes are counted while reading, models
pass the same checks as an upload, sample sets are looked at before they are kept. Run `read` in a worker.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lwcore.errors import LwcoreError, WorkspaceError
from lwcore.fields import check_fields
from lwcore.model import Card, Model
from lwcore.progress import Progress, part
from lwcore.samples import SampleSet
from lwcore.scenarios import Attempt
from lwcore.settings import SETTINGS
from lwcore.store import Store, is_fingerprint
from lwcore.workspaces.owned import FOLDERS, Owned

FORMAT, VERSION = "slimlab-workspace", 1
_MANIFEST, _ATTEMPTS, _CHOICES = "manifest.json", "attempts.json", "choices.json"
_MEMBERS = 500
_TEXT_BYTES = 64_000_000  # of one of the three texts, unpacked
_BESIDE_BYTES = 64_000_000  # of the files that travel with a model
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_ZERO_DATE = (1980, 1, 1, 0, 0, 0)


def write(store: Store, files: Sequence[Owned], attempts: Sequence[Attempt], choices: Mapping[str, Any]) -> bytes:
    """Make the file; equal workspaces make equal bytes.

    Raises:
        WorkspaceError: it would be larger than what can be brought back, or a file is gone from the store.
    """
    limit = SETTINGS.upload_mb * 1_000_000
    total = sum(file.size_bytes for file in {file.key: file for file in files}.values())
    if total > limit:
        raise WorkspaceError(
            f"Expected uploads of at most {SETTINGS.upload_mb} MB in one file, found {total // 1_000_000} MB. "
            "Remove one under Take home first."
        )
    buffer = io.BytesIO()
    listed = []
    with zipfile.ZipFile(buffer, "w") as archive:
        for file in files:
            body = store.raw(FOLDERS[file.kind], file.key)
            if body is None:
                raise WorkspaceError(f"{file.name!r} is not in the store (any more). Remove it, then export again.")
            path = f"{FOLDERS[file.kind]}/{file.key}"
            if path not in archive.namelist():
                _put(archive, path, body, zipfile.ZIP_STORED)
            listed.append(
                {"kind": file.kind, "key": file.key, "model": file.model, "sha256": hashlib.sha256(body).hexdigest()}
            )
        head = {"format": FORMAT, "version": VERSION, "files": listed}
        texts = ((_MANIFEST, head), (_ATTEMPTS, [a.to_json() for a in attempts]), (_CHOICES, dict(choices)))
        for name, content in texts:
            _put(archive, name, json.dumps(content, sort_keys=True).encode(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _put(archive: zipfile.ZipFile, name: str, body: bytes, how: int) -> None:
    archive.writestr(zipfile.ZipInfo(name, _ZERO_DATE), body, how)


def read(data: bytes, store: Store, progress: Progress) -> dict[str, Any]:
    """Read what `write` made: its uploads go into the store.

    Returns:
        `files` (kind, key, model, about), `attempts` (JSON) and `choices`, all checked, names in the store put right.

    Raises:
        WorkspaceError: it is no exported workspace, or a part of it cannot be used.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read(_Members(archive), store, progress)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, UnicodeDecodeError, RecursionError):
        raise _wrong("a file that is no whole zip archive") from None


def _read(members: _Members, store: Store, progress: Progress) -> dict[str, Any]:
    head = members.text(_MANIFEST)
    if not isinstance(head, dict) or (head.get("format"), head.get("version")) != (FORMAT, VERSION):
        raise _wrong(f"{str(head)[:80]!r} as its manifest")
    listed = head.get("files")
    if not isinstance(listed, list) or not all(_is_entry(entry) for entry in listed):
        raise _wrong("a list of files that is none")
    members.expect({f"{FOLDERS[entry['kind']]}/{entry['key']}" for entry in listed})
    renamed: dict[str, str] = {}
    files = []
    for i, entry in enumerate(sorted(listed, key=lambda e: str(e["kind"]))):  # models first
        body = members.bytes(f"{FOLDERS[entry['kind']]}/{entry['key']}", SETTINGS.upload_mb * 1_000_000)
        if hashlib.sha256(body).hexdigest() != entry["sha256"]:
            raise _wrong(f"a file whose digest is another than the manifest's ({entry['key'][:12]})")
        step = part(progress, i / len(listed), (i + 1) / len(listed))
        step(0.0, "Reading the file")
        kept = _model(body, store) if entry["kind"] == "model" else _samples(body, store)
        renamed[entry["key"]] = kept["key"]
        files.append({**kept, "kind": entry["kind"], "model": renamed.get(entry["model"], entry["model"])})
    attempts = [_attempt(item, renamed).to_json() for item in _list(members.text(_ATTEMPTS))]
    choices = members.text(_CHOICES)
    return {"files": files, "attempts": attempts, "choices": _renamed(choices, renamed)}


class _Members:
    """The members of an archive by name, each read once and never more of it than is allowed."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        infos = archive.infolist()
        if len(infos) > _MEMBERS:
            raise _wrong(f"{len(infos):,} members in the archive (at most {_MEMBERS})")
        self._archive = archive
        self._infos = {info.filename: info for info in infos}
        if len(self._infos) != len(infos):
            raise _wrong("two members of one name")

    def expect(self, names: set[str]) -> None:
        """Refuse an archive with anything else in it."""
        strange = self._infos.keys() - names - {_MANIFEST, _ATTEMPTS, _CHOICES}
        if strange:
            raise _wrong(f"a member that is not in its manifest ({min(strange)[:60]!r})")

    def bytes(self, name: str, limit: int) -> bytes:
        """One member, at most so many bytes of it."""
        info = self._infos.get(name)
        if info is None:
            raise _wrong(f"no {name[:60]!r} in it")
        if info.flag_bits & 1:
            raise _wrong("an encrypted member")
        with self._archive.open(info) as file:
            body = file.read(limit + 1)
        if len(body) > limit:
            raise _wrong(f"more than {limit // 1_000_000} MB in {name[:60]!r}")
        return body

    def text(self, name: str) -> Any:
        """One member as JSON."""
        try:
            return json.loads(self.bytes(name, _TEXT_BYTES))
        except ValueError:
            raise _wrong(f"something other than JSON in {name!r}") from None


def _wrong(found: str) -> WorkspaceError:
    return WorkspaceError(f"Expected a workspace that was exported under Take home, found {found}. Export it again.")


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > SETTINGS.attempts:
        raise _wrong("a list of attempts that is none, or too long")
    return value


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and entry.get("kind") in FOLDERS
        and is_fingerprint(entry.get("key"))
        and isinstance(entry.get("model"), str)
        and isinstance(entry.get("sha256"), str)
    )


def _model(body: bytes, store: Store) -> dict[str, Any]:
    """A model passes the same checks as an upload, and is read anew: its bytes are not taken on trust."""
    from lwcore.sources.upload import read_upload

    try:
        stored = Store.unpack_model(body)
        card = stored.card
    except (KeyError, TypeError, ValueError, AttributeError, LwcoreError) as error:
        raise _wrong(f"a model that cannot be read ({type(error).__name__})") from None
    if not all(_NAME.fullmatch(name) for name in stored.files):
        raise _wrong("a file beside a model whose name is none")
    if sum(map(len, stored.files.values())) > _BESIDE_BYTES:
        raise _wrong("too much beside a model")
    fresh = read_upload(stored.data, card.name)
    made = Model(
        data=fresh.data, card=Card.from_json(card.to_json(), fresh.card), notes=stored.notes, files=stored.files
    )
    return {"key": store.put_model(made), "about": {"name": card.name}}


def _samples(body: bytes, store: Store) -> dict[str, Any]:
    try:
        found = Store.unpack_samples(Store.unpack_arrays(body))
        _check_samples(found)
    except (KeyError, TypeError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise _wrong(f"a sample set that cannot be read ({type(error).__name__})") from None
    about = {"name": found.name, "n": len(found), "labelled": found.labels is not None, "notes": list(found.notes)}
    return {"key": store.put_samples(found), "about": about}


def _check_samples(found: SampleSet) -> None:
    """Raise `ValueError` unless the arrays are numbers, as many samples in each, and labels and names fit them."""
    arrays = [*found.arrays.values(), *([] if found.labels is None else [found.labels])]
    if not arrays or any(not array.ndim or array.dtype.kind not in "uifb" for array in arrays):
        raise ValueError("arrays")
    if len({len(array) for array in arrays}) != 1 or len(found) < 1 or len(found.names) not in (0, len(found)):
        raise ValueError("lengths")
    labels = found.labels
    if labels is not None and (labels.dtype.kind not in "ui" or labels.ndim != 1 or labels.min() < 0):
        raise ValueError("labels")
    if not all(isinstance(text, str) for text in (found.name, *found.names, *found.notes)):
        raise ValueError("texts")


def _attempt(item: Any, renamed: Mapping[str, str]) -> Attempt:
    try:
        found = Attempt.from_json(item)
        for known in (found.evaluation, found.before, found.after):
            check_fields(known)
    except LwcoreError as error:
        raise WorkspaceError(f"An attempt in this workspace cannot be read: {error}") from None
    texts = (found.model, found.samples, found.slimmed, *found.notes)
    plain = isinstance(found.seconds, (int, float)) and all(isinstance(text, str) for text in texts)
    if not plain or not all(isinstance(cause, Mapping) for cause in found.causes):
        raise _wrong("an attempt with values of another kind")
    return replace(
        found,
        model=renamed.get(found.model, found.model),
        samples=renamed.get(found.samples, found.samples),
        number=0,
    )


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """JSON with fingerprints replaced, as keys and as values."""
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    if isinstance(value, dict):
        return {names.get(key, key): _renamed(item, names) for key, item in value.items()}
    return value
