"""Texts: CSV, TSV and JSONL files with a column `text` and, where the answers are known, `label`; or one a line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence

import numpy as np

from lwcore.errors import SampleError
from lwcore.progress import Progress, silent
from lwcore.samples import SampleSet
from lwcore.settings import SETTINGS

LONGEST = 4096  # bytes of a text that are kept: more than any model here reads
_TEXT = ("text", "sentence", "content", "message", "body", "review")
_LABEL = ("label", "class", "category", "target")
_NAMED = 6

Row = tuple[str, str | None]


def sample_set(texts: Sequence[str], labels: np.ndarray | None, name: str, notes: Sequence[str] = ()) -> SampleSet:
    """Texts as a sample set; `arrays["text"]` holds them as UTF-8, of one width."""
    kept = [_cut(text) for text in texts]
    width = max((len(text) for text in kept), default=1)
    return SampleSet(
        name=name,
        arrays={"text": np.array(kept, dtype=f"S{max(1, width)}")},
        labels=labels,
        names=tuple(f"{name} {i + 1}" for i in range(len(kept))),
        notes=tuple(notes),
    )


def read_texts(data: bytes, classes: Sequence[str], name: str, progress: Progress = silent) -> SampleSet:
    """Read a file of texts.

    Args:
        data: the file: JSONL when its first line is an object, else CSV or TSV with a heading, else one text a line.
        classes: names of the model's classes; labels are such names or their numbers.
        name: of the sample set, for people.
        progress: told the share done.

    Raises:
        SampleError: it is no such file, too large, or there is no text in it.
    """
    if len(data) > SETTINGS.upload_mb * 1_000_000:
        raise SampleError(f"Expected a file of at most {SETTINGS.upload_mb} MB, found {len(data) // 1_000_000} MB.")
    progress(0.1, "Reading the texts")
    rows, notes = _limited(_rows(_decoded(data)))
    labels, kept, said = _labels([label for _, label in rows], classes)
    texts = [rows[i][0] for i in kept]
    if not texts:
        raise SampleError("Expected at least one text, found none. Give a CSV, TSV or JSONL file with a column `text`.")
    long = sum(len(text.encode()) > LONGEST for text in texts)
    if long:
        notes.append(f"Texts cut off at {LONGEST:,} bytes, more than the model reads: {long}.")
    return sample_set(texts, labels, name, [*notes, *said])


def _decoded(data: bytes) -> str:
    if b"\0" in data[:4096] or data[:2] == b"PK":
        raise SampleError("Expected a CSV, TSV or JSONL file, found one that is no text. Save the table as CSV.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _rows(text: str) -> Iterator[Row]:
    """(text, label or None) of every row."""
    first = text.lstrip().splitlines()[0] if text.strip() else ""
    if first.startswith("{"):
        yield from _json_rows(text)
        return
    delimiter = next((mark for mark in ("\t", ",", ";") if _column(first.split(mark), _TEXT) is not None), None)
    if delimiter is None:
        yield from ((line.strip(), None) for line in text.splitlines())
        return
    table = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        heading = next(table)
        place, answer = _column(heading, _TEXT), _column(heading, _LABEL)
        for row in table:
            if place is not None and len(row) > place:
                yield row[place].strip(), row[answer].strip() if answer is not None and len(row) > answer else None
    except csv.Error as error:
        raise SampleError(f"Expected a table as CSV or TSV, found one that cannot be read ({error}).") from None


def _column(heading: Sequence[str], names: Sequence[str]) -> int | None:
    plain = [cell.strip().strip('"').casefold() for cell in heading]
    return next((plain.index(name) for name in names if name in plain), None)


def _json_rows(text: str) -> Iterator[Row]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            words = next(str(row[name]) for name in _TEXT if name in row)
        except (ValueError, RecursionError, TypeError, StopIteration):
            raise SampleError(
                f'Line {number}: expected an object such as {{"text": "…", "label": "…"}}, found {line[:60]!r}.'
            ) from None
        label = next((row[name] for name in _LABEL if row.get(name) is not None), None)
        yield words.strip(), None if label is None else str(label)


def _limited(rows: Iterator[Row]) -> tuple[list[Row], list[str]]:
    """At most so many rows that have a text."""
    found: list[Row] = []
    for row in rows:
        if not row[0]:
            continue
        if len(found) == SETTINGS.archive_files:
            return found, [f"Only the first {SETTINGS.archive_files:,} texts were read."]
        found.append(row)
    return found, []


def _labels(given: Sequence[str | None], classes: Sequence[str]) -> tuple[np.ndarray | None, list[int], list[str]]:
    """Class indexes, the rows that are kept, and notes; no labels where none is the name or number of a class."""
    known = {_plain(name): i for i, name in enumerate(classes)} | {str(i): i for i in range(len(classes))}
    found = [None if label is None else known.get(_plain(label)) for label in given]
    every = list(range(len(given)))
    if all(index is None for index in found):
        strange = sorted({label for label in given if label is not None})[:_NAMED]
        if not strange or not classes:
            return None, every, []
        names = ", ".join(label[:40] for label in strange)
        return None, every, [f"No label is a class of the model ({names}), so the texts count as unlabelled."]
    kept = [i for i in every if found[i] is not None]
    left_out = len(every) - len(kept)
    notes = [f"Left out {left_out} texts whose label is no class of the model."] if left_out else []
    return np.array([found[i] for i in kept], np.int64), kept, notes


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum()) or name


def _cut(text: str) -> bytes:
    data = text.replace("\0", " ").encode("utf-8", "replace")
    return data if len(data) <= LONGEST else data[:LONGEST].decode("utf-8", "ignore").encode()
