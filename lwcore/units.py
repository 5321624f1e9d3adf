"""Counts, bytes and times for people; rounding lives here only, raw numbers everywhere else."""

from __future__ import annotations


def _scaled(value: float, steps: tuple[str, ...], base: float, digits: int) -> str:
    """The value in the largest step that leaves at least 1, with so many significant digits; whole ones stay whole."""
    whole = float(value).is_integer()
    for step in steps:
        if step == steps[-1] or abs(value) < base * (1 - 0.5 * 10.0**-digits):
            break
        value, whole = value / base, False
    before = len(str(int(abs(value)))) if abs(value) >= 1 - 10.0**-digits else 0
    decimals = 0 if whole else max(0, digits - before)
    return f"{value:.{decimals}f} {step}".strip()


def count(value: float) -> str:
    """`1234567` as `1.23 M`: three significant digits, thousands steps."""
    return _scaled(value, ("", "k", "M", "G", "T"), 1000.0, 3)


def size(value: float) -> str:
    """Bytes as `1.23 MB` in decimal steps (1 kB = 1000 bytes), as disks and downloads are labelled."""
    return _scaled(value, ("B", "kB", "MB", "GB"), 1000.0, 3)


def duration(seconds: float) -> str:
    """Time left or taken: `0:05`, `2:30`, `1:02:00`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def milliseconds(value: float) -> str:
    """Milliseconds with three significant digits."""
    return _scaled(value, ("ms",), 1000.0, 3) if value < 1000 else f"{value / 1000:.2f} s"


def percent(share: float, digits: int = 1) -> str:
    """A share between 0 and 1 as `12.3 %`."""
    return f"{100 * share:.{digits}f} %"


def change(before: float, after: float) -> str:
    """The relative change as `−42 %`; an en-dash minus so that columns line up."""
    if not before:
        return "–"
    share = 100 * (after - before) / before
    sign = "−" if share < 0 else "+"
    return "±0 %" if round(share, 1) == 0 else f"{sign}{abs(share):.{1 if abs(share) < 10 else 0}f} %"
