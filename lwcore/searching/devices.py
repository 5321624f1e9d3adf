"""Device cards: whether a model fits a small machine, how long it would take there, and which layer holds it up.

Only the graph is read. Latency follows the roofline model: each layer takes the longer of its arithmetic and its memory
traffic (Williams, Waterman, Patterson: "Roofline", CACM 2009). Memory is the largest sum of activations that are alive
at once, in the order in which the file lists its operators.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lwcore.errors import SearchError
from lwcore.model import Model
from lwcore.registry import Registry
from lwcore.searching.footprint import Footprint, Load, footprint


@dataclass(frozen=True, kw_only=True)
class Device:
    """A machine as four numbers.

    Attributes:
        name: short, for files; `title` is for people.
        flash_bytes: room for the file.
        ram_bytes: room for the activations (weights are read where they are stored).
        macs_per_second: multiply–accumulates a second.
        bytes_per_second: of weights and activations moved between memory and processor.
    """

    name: str = "custom"
    title: str = "Your device"
    flash_bytes: float
    ram_bytes: float
    macs_per_second: float
    bytes_per_second: float

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any, path: str = "device") -> Device:
        """A shipped device by name, or one of four numbers; raises `SearchError` with the dotted path of the fault."""
        if isinstance(data, str):
            return DEVICES[data]
        if not isinstance(data, Mapping):
            raise SearchError(f"{path}: expected a device's name or its four numbers, found {data!r}.")
        _no_strangers(data, path)
        numbers = {name: _above_zero(data.get(name), f"{path}.{name}") for name in _NUMBERS}
        words = {name: str(data[name])[:80] for name in ("name", "title") if data.get(name)}
        values: dict[str, Any] = {**words, **numbers}
        return cls(**values)


_NUMBERS = ("flash_bytes", "ram_bytes", "macs_per_second", "bytes_per_second")


def _no_strangers(data: Mapping[str, Any], path: str) -> None:
    for name in data:
        if name not in (*_NUMBERS, "name", "title"):
            raise SearchError(f"{path}.{name}: expected one of name, title, {', '.join(_NUMBERS)}; found this field.")


def _above_zero(value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise SearchError(f"{path}: expected a number above zero, found {value!r}.")
    return float(value)


DEVICES: Registry[Device] = Registry("device")
for _device in (  # round numbers of the order of magnitude of such machines; none of them was measured
    Device(
        name="microcontroller-small",
        title="Pretend microcontroller, Cortex-M4 class",
        flash_bytes=512_000,
        ram_bytes=128_000,
        macs_per_second=40e6,
        bytes_per_second=80e6,
    ),
    Device(
        name="microcontroller",
        title="Pretend microcontroller board, Cortex-M7 class",
        flash_bytes=2_000_000,
        ram_bytes=512_000,
        macs_per_second=300e6,
        bytes_per_second=400e6,
    ),
    Device(
        name="single-board",
        title="Pretend single-board computer, Raspberry Pi class",
        flash_bytes=8e9,
        ram_bytes=1e9,
        macs_per_second=10e9,
        bytes_per_second=2e9,
    ),
    Device(
        name="old-phone",
        title="Pretend old phone",
        flash_bytes=50e6,
        ram_bytes=200e6,
        macs_per_second=20e9,
        bytes_per_second=5e9,
    ),
):
    DEVICES.add(_device.name, _device)


# -- a model on a device ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Bottleneck:
    """The operator that takes longest on a device, and whether arithmetic or memory traffic holds it up."""

    layer: str
    ms: float
    bound: Literal["compute", "memory"]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A model on a device: what it needs, whether there is room, and the estimated time for one picture."""

    flash_bytes: int
    ram_bytes: int
    latency_ms: float
    fits_flash: bool
    fits_ram: bool
    bottleneck: Bottleneck | None

    @property
    def fits(self) -> bool:
        """Whether there is room for file and activations."""
        return self.fits_flash and self.fits_ram

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def fit(model: Model, device: Device) -> Fit:
    """Whether a model fits a device, and the estimated time for one picture; milliseconds of work, nothing runs."""
    return fitted(footprint(model), device)


def fitted(needs: Footprint, device: Device) -> Fit:
    """The same from a footprint that was counted before."""
    times = [(_seconds(load, device), load) for load in needs.loads]
    return Fit(
        flash_bytes=needs.file_bytes,
        ram_bytes=needs.ram_bytes,
        latency_ms=1000 * sum(seconds for seconds, _ in times),
        fits_flash=needs.file_bytes <= device.flash_bytes,
        fits_ram=needs.ram_bytes <= device.ram_bytes,
        bottleneck=_bottleneck(times, device),
    )


def _seconds(load: Load, device: Device) -> float:
    return max(load.macs / device.macs_per_second, load.bytes / device.bytes_per_second)


def _bottleneck(times: Sequence[tuple[float, Load]], device: Device) -> Bottleneck | None:
    if not times:
        return None
    seconds, load = max(times, key=lambda pair: pair[0])
    by_arithmetic = load.macs / device.macs_per_second >= load.bytes / device.bytes_per_second
    return Bottleneck(layer=load.layer, ms=1000 * seconds, bound="compute" if by_arithmetic else "memory")
