"""What was freed goes back to the system."""

from __future__ import annotations

import psutil
import pytest

from pages.ui import memory


@pytest.mark.skipif(memory._trim() is None, reason="elsewhere the C library decides")
def test_what_was_freed_in_the_middle_is_given_back() -> None:
    """Small pieces between which some stay: nothing at the end of the heap is free, so glibc alone keeps it all."""
    process = psutil.Process()
    pieces = [bytes(4000) for _ in range(50_000)]
    kept, full = pieces[::100], process.memory_info().rss
    del pieces
    memory.give_back()
    assert full - process.memory_info().rss > 80_000_000
    assert len(kept) == 500
