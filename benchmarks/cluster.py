"""Trials a minute on a Dask cluster of one worker and of two: the same search, scheduler and workers on loopback.

The search is of a number of trials, so both do the same work and find the same recipe. Workers have one thread each and
are warm before the clock starts. Usage: `python benchmarks/cluster.py [--model NAME] [--trials 16]`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lwcore
from lwcore.searching.executors import CLUSTER, open_pool
from lwcore.slimming.budget.sensitivity import measure_sensitivity
from tests.dask_cluster import Cluster, until

WORKERS = (1, 2)
FEW = 64


def main() -> None:
    """Time the search on each cluster."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="fashion-mobilenetv2")
    parser.add_argument("--trials", type=int, default=16)
    options = parser.parse_args()
    model = lwcore.load(options.model)
    calibration = lwcore.load_samples(model.card.calibration, model)
    # One long piece of work that no second worker could share; on few samples, since speed alone is measured here.
    known = measure_sensitivity(model, calibration.take(FEW))
    rates, found = {}, {}
    print("| workers | trials | seconds | trials a minute | recipe found |\n|---|---|---|---|---|")
    for workers in WORKERS:
        found[workers], seconds = timed(model, calibration, known, workers, options.trials)
        rates[workers] = 60 * options.trials / seconds
        recipe = " + ".join(step.kind for step in found[workers].slimmed.recipe.steps)
        print(f"| {workers} | {options.trials} | {seconds:.1f} | {rates[workers]:.1f} | {recipe} |", flush=True)
    same = len({result.slimmed.model.fingerprint for result in found.values()}) == 1
    print(f"\nThe same file from both: {'yes' if same else 'no'}.")
    print(f"Two workers ÷ one: {rates[2] / rates[1]:.2f}; the machine has {os.cpu_count()} processors.")


def timed(
    model: lwcore.Model, calibration: lwcore.SampleSet, known: object, workers: int, trials: int
) -> tuple[lwcore.Found, float]:
    """What was found, and the seconds from the first trial to the last."""
    marks: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder), workers)
        try:
            os.environ[CLUSTER] = cluster.address
            until(lambda: ready(workers))
            found = lwcore.search(
                model,
                lwcore.load_samples("fashion-test", model),
                lwcore.Target(drop=1.0),
                calibration=calibration,
                seconds=None,
                trials=trials,
                sensitivity=known,
                watch=lambda trial: marks.append(time.perf_counter()),
            )
        finally:
            cluster.close()
    return found, marks[-1] - marks[0]


def ready(workers: int) -> bool:
    """Whether all workers are there and have imported what a trial needs."""
    pool = open_pool()
    try:
        if pool.workers == workers:
            for future in [pool.executor.submit(lwcore.gallery) for _ in range(4 * workers)]:
                future.result()
        return pool.workers == workers
    finally:
        pool.close()


if __name__ == "__main__":
    main()
