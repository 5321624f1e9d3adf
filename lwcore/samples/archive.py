"""Zips and folders of pictures or clips: class folders (labelled) or loose files (unlabelled), read member by member.

An archive that tries something (links, names that leave it, encryption, archives inside) is refused as a whole; a
single file that cannot be read is left out and named in the notes.
"""

from __future__ import annotations

import io
import math
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lwcore.errors import SampleError
from lwcore.model import Card, ClipSpec, InputSpec
from lwcore.progress import Progress, silent
from lwcore.samples import SampleSet
from lwcore.samples.clips import read_clip
from lwcore.samples.labels import label_folders
from lwcore.samples.pictures import read_picture
from lwcore.settings import SETTINGS

PIXEL_MB = 256  # decoded pictures or clips of one set, in memory
_NAMED = 8  # files named one by one in the notes
_CHUNK = 1 << 20
_ARCHIVES = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"BZh", b"\xfd7zXZ\x00")


@dataclass(frozen=True, kw_only=True)
class Medium:
    """What the files of an archive are.

    Attributes:
        one, many: its name in messages.
        formats: that can be read, in words.
        endings: of such files in a folder.
        decode: one file's bytes → one sample, uint8; raises `SampleError`.
    """

    one: str
    many: str
    formats: str
    endings: tuple[str, ...]
    decode: Callable[[bytes, Any], np.ndarray]


PICTURES = Medium(
    one="picture",
    many="pictures",
    formats="JPEG, PNG, WebP, BMP or GIF",
    endings=("jpg", "jpeg", "png", "webp", "bmp", "gif"),
    decode=read_picture,
)
CLIPS = Medium(
    one="clip",
    many="clips",
    formats="MP4, WebM or GIF",
    endings=("mp4", "m4v", "mov", "webm", "mkv", "gif"),
    decode=read_clip,
)


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A file that may be read: its path inside the archive or folder, and how to get its bytes."""

    path: PurePosixPath
    read: Callable[[], bytes]


def medium(card: Card) -> Medium:
    """What a model reads: pictures or clips."""
    return CLIPS if isinstance(card.input, ClipSpec) else PICTURES


def read_zip(data: bytes, card: Card, name: str = "", progress: Progress = silent) -> SampleSet:
    """Read a zip of pictures or clips, in memory, resized to the model's input.

    Args:
        data: the archive.
        card: of the model that will read them: input size, colours, class names.
        name: of the sample set, for people.
        progress: told the share done.

    Raises:
        SampleError: no zip, one that is refused as a whole, or one without a readable file.
    """
    many = medium(card).many
    if len(data) > SETTINGS.upload_mb * 1_000_000:
        raise SampleError(f"Expected a zip of at most {SETTINGS.upload_mb} MB, found {len(data) // 1_000_000} MB.")
    if data.count(b"PK\x01\x02") > SETTINGS.archive_files:  # before a directory of millions is unpacked into objects
        raise SampleError(f"Expected a zip of at most {SETTINGS.archive_files} files, found more. Send fewer {many}.")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read(list(_zip_entries(archive)), card, name, progress)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, RuntimeError, IndexError) as error:
        # IndexError: a member without a name
        raise SampleError(f"Expected a zip of {many}, found something that cannot be unpacked ({error}).") from None


def read_folder(folder: Path, card: Card, name: str | None = None, progress: Progress = silent) -> SampleSet:
    """Read a folder of pictures or clips, or of class folders, resized to the model's input; raises `SampleError`."""
    endings = medium(card).endings
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix.lower().removeprefix(".") in endings)
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
        raise SampleError(f"Expected files in the zip, found the link {name[:80]!r}. Zip the files themselves.")
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
            raise SampleError(f"Expected at most {SETTINGS.archive_mb} MB of files in the zip, found more.")


def _member_bytes(archive: zipfile.ZipFile, member: zipfile.ZipInfo, budget: _Budget) -> bytes:
    parts = []
    with archive.open(member) as file:
        while chunk := file.read(_CHUNK):
            budget.take(len(chunk))
            parts.append(chunk)
    data = b"".join(parts)
    if data.startswith(_ARCHIVES):
        raise SampleError(f"Expected files in the zip, found the archive {member.filename[:80]!r}. Unpack it first.")
    return data


# -- the files -----------------------------------------------------------------------------------------------------


def _read(entries: list[_Entry], card: Card, name: str, progress: Progress) -> SampleSet:
    kind = medium(card)
    if len(entries) > SETTINGS.archive_files:
        raise SampleError(f"Expected at most {SETTINGS.archive_files} {kind.many}, found {len(entries)}. Send fewer.")
    labels, notes = label_folders([e.path for e in entries], card.classes, kind.many)
    if labels is not None:
        entries = [e for e, label in zip(entries, labels, strict=True) if label is not None]
        labels = [label for label in labels if label is not None]
    chosen = _affordable(len(entries), card)
    if len(chosen) < len(entries):
        notes.append(f"{len(chosen)} of {len(entries)} {kind.many} are used, evenly spread; more do not fit in memory.")
    pixels, good, skipped = _decode([entries[i] for i in chosen], card, progress)
    if not good:
        reason = f" The first: {skipped[0]}." if skipped else ""
        raise SampleError(f"Expected {kind.formats} {kind.many}, found none that can be read.{reason}")
    kept = [chosen[i] for i in good]
    return SampleSet(
        name=name or f"Your {kind.many}",
        arrays={"pixels": pixels},
        names=tuple(_display(entries[i].path) for i in kept),
        labels=None if labels is None else np.array([labels[i] for i in kept], np.int64),
        notes=(*notes, *_skipped_notes(skipped, kind)),
    )


def _affordable(count: int, card: Card) -> list[int]:
    most = max(1, int(PIXEL_MB * 1_000_000) // math.prod(_shape(card.pictures)))
    return list(range(count)) if count <= most else [i * count // most for i in range(most)]


def _shape(spec: InputSpec) -> tuple[int, ...]:
    """(H, W, C) of a picture, (T, H, W, C) of a clip."""
    frames = (spec.frames,) if isinstance(spec, ClipSpec) else ()
    return (*frames, *spec.size, spec.channels)


def _decode(entries: list[_Entry], card: Card, progress: Progress) -> tuple[np.ndarray, list[int], list[str]]:
    """Pixels of the readable files, their positions, and what is wrong with the others."""
    pixels = np.empty((len(entries), *_shape(card.pictures)), np.uint8)
    good: list[int] = []
    skipped: list[str] = []
    for i, entry in enumerate(entries):
        try:
            pixels[len(good)] = _sample(entry, card)
            good.append(i)
        except _Unreadable as error:
            skipped.append(f"{_display(entry.path)}: {error}")
        progress((i + 1) / len(entries), f"Reading {medium(card).one} {i + 1} of {len(entries)}")
    return pixels[: len(good)], good, skipped


class _Unreadable(Exception):
    """One bad file; the others go on."""


def _sample(entry: _Entry, card: Card) -> np.ndarray:
    try:
        data = entry.read()
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise _Unreadable(f"damaged in the archive ({error})") from None
    try:
        return medium(card).decode(data, card.pictures)
    except SampleError as error:
        raise _Unreadable(str(error)) from None


def _skipped_notes(skipped: list[str], kind: Medium) -> list[str]:
    notes = [f"Left out {line}." for line in skipped[:_NAMED]]
    if len(skipped) > _NAMED:
        notes.append(f"Left out {len(skipped) - _NAMED} more files that could not be read as {kind.many}.")
    return notes


def _display(path: PurePosixPath) -> str:
    return "/".join(path.parts[-2:])[-120:]
