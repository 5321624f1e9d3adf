"""How long work says how far it is: a callable that is told a share (0–1) and a few words."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float, str], None]


def silent(share: float, message: str) -> None:
    """Tell nobody."""


def part(progress: Progress, start: float, stop: float) -> Progress:
    """A progress whose 0–1 fills `start`–`stop` of another."""
    return lambda share, message: progress(start + (stop - start) * share, message)
