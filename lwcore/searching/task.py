"""The task `search`: the verb with models, samples and the journal in the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lwcore.errors import SearchError
from lwcore.progress import Progress
from lwcore.searching.find import search
from lwcore.searching.journal import Journal, place
from lwcore.searching.targets import Target
from lwcore.settings import SETTINGS

if TYPE_CHECKING:
    from lwcore.store import Store

LEAST_SECONDS = 5.0


def run(store: Store, progress: Progress, arguments: Mapping[str, Any], seconds: Any) -> dict[str, Any]:
    """Search with the arguments of the task; raises `LwcoreError` for everything a person can cause."""
    from lwcore.kept import find_calibration, find_model, find_samples, keep_sensitivity, kept_sensitivity

    most = SETTINGS.job_seconds / 2  # the end takes its time, too, and the server ends a job that is late
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not LEAST_SECONDS <= seconds <= most:
        raise SearchError(f"seconds: expected {LEAST_SECONDS:g}–{most:g}, found {seconds!r}.")
    seed = arguments["seed"]
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise SearchError(f"seed: expected a whole number from 0, found {seed!r}.")
    target = Target.from_json(arguments["target"])
    model = find_model(store, arguments["model"])
    samples = find_samples(store, arguments["samples"], model)
    pictures = find_calibration(store, model, arguments["calibration"], samples)
    known = kept_sensitivity(store, model, pictures)
    found = search(
        model,
        samples,
        target,
        calibration=pictures,
        seconds=float(seconds),
        seed=seed,
        progress=progress,
        journal=Journal(place(store, arguments)),
        sensitivity=known,
    )
    if known is None and found.sensitivity is not None:
        keep_sensitivity(store, model, pictures, found.sensitivity)
    return {**found.to_json(), "model": store.put_model(found.slimmed.model)}
