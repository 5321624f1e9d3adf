"""Every limit in one place, each with an environment override `SLIMLAB_<NAME>`, e.g. `SLIMLAB_UPLOAD_MB=500`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "assets"


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
    nodes: int = 20_000
    tensor_mb: int = 1024
    parse_seconds: int = 60
    parse_memory_mb: int = 2048
    job_seconds: int = 600
    job_memory_mb: int = 6144
    slots: int = 2
    threads: int = field(default_factory=_default_threads)

    @classmethod
    def from_environment(cls) -> Settings:
        """Read the overrides; a value that is no number is an error that names the variable."""
        values: dict[str, object] = {}
        for item in fields(cls):
            text = os.environ.get(f"SLIMLAB_{item.name.upper()}")
            if text is None:
                continue
            if item.name == "home":
                values[item.name] = text
            elif text.isdigit():
                values[item.name] = int(text)
            else:
                raise ValueError(f"SLIMLAB_{item.name.upper()}: expected a whole number, found {text!r}.")
        return cls(**values)  # type: ignore[arg-type]


SETTINGS = Settings.from_environment()
