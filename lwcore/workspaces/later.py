"""`Later`: state that changes with every click, written a moment later and only in its last form."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from sqlalchemy.exc import SQLAlchemyError

_AFTER = 1.0  # seconds; what thirty people changed in between is one transaction
_AGAIN = 5.0  # seconds after a failure
_log = logging.getLogger(__name__)

Pending = Mapping[str, Mapping[str, str]]


class Later:
    """Collects (workspace, part) → text, and hands over the newest texts from a thread of its own.

    Args:
        write: puts texts by workspace and part into the database, in one transaction.
    """

    def __init__(self, write: Callable[[Pending], None]) -> None:
        self._write = write
        self._pending: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._due = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def put(self, workspace: str, parts: Mapping[str, str]) -> None:
        """Remember texts; returns at once."""
        with self._lock:
            self._pending.setdefault(workspace, {}).update(parts)
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._serve, name="lwcore-state", daemon=True)
                self._thread.start()
        self._due.set()

    def flush(self) -> None:
        """Write now what waits; returns when it is written, by whomever."""
        with self._writing:
            with self._lock:
                taken, self._pending = self._pending, {}
            if not taken:
                return
            try:
                self._write(taken)
            except SQLAlchemyError:
                with self._lock:  # newer texts win over those that could not be written
                    for workspace, parts in taken.items():
                        self._pending[workspace] = {**parts, **self._pending.get(workspace, {})}
                raise

    def close(self) -> None:
        """Write what waits and end the thread."""
        self._closing.set()
        self._due.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def _serve(self) -> None:
        while not self._closing.is_set():
            self._due.wait()
            self._due.clear()
            self._closing.wait(_AFTER)
            try:
                self.flush()
            except SQLAlchemyError:
                _log.exception("The state of workspaces could not be written; trying again.")
                self._closing.wait(_AGAIN)
                self._due.set()
