"""A goal as a person types it, and the target of a search that it means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from lwcore.recipe import Recipe

LIMITS = ("drop", "size", "macs", "speedup", "device")
PREFER = ("auto", "size", "macs", "speed", "accuracy")
SECONDS = (30, 60, 120, 300)
KILO, MEGA = 1_000.0, 1_000_000.0


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What the boxes of "Find it for me" say; only the chosen limits count.

    Attributes:
        limits: the chosen ones, of `LIMITS`.
        drop: points of accuracy (or agreement) that may be lost.
        size_kb: largest file in kB (1000 bytes).
        macs_percent: share of the original's MACs that may be left, in per cent.
        speedup: at least so many times as fast.
        device, flash_kb, ram_kb, mmacs, mbytes: a device card's name and its numbers: kB, kB, million MACs a second, MB
            a second.
        device_ms: longest estimated time on the device; None: any.
        prefer: what to have most of within the limits.
        seconds, seed: of the search.
    """

    limits: tuple[str, ...] = ("drop",)
    drop: float = 1.0
    size_kb: float = 256.0
    macs_percent: float = 50.0
    speedup: float = 2.0
    device: str = "microcontroller"
    flash_kb: float = 2000.0
    ram_kb: float = 512.0
    mmacs: float = 300.0
    mbytes: float = 400.0
    device_ms: float | None = None
    prefer: str = "auto"
    seconds: int = 60
    seed: int = 0

    def target(self) -> dict[str, Any]:
        """The target as plain data; raises `SearchError` when it is none, for example without a limit."""
        from lwcore.searching.targets import Target

        wanted: dict[str, Any] = {"prefer": self.prefer}
        if "drop" in self.limits:
            wanted["drop"] = self.drop
        if "size" in self.limits:
            wanted["size_bytes"] = self.size_kb * KILO
        if "macs" in self.limits:
            wanted["macs"] = min(self.macs_percent / 100, 1.0)
        if "speedup" in self.limits:
            wanted["speedup"] = self.speedup
        if "device" in self.limits:
            wanted |= {"device": self._device(), "latency_ms": self.device_ms}
        return Target.from_json(wanted).to_json()

    def _device(self) -> dict[str, Any]:
        return {
            "name": self.device,
            "flash_bytes": self.flash_kb * KILO,
            "ram_bytes": self.ram_kb * KILO,
            "macs_per_second": self.mmacs * MEGA,
            "bytes_per_second": self.mbytes * MEGA,
        }

    def on(self, name: str) -> Goal:
        """The goal with another device card, its numbers filled in."""
        from lwcore.searching.devices import DEVICES

        card = DEVICES[name]
        return replace(
            self,
            device=name,
            flash_kb=card.flash_bytes / KILO,
            ram_kb=card.ram_bytes / KILO,
            mmacs=card.macs_per_second / MEGA,
            mbytes=card.bytes_per_second / MEGA,
        )


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search that was begun, and what came of it.

    Attributes:
        arguments: what the worker was asked; the trials so far are found by them.
        job: of the worker; empty when it could not begin or a person stopped it.
        goal: what was typed.
        began: the recipe in the controls when it was begun: the found one takes its place unless that has changed.
        result: of the task; None while it runs or when it failed.
        error: why it failed; empty when a person stopped it.
    """

    arguments: Mapping[str, Any]
    job: str
    goal: Goal
    began: Recipe = field(default_factory=Recipe)
    result: Mapping[str, Any] | None = None
    error: str | None = None

    @property
    def running(self) -> bool:
        """Whether a worker is at it."""
        return self.result is None and self.error is None

    @property
    def model(self) -> str:
        """Which model is searched."""
        return str(self.arguments["model"])


def from_json(data: Mapping[str, Any]) -> Goal:
    """A goal from its fields; `ValueError` or `LwcoreError` unless each is of the right kind and in the choices."""
    resting = Goal()
    known = {f.name: data.get(f.name, getattr(resting, f.name)) for f in fields(Goal)}
    known["limits"] = tuple(name for name in LIMITS if name in known["limits"])
    numbers = ("drop", "size_kb", "macs_percent", "speedup", "flash_kb", "ram_kb", "mmacs", "mbytes")
    for name in numbers:
        known[name] = float(known[name])
        if not math.isfinite(known[name]) or known[name] < 0:
            raise ValueError(name)
    known["device_ms"] = None if known["device_ms"] is None else float(known["device_ms"])
    if known["device_ms"] is not None and not 0 < known["device_ms"] < math.inf:
        raise ValueError("device_ms")
    known["seconds"], known["seed"] = int(known["seconds"]), int(known["seed"])
    if known["prefer"] not in PREFER or known["seconds"] not in SECONDS or not 0 <= known["seed"] < 2**31:
        raise ValueError("prefer")
    goal = Goal(**known).on(known["device"])  # the name must be one of the cards
    return replace(goal, **{name: known[name] for name in ("flash_kb", "ram_kb", "mmacs", "mbytes")})
