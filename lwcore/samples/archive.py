"""Zips and folders of pictures: class folders (labelled) or loose pictures (unlabelled), read member by member.

An archive that tries something (links, names that leave it, encryption, archives inside) is refused as a whole; a
single picture that cannot be read is left out and named in the notes.
"""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from lwcore.errors import SampleError
from lwcore.model import Card
from lwcore.progress import Progress, silent
from lwcore.samples import SampleSet
from lwcore.samples.labels import label_folders
from lwcore.samples.pictures import read_picture
from lwcore.settings import SETTINGS

PIXEL_MB = 256  # decoded pictures of one set, in memory
_NAMED = 8  # pictures named one by one in the notes
_CHUNK = 1 << 20
_ARCHIVES = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"BZh", b"\xfd7zXZ\x00")
_PICTURE_NAMES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"})


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A picture that may be read: its path inside the archive or folder, and how to get its bytes."""

    path: PurePosixPath
    read: Callable[[], bytes]


def read_zip(data: bytes, card: Card, name: str = "pictures", progress: Progress = silent) -> SampleSet:
    """Read a zip of pictures, in memory, resized to the model's input.

    Args:
        data: the archive.
        card: of the model that will read the pictures: input size, colours, class names.
        name: of the sample set, for people.
        progress: told the share done.

    Raises:
        SampleError: no zip, one that is refused as a whole, or one without a readable picture.
    """
    if len(data) > SETTINGS.upload_mb * 1_000_000:
        raise SampleError(f"Expected a zip of at most {SETTINGS.upload_mb} MB, found {len(data) // 1_000_000} MB.")
    if data.count(b"PK\x01\x02") > SETTINGS.archive_files:  # before a directory of millions is unpacked into objects
        raise SampleError(f"Expected a zip of at most {SETTINGS.archive_files} files, found more. Send fewer pictures.")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read(list(_zip_entries(archive)), card, name, progress)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, RuntimeError) as error:
        raise SampleError(f"Expected a zip of pictures, found something that cannot be unpacked ({error}).") from None


def read_folder(folder: Path, card: Card, name: str | None = None, progress: Progress = silent) -> SampleSet:
    """Read a folder of pictures or of class folders, resized to the model's input; raises `SampleError`."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix.lower() in _PICTURE_NAMES)
    entries = [_Entry(path=PurePosixPath(folder.name, *p.relative_to(folder).parts), read=p.read_bytes) for p in files]
    return _read([e for e in entries if not _is_litter(e.path)], card, name or folder.name, progress)


# -- the archive ---------------------------------------------------------------------------------------------------


def _zip_entries(archive: zipfile.ZipFile) -> Iterator[_Entry]:
    budget = _Budget(SETTINGS.archive_mb * 1_000_000)
    for member in sorted(archive.infolist(), key=lambda m: m.filename):
        path = _checked_path(member)
        if not member.is_dir() and not _is_litter(path):
            yield _Entry(path=path, read=lambda m=member: _member_bytes(archive, m, budget))  # type: ignore[misc]


def _checked_path(member: zipfile.ZipInfo) -> PurePosixPath:
    name = member.filename
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name.split("/")[0]:
        raise SampleError(f"Expected names that stay inside the zip, found {name[:80]!r}. Zip the folder anew.")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise SampleError(f"Expected pictures in the zip, found the link {name[:80]!r}. Zip the files themselves.")
    if member.flag_bits & 0x1:
        raise SampleError(f"Expected a zip without a password, found the encrypted {name[:80]!r}.")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise SampleError(f"Expected an ordinary zip (stored or deflated), found another compression of {name[:80]!r}.")
    return path


def _is_litter(path: PurePosixPath) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in path.parts) or path.name.lower() == "thumbs.db"


@dataclass
class _Budget:
    """Unpacked bytes that are still allowed, whatever the archive's directory claims."""

    left: int

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise SampleError(f"Expected at most {SETTINGS.archive_mb} MB of pictures in the zip, found more.")


def _member_bytes(archive: zipfile.ZipFile, member: zipfile.ZipInfo, budget: _Budget) -> bytes:
    parts = []
    with archive.open(member) as file:
        while chunk := file.read(_CHUNK):
            budget.take(len(chunk))
            parts.append(chunk)
    data = b"".join(parts)
    if data.startswith(_ARCHIVES):
        raise SampleError(f"Expected pictures in the zip, found the archive {member.filename[:80]!r}. Unpack it first.")
    return data


# -- the pictures --------------------------------------------------------------------------------------------------


def _read(entries: list[_Entry], card: Card, name: str, progress: Progress) -> SampleSet:
    if len(entries) > SETTINGS.archive_files:
        raise SampleError(f"Expected at most {SETTINGS.archive_files} pictures, found {len(entries)}. Send fewer.")
    labels, notes = label_folders([e.path for e in entries], card.classes)
    if labels is not None:
        entries = [e for e, label in zip(entries, labels, strict=True) if label is not None]
        labels = [label for label in labels if label is not None]
    chosen = _affordable(len(entries), card)
    if len(chosen) < len(entries):
        notes.append(f"{len(chosen)} of {len(entries)} pictures are used, evenly spread; more do not fit in memory.")
    pixels, good, skipped = _decode([entries[i] for i in chosen], card, progress)
    if not good:
        reason = f" The first: {skipped[0]}." if skipped else ""
        raise SampleError(f"Expected JPEG, PNG, WebP, BMP or GIF pictures, found none that can be read.{reason}")
    kept = [chosen[i] for i in good]
    return SampleSet(
        name=name,
        pixels=pixels,
        names=tuple(_display(entries[i].path) for i in kept),
        labels=None if labels is None else np.array([labels[i] for i in kept], np.int64),
        notes=(*notes, *_skipped_notes(skipped)),
    )


def _affordable(count: int, card: Card) -> list[int]:
    height, width = card.input.size
    most = max(1, int(PIXEL_MB * 1_000_000) // (height * width * card.input.channels))
    return list(range(count)) if count <= most else [i * count // most for i in range(most)]


def _decode(entries: list[_Entry], card: Card, progress: Progress) -> tuple[np.ndarray, list[int], list[str]]:
    """Pixels of the readable pictures, their positions, and what is wrong with the others."""
    pixels = np.empty((len(entries), *card.input.size, card.input.channels), np.uint8)
    good: list[int] = []
    skipped: list[str] = []
    for i, entry in enumerate(entries):
        try:
            pixels[len(good)] = _picture(entry, card)
            good.append(i)
        except _Unreadable as error:
            skipped.append(f"{_display(entry.path)}: {error}")
        progress((i + 1) / len(entries), f"Reading picture {i + 1} of {len(entries)}")
    return pixels[: len(good)], good, skipped


class _Unreadable(Exception):
    """One bad picture; the others go on."""


def _picture(entry: _Entry, card: Card) -> np.ndarray:
    try:
        data = entry.read()
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise _Unreadable(f"damaged in the archive ({error})") from None
    try:
        return read_picture(data, card.input)
    except SampleError as error:
        raise _Unreadable(str(error)) from None


def _skipped_notes(skipped: list[str]) -> list[str]:
    notes = [f"Left out {line}." for line in skipped[:_NAMED]]
    if len(skipped) > _NAMED:
        notes.append(f"Left out {len(skipped) - _NAMED} more files that could not be read as pictures.")
    return notes


def _display(path: PurePosixPath) -> str:
    return "/".join(path.parts[-2:])[-120:]
