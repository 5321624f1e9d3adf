"""What one slider move costs, part by part, and its sweep against two plain passes.

    python benchmarks/move.py [--models fashion-resnet20 …] [--moves 5] [--large torchvision:resnet50:none | FILE]

Processor time of all threads, because it repeats on a busy machine; of the one-shot answer and of the whole move also
the time by the clock, which says something only where the cores are free. Statistics and targets of the dense model are
gathered before, as the store keeps them between moves; every move is at another amount. The large model is moved
one-shot, on random pictures.
`benchmarks/slider.py` times the whole way through the page.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import lwcore  # noqa: E402  (the path above comes first)
from lwcore import runtime  # noqa: E402
from lwcore.answers import outputs  # noqa: E402
from lwcore.evaluation import Reference, evaluate, reference  # noqa: E402
from lwcore.recipe import Channels, Recipe  # noqa: E402
from lwcore.runtime import Feed  # noqa: E402
from lwcore.slimming.pruning.channels import FIT  # noqa: E402
from lwcore.slimming.pruning.selection import gather_orders  # noqa: E402
from lwcore.slimming.refit.calibration import draw  # noqa: E402
from lwcore.slimming.refit.targets import gather_targets  # noqa: E402

MODELS = tuple(name for name in lwcore.gallery() if name.startswith("fashion-"))
FIRST, STEP = 0.3, 0.01  # amounts
PICTURES = 64  # random ones, for the large model


class Clock:
    """Processor time between two messages of a job's progress."""

    def __init__(self) -> None:
        self._told: list[tuple[float, str]] = []

    def __call__(self, share: float, message: str = "") -> None:
        """Progress."""
        self._told.append((time.process_time(), message))

    def sweep(self) -> float:
        """Seconds from the cut to the last layer re-fitted."""
        cut = next(at for at, message in self._told if message == "cut")
        return max(at for at, message in self._told if message == "compensating") - cut


def spent(work: Callable[[], object]) -> np.ndarray:
    """Seconds of a call: the processors', and the clock's."""
    before = np.array([time.process_time(), time.perf_counter()])
    work()
    return np.array([time.process_time(), time.perf_counter()]) - before


def recipe(amount: float, how: str) -> Recipe:
    """One channels step at an amount for all."""
    return Recipe(steps=(Channels(amount=amount, compensate=how),))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Given:
    """What a move rests on: samples, what is fitted to, the original's answers on the test samples."""

    calibration: lwcore.SampleSet
    test: lwcore.SampleSet
    inputs: list[Feed]
    answers: Reference


def move(model: lwcore.Model, amount: float, given: Given) -> list[np.ndarray]:
    """One-shot, two passes, sequential slimming, the sweep in it, the measurement, the passes in that."""
    calibration, test = given.calibration, given.test
    runner, clock, made = runtime.session(model.data), Clock(), list[lwcore.Model]()
    passes = spent(lambda: [runtime.run(runner, batch) for _ in range(2) for batch in given.inputs])
    once = spent(lambda: lwcore.apply(model, recipe(amount, "one-shot"), calibration))
    whole = spent(
        lambda: made.append(lwcore.apply(model, recipe(amount, "sequential"), calibration, progress=clock).model)
    )
    slim = made[0]
    measured = spent(lambda: evaluate(slim, test, against=model, reference=given.answers, latency=False))
    bare = spent(lambda: outputs(runtime.shared_session(slim.data), slim, test))
    return [once, passes, whole, np.full(2, clock.sweep()), measured, bare]


def built_in(name: str, count: int) -> None:
    """Print a row for a built-in model, medians over the moves."""
    model = lwcore.load(name)
    calibration = lwcore.load_samples(model.card.calibration or "", model)
    test = lwcore.load_samples("fashion-test", model)
    inputs = draw(model, calibration, FIT).fit
    gather_orders(model, calibration)
    gather_targets(model, calibration, inputs)
    lwcore.apply(model, recipe(FIRST - STEP, "one-shot"), calibration)  # the first one gathers the original's answers
    given = Given(calibration, test, inputs, reference(model, test))
    rows = [move(model, FIRST + STEP * i, given) for i in range(count)]
    (once, passes, whole, sweep, measured, bare), clock = np.median(rows, axis=0).T * 1000
    cells = [*(f"{t:.0f}" for t in (once, passes, sweep)), f"{sweep / passes:.1f}"]
    cells += [f"{t:.0f}" for t in (whole, measured, bare, whole + measured, clock[0], clock[2] + clock[4])]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def large(ref: str, count: int) -> None:
    """Print what a one-shot move of a large model costs."""
    model = lwcore.load(ref)
    shape = (PICTURES, *model.card.pictures.size, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    noise = lwcore.SampleSet(name="noise", arrays={"pixels": pixels})
    gathered, _ = spent(lambda: gather_orders(model, noise))
    first, _ = spent(lambda: lwcore.apply(model, recipe(FIRST, "one-shot"), noise))
    moves = (lambda i=i: lwcore.apply(model, recipe(FIRST + STEP * i, "one-shot"), noise) for i in range(1, count + 1))
    later, clock = np.median([spent(each) for each in moves], axis=0)
    print(
        f"\n{model.card.name}, {model.size_bytes / 1e6:.0f} MB, pictures of {model.card.pictures.size}: statistics "
        f"and order once {gathered:.1f} s; first one-shot move {first:.2f} s, later ones {later:.2f} s "
        f"({clock:.2f} s by the clock)."
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=MODELS)
    parser.add_argument("--moves", type=int, default=5)
    parser.add_argument("--large", default="torchvision:resnet50:none", help="a model's reference; '' leaves it out")
    args = parser.parse_args()
    print(
        "| model | one-shot | two passes | sweep | sweep ÷ passes | sequential slimming | measurement | bare pass "
        f"| whole move | one-shot by the clock | whole move by the clock |\n{'|---' * 11}|"
    )
    for name in args.models:
        built_in(name, args.moves)
    print("\nMilliseconds of processor time, medians; the measurement without the timing of single runs.")
    if args.large:
        large(args.large, args.moves)


if __name__ == "__main__":
    main()
