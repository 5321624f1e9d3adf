"""Whose page is drawn now: one at a time, because threads of one interpreter only slow each other down.

Thirty runs side by side each take thirty times as long, and every message that is sent waits for the interpreter again;
one after the other, half of them are done in half of the time (`benchmarks/class_load.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_TURN = threading.RLock()  # a fragment is drawn within the run of its page, too
_PATIENCE = 0.5  # seconds: a page that takes long must not hold the others up for longer


@contextmanager
def turn() -> Iterator[None]:
    """Wait for one's turn, though not for ever."""
    mine = _TURN.acquire(timeout=_PATIENCE)
    try:
        yield
    finally:
        if mine:
            _TURN.release()
