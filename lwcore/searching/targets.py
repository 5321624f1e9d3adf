"""`Target`: what a search must reach, as plain data; which measured number each limit looks at."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lwcore import units
from lwcore.errors import SearchError
from lwcore.searching.devices import Device

Prefer = Literal["auto", "size", "macs", "speed", "accuracy"]
MOST_SPEEDUP = 1000.0


@dataclass(frozen=True, kw_only=True)
class Target:
    """Limits that a result must keep, any of them, and what to have most of within them.

    Attributes:
        drop: the largest loss in points of accuracy (of agreement with the original where samples have no labels).
        size_bytes: the largest file.
        macs: multiply–accumulates: a share (0–1] of the original's, or a count above 1.
        speedup: at least so many times as fast as the original, measured on this machine.
        latency_ms: the longest time for one picture: measured on this machine, or estimated where a device is given.
        device: the file must fit its flash, the live activations its RAM.
        prefer: what to have most of within the limits; `auto` is accuracy where something beside the drop is limited,
            else the smallest file.
    """

    drop: float | None = None
    size_bytes: float | None = None
    macs: float | None = None
    speedup: float | None = None
    latency_ms: float | None = None
    device: Device | None = None
    prefer: Prefer = "auto"

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            _check(getattr(self, name), low, high, f"target.{name}")
        if self.prefer not in get_args(Prefer):
            raise SearchError(f"target.prefer: expected one of {', '.join(get_args(Prefer))}; found {self.prefer!r}.")
        if all(getattr(self, name) is None for name in (*_RANGES, "device")):
            raise SearchError(f"target: expected at least one of {', '.join((*_RANGES, 'device'))}, found none.")

    @property
    def wanted(self) -> Literal["size", "macs", "speed", "accuracy"]:
        """`prefer`, decided."""
        if self.prefer != "auto":
            return self.prefer
        costs = (self.size_bytes, self.macs, self.speedup, self.latency_ms, self.device)
        return "size" if all(limit is None for limit in costs) else "accuracy"

    @property
    def timed(self) -> bool:
        """Whether time on this machine decides."""
        measured = self.latency_ms is not None and self.device is None
        return measured or self.speedup is not None or self.wanted == "speed"

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Target:
        """Read a target; raises `SearchError` with the dotted path of the first fault."""
        if not isinstance(data, Mapping):
            raise SearchError(f"target: expected named limits, found {type(data).__name__}.")
        known = {f.name for f in dataclasses.fields(cls)}
        for name in data:
            if name not in known:
                raise SearchError(f"target.{name}: expected one of {', '.join(sorted(known))}; found this field.")
        values = dict(data)
        if values.get("device") is not None:
            values["device"] = Device.from_json(values["device"], "target.device")
        return cls(**values)


# Lowest and highest sensible value of each limit; the lowest itself is allowed for the drop only.
_RANGES: Mapping[str, tuple[float, float]] = {
    "drop": (0.0, 100.0),
    "size_bytes": (0.0, 1e12),
    "macs": (0.0, 1e15),
    "speedup": (0.0, MOST_SPEEDUP),
    "latency_ms": (0.0, 1e7),
}


def _check(value: Any, low: float, high: float, path: str) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SearchError(f"{path}: expected a number, found {value!r}.")
    if not low <= value <= high or (value == low and path != "target.drop"):
        raise SearchError(f"{path}: expected a number above {low:g} and up to {high:g}, found {value:g}.")


# -- limits against measured numbers -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One limit: the number it looks at, its value, and whether that is the most or the least allowed."""

    name: str
    value: float
    least: bool = False

    def met(self, found: float) -> bool:
        """Whether a measured number keeps the limit."""
        return found >= self.value if self.least else found <= self.value

    def beyond(self, found: float) -> float:
        """By how much a number misses the limit, relative to it (points for the drop); 0 where it is kept."""
        if self.met(found):
            return 0.0
        if self.name == "drop":
            return found - self.value
        return self.value / max(found, 1e-12) - 1 if self.least else found / self.value - 1

    def words(self, found: float) -> str:
        """Limit and number for people."""
        show = _SHOW[self.name]
        return f"{_TITLES[self.name]} {show(found)} ({'at least' if self.least else 'at most'} {show(self.value)})"


def limits(target: Target, original_macs: int) -> tuple[Limit, ...]:
    """The limits of a target, in a fixed order.

    Args:
        original_macs: what a share of the MACs refers to.
    """
    found = []
    if target.drop is not None:
        found.append(Limit(name="drop", value=target.drop))
    if target.size_bytes is not None:
        found.append(Limit(name="size_bytes", value=target.size_bytes))
    if target.macs is not None:
        found.append(Limit(name="macs", value=target.macs * (original_macs if target.macs <= 1 else 1)))
    if target.speedup is not None:
        found.append(Limit(name="speedup", value=target.speedup, least=True))
    if target.latency_ms is not None:
        found.append(Limit(name="latency_ms" if target.device is None else "device_ms", value=target.latency_ms))
    if target.device is not None:
        found.append(Limit(name="flash_bytes", value=target.device.flash_bytes))
        found.append(Limit(name="ram_bytes", value=target.device.ram_bytes))
    return tuple(found)


_TITLES: Mapping[str, str] = {
    "drop": "points lost",
    "size_bytes": "file",
    "macs": "MACs",
    "speedup": "times as fast",
    "latency_ms": "time for one picture",
    "device_ms": "estimated time for one picture on the device",
    "flash_bytes": "flash",
    "ram_bytes": "RAM",
}
_SHOW = {
    "drop": lambda value: f"{value:.2f}",
    "size_bytes": units.size,
    "macs": units.count,
    "speedup": lambda value: f"{value:.2f}×",
    "latency_ms": units.milliseconds,
    "device_ms": units.milliseconds,
    "flash_bytes": units.size,
    "ram_bytes": units.size,
}
