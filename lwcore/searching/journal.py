"""The journal of a search: one JSON line a trial, appended as it is measured, so that nothing is measured twice.

A search that was cancelled, killed or cut off in the middle of a line goes on from here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lwcore.errors import LwcoreError, SearchError
from lwcore.kept import versions
from lwcore.searching.space import Choice
from lwcore.searching.trials import Trial
from lwcore.slimming.budget.allocate import Sensitivity
from lwcore.store import digest

if TYPE_CHECKING:
    from lwcore.store import Store


_START = b'{"key": '  # of every line


class Journal:
    """Trials and the sensitivity they share, by key; in a file where a path is given, else as long as this object."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._trials: dict[str, tuple[Choice, Trial]] = {}
        self._sensitivities: dict[str, Sensitivity] = {}
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            _check_journal(path)
            _end_line(path)
            for entry in _entries(path):
                self._read(entry)

    def _read(self, entry: Mapping[str, Any]) -> None:
        """Take a line in; one that another version of lwcore wrote, with other fields, counts as never written."""
        with suppress(LookupError, TypeError, ValueError, LwcoreError):
            if "trial" in entry:
                self._trials[entry["key"]] = Choice(**entry["choice"]), Trial.from_json(entry["trial"])
            else:
                self._sensitivities[entry["key"]] = Sensitivity.from_json(entry["sensitivity"])

    def get(self, key: str) -> Trial | None:
        """The trial of that key, or None."""
        return self._trials[key][1] if key in self._trials else None

    def items(self) -> list[tuple[str, Choice, Trial]]:
        """Key, choice and trial in the order in which they were written."""
        return [(key, *pair) for key, pair in self._trials.items()]

    def add(self, key: str, choice: Choice, trial: Trial) -> None:
        """Write a trial down."""
        self._trials[key] = choice, trial
        self._write({"key": key, "choice": asdict(choice), "trial": trial.to_json()})

    def sensitivity(self, key: str) -> Sensitivity | None:
        """The sensitivity of that problem, or None."""
        return self._sensitivities.get(key)

    def add_sensitivity(self, key: str, found: Sensitivity) -> None:
        """Write the sensitivity of a problem down."""
        self._sensitivities[key] = found
        self._write({"key": key, "sensitivity": found.to_json()})

    def _write(self, entry: Mapping[str, Any]) -> None:
        """One write, so that readers see whole lines."""
        if self._path is not None:
            with self._path.open("ab") as file:
                file.write(json.dumps(entry).encode() + b"\n")

    def __len__(self) -> int:
        """How many trials there are."""
        return len(self._trials)


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    """Whole lines in order; one that was cut off in the middle counts as never written."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("key"), str):
            yield entry


def _check_journal(path: Path) -> None:
    """Refuse to write into a file that is something else; raises `SearchError`."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        start = file.read(len(_START))
    if not _START.startswith(start):
        raise SearchError(f"journal: expected a new file or the journal of an earlier search, found another: {path}.")


def _end_line(path: Path) -> None:
    """A line that was cut off gets its end, so that the next one starts afresh."""
    if path.is_file() and path.stat().st_size:
        with path.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def place(store: Store, arguments: Mapping[str, Any]) -> Path:
    """Where the task `search` writes its journal; seconds do not count, so that more go on from what fewer found."""
    named = {name: arguments.get(name) for name in ("model", "samples", "target", "calibration")}
    named["seed"] = arguments.get("seed", 0)
    key = digest(b"search", json.dumps(named, sort_keys=True).encode(), versions().encode())
    return store.home / "journals" / key[:2] / key


def so_far(store: Store, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The trials that a running or earlier search with these arguments has measured, as a page draws them."""
    trials = (Trial.from_json(entry["trial"]) for entry in _entries(place(store, arguments)) if "trial" in entry)
    return [trial.shown() for trial in trials]
