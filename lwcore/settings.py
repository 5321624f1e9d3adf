"""Every limit in one place, each with an environment override `SLIMLAB_<NAME>`, e.g. `SLIMLAB_UPLOAD_MB=500`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "assets"

SECRET = {"secret": True}  # of a setting that worker processes are not told


def _default_threads() -> int:
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Limits and places; units are in the names."""

    home: str = str(ROOT / ".cache" / "slimlab")
    upload_mb: int = 200
    archive_files: int = 5000
    archive_mb: int = 400
    image_edge: int = 8192
    clip_edge: int = 4096
    clip_frames: int = 3600
    clip_seconds: int = 120
    nodes: int = 20_000
    tensor_mb: int = 1024
    parse_seconds: int = 60
    parse_memory_mb: int = 2048
    job_seconds: int = 600
    training_minutes: int = 60
    job_memory_mb: int = 6144
    hub_mb: int = 4096
    download_mb: int = 2048
    mirror: str = ""
    hosts: str = ""
    torch_memory_mb: int = 8192
    slots: int = field(default_factory=_default_threads)
    long_slots: int = field(default_factory=lambda: max(1, _default_threads() // 2))
    jobs_per_person: int = 12
    threads: int = field(default_factory=_default_threads)
    store_mb: int = 6144
    kept_mb: int = 4096
    person_mb: int = 1024
    attempts: int = 5000
    database: str = field(default="", repr=False, metadata=SECRET)
    class_code: str = field(default="", repr=False, metadata=SECRET)

    @classmethod
    def from_environment(cls) -> Settings:
        """Read the overrides; a value that is no number is an error that names the variable."""
        values: dict[str, object] = {}
        for item in fields(cls):
            text = os.environ.get(f"SLIMLAB_{item.name.upper()}")
            if text is None:
                continue
            if item.type == "str":
                values[item.name] = text
            elif text.isdigit():
                values[item.name] = int(text)
            else:
                raise ValueError(f"SLIMLAB_{item.name.upper()}: expected a whole number, found {text!r}.")
        return cls(**values)  # type: ignore[arg-type]


SETTINGS = Settings.from_environment()
