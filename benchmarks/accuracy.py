"""Accuracy without training at fixed shares of the MACs, beside Torch-Pruning 1.6.1 on the same images.

    python benchmarks/accuracy.py [--models resnet20 …] [--draws 3] [--keep 0.5 …] [--arms ours …] [--fresh | --report]

Every arm removes whole channels (or, where it says so, splits layers in two), is held to MACs *not above* the target
(an amount found by bisection; the share that is really left is printed), may look at the same 512 unlabelled images and
is judged on the same 2,000 test images. Torch-Pruning is run on the first draw only. The ImageNet models are judged by
their agreement with the original on natural pictures that took no part in slimming them, at 80 % of the MACs.

Each outcome is written down as it comes (`.cache/accuracy.jsonl`, `.cache/natural.jsonl`). A run skips what is there,
so a long one can be done in portions; `--fresh` begins anew (after the code has changed), `--report` only prints the
tables.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools"), str(Path(__file__).parent)]

from arms import natural  # noqa: E402  (the paths above come first)
from arms.cases import CHANNELS, OURS, accuracy, fashion, ours  # noqa: E402
from arms.outcomes import DENSE, PLAIN, RECALIBRATED, Book, Outcome, cell, report  # noqa: E402
from networks import NETWORKS  # noqa: E402

KEEPS = (0.7, 0.5, 0.3)  # shares of the MACs
PEERS = (PLAIN, RECALIBRATED)
BOOK, NATURAL = (ROOT / ".cache" / f"{name}.jsonl" for name in ("accuracy", "natural"))


def measure(name: str, draw: int, keeps: list[float], arms: list[str], quick: bool, book: Book) -> None:
    """The arms on one model and one draw; the peer's on the first draw only."""
    wanted = [arm for arm in arms if arm in OURS or draw == 0]
    missing = [keep for keep in keeps if not book.has(name, draw, keep, wanted)]
    if not missing:
        return
    case = fashion(name, draw, quick)
    book.add(Outcome(model=name, draw=draw, keep=1.0, arm=DENSE, score=accuracy(case, case.model), share=1.0))
    for keep in missing:
        found = [ours(case, arm, keep, accuracy) for arm in wanted if arm in OURS]
        if not set(PEERS).isdisjoint(wanted):
            from arms.peer import torch_pruning  # torch is imported only for what needs it

            found += torch_pruning(case, keep)
        for outcome in found:
            book.add(outcome)
        said = ", ".join(f"{o.arm} {cell([o])}" for o in found)
        print(f"{name}, draw {draw}, {keep:.0%}: {said}", file=sys.stderr, flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [*NETWORKS, *natural.MODELS]
    parser.add_argument("--models", nargs="+", choices=every, default=every)
    parser.add_argument("--draws", type=int, default=3, help="calibration draws; the table shows mean and deviation")
    parser.add_argument("--keep", nargs="+", type=float, default=list(KEEPS), help="shares of the MACs to keep")
    parser.add_argument("--arms", nargs="+", choices=(*OURS, *PEERS), help="those of the tables unless given")
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs wrote down")
    parser.add_argument("--report", action="store_true", help="only print the tables of what is written down")
    parser.add_argument("--quick", action="store_true", help="500 test and 128 calibration images: does it run at all?")
    args = parser.parse_args()
    trained, seen = ([name for name in args.models if name in group] for group in (NETWORKS, natural.MODELS))
    arms, shown = (args.arms or default for default in ([*CHANNELS, *PEERS], natural.ARMS))
    if trained:
        _trained(args, trained, arms)
    if seen:
        _natural(args, seen, [arm for arm in shown if arm in OURS])


def _trained(args: argparse.Namespace, names: list[str], arms: list[str]) -> None:
    book = Book(BOOK.with_suffix(".quick.jsonl") if args.quick else BOOK, args.fresh)
    for draw in range(0 if args.report else args.draws):
        for name in names:
            measure(name, draw, args.keep, arms, args.quick, book)
    report(book, book.models(names), args.keep, arms)


def _natural(args: argparse.Namespace, names: list[str], arms: list[str]) -> None:
    book = Book(NATURAL, args.fresh)
    for name in [] if args.report else names:
        for line in natural.measure(name, book, arms):
            print(line, file=sys.stderr, flush=True)
    natural.report(book, book.models(names), arms)


if __name__ == "__main__":
    main()
