"""How soon a job does its first step once the warm parents are there, and how soon a cancelled one is gone.

    python benchmarks/jobs.py [--rounds 10]

"First step" is from asking to the first word of progress from the job's own process; "gone" from cancelling to the end
of its last process. Aims: less than a second each. The queue is empty; one job runs at a time.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lwcore
from lwcore.jobs.pool import Jobs
from lwcore.settings import SETTINGS

MODEL = "fashion-mobilenetv2"
PATIENCE = 120.0  # seconds


def question(kind: str, seed: int) -> tuple[str, dict[str, Any]]:
    """A question that nobody asked before: training (torch) or a slider move (onnx)."""
    steps = (lwcore.Channels(amount=0.3), lwcore.Distill(minutes=5))
    recipe = lwcore.Recipe(steps=steps if kind == "torch" else steps[:1], seed=seed)
    task = "distill" if kind == "torch" else "measure"
    return task, {"model": MODEL, "recipe": recipe.to_json(), "samples": "fashion-test"}


def until(condition: Callable[[], object]) -> float:
    """Seconds until something holds."""
    start = time.perf_counter()
    while not condition():
        if time.perf_counter() - start > PATIENCE:
            raise SystemExit("Nothing happened for two minutes.")
        time.sleep(0.001)
    return time.perf_counter() - start


def once(jobs: Jobs, task: str, arguments: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds to the first step, and from cancelling to the end of the processes."""
    job = jobs.submit(task, arguments)
    first = until(lambda: jobs.status(job).message or jobs.status(job).finished)
    if jobs.status(job).finished:
        raise SystemExit(f"{task}: expected a job that is still running, found {jobs.status(job)}.")
    jobs.cancel(job)
    return first, until(lambda: not processes())


def processes() -> list[psutil.Process]:
    """Those that carry out jobs: children of the warm parents."""
    return [child for parent in psutil.Process().children() for child in parent.children(recursive=True)]


def main() -> None:
    """Print a line a kind of job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    print(f"Load average before: {psutil.getloadavg()[0]:.1f} on {psutil.cpu_count()} cores.\n")
    print("| job | rounds | first step ms, median | worst | gone ms, median | worst |\n|" + " --- |" * 6)
    for kind in ("onnx", "torch"):
        with tempfile.TemporaryDirectory() as home:
            jobs = Jobs(dataclasses.replace(SETTINGS, home=home))
            try:
                once(jobs, *question(kind, rounds))  # starts the parent, which imports for seconds
                pairs = [once(jobs, *question(kind, seed)) for seed in range(rounds)]
            finally:
                jobs.close()
        cells = [f"{1000 * f(one):.0f}" for one in zip(*pairs, strict=True) for f in (statistics.median, max)]
        print(f"| {kind} ({question(kind, 0)[0]}) | {rounds} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
