"""What the server's process has freed goes back to the system.

Pages of thirty people are made of short-lived objects of all sizes by threads that come and go; glibc keeps what they
leave for itself, so that the process seems to grow for hours though it holds no more than before. A hundred megabytes
are free when the imports at the start are done (`benchmarks/class_load.py` watches the process).
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from functools import cache
from typing import cast

import anyio
import anyio.to_thread

_EVERY = 60.0  # seconds; a round takes milliseconds


async def keep_small() -> None:
    """Give memory back now and then, until cancelled."""
    while True:
        await anyio.sleep(_EVERY)
        await anyio.to_thread.run_sync(give_back)


def give_back() -> None:
    """Return free memory to the system, where the C library can (glibc)."""
    gc.collect()
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    try:
        return cast("Callable[[int], int] | None", getattr(ctypes.CDLL(None), "malloc_trim", None))
    except (OSError, TypeError):  # not every system has one library for all
        return None
