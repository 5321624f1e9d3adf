"""Drawing a page: one at a time, and what is asked again and again meanwhile is worked out once.

Threads of one interpreter only slow each other down: thirty runs side by side each take thirty times as long, and every
message that is sent waits for the interpreter again; one after the other, half of them are done in half of the time
(`benchmarks/class_load.py`). And one page asks for its language some eighty times, each time through Streamlit's locks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

_TURN = threading.Lock()
_PATIENCE = 0.5  # seconds: a page that takes long must not hold the others up for longer
_drawing = threading.local()


@contextmanager
def turn() -> Iterator[None]:
    """Wait for one's turn, though not for ever; what `once` remembers lasts until the page is drawn."""
    mine = _TURN.acquire(timeout=_PATIENCE)
    _drawing.known = {}
    try:
        yield
    finally:
        _drawing.known = None
        if mine:
            _TURN.release()


def once(function: F) -> F:
    """Ask a function once while a page is drawn, for each of its arguments, which are values that never change.

    Outside of `turn` (in callbacks, and when a part of a page refreshes itself) it is asked every time.
    """

    @wraps(function)
    def ask(*arguments: Any) -> Any:
        known = getattr(_drawing, "known", None)
        if known is None:
            return function(*arguments)
        answers, key = known.setdefault(function, {}), tuple(map(id, arguments))
        if key not in answers:
            answers[key] = function(*arguments), arguments  # kept with it: no other object gets the same id meanwhile
        return answers[key][0]

    return cast(F, ask)


def ask_again(function: Callable[..., Any]) -> None:
    """What a function with `once` gives has changed."""
    known = getattr(_drawing, "known", None)
    if known is not None:
        known.pop(function.__wrapped__, None)  # type: ignore[attr-defined]
