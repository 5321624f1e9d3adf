"""Two minutes of distillation after a hard cut: accuracy beside the dense model, no training, and labels alone.

Channels are removed until 30 % of the multiply–accumulates are left and what reads them is re-fitted; then the model
is trained on 6,000 training images, once with the dense model as the teacher and once, for the same time and in turns,
with the labels alone. Minutes are those of two cores that do nothing else: processor time over two, so that a busy
machine gives the same table. Test images took part in nothing.

    python benchmarks/distil.py [--models NAME …] [--minutes 2] [--seed 0] [--quick]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lwcore
from lwcore.recipe import Distill
from lwcore.settings import ROOT
from lwcore.slimming.distillation.teach import teach

KEEP = 0.3
CORES = 2
CACHE = ROOT / ".cache" / "distil"


@dataclasses.dataclass(frozen=True)
class Row:
    """One model: top-1 of the dense model, after the cut, of the control and of the student; steps of the last two."""

    name: str
    dense: float
    cut: float
    control: float
    taught: float
    macs: float
    steps: int
    control_steps: int

    def text(self) -> str:
        """As it stands in the table."""
        shares = " | ".join(f"{100 * share:.2f}" for share in (self.dense, self.cut, self.control, self.taught))
        lost, won = 100 * (self.dense - self.taught), 100 * (self.taught - self.control)
        return f"| {self.name} | {self.macs:.2f} | {shares} | {lost:+.2f} | {won:+.2f} | {self.steps} |"


def measure(name: str, minutes: float, seed: int, quick: bool) -> Row:
    """Cut, train both ways, and ask the test images."""
    dense = lwcore.load(f"fashion-{name}")
    test = lwcore.load_samples("fashion-test", dense, limit=200 if quick else None)
    train = lwcore.load_samples("fashion-train", dense, limit=500 if quick else None)
    step = lwcore.Channels(budget=lwcore.Budget(of="macs", keep=KEEP))
    cut = lwcore.apply(dense, lwcore.Recipe(seed=seed, steps=(step,)))
    taught = teach(
        cut.model,
        Distill(minutes=minutes),
        train,
        dense,
        seed,
        control=True,
        seconds=lambda: time.process_time() / CORES,
    )
    assert taught.control is not None
    models = (dense, cut.model, taught.control.model, taught.student.model)
    shares = [lwcore.evaluate(model, test, latency=False).top1 or 0.0 for model in models]
    steps = (taught.student.curve[-1].steps, taught.control.curve[-1].steps)
    return Row(name, *shares, cut.after.macs / cut.before.macs, *steps)


def remembered(name: str, minutes: float, seed: int, quick: bool, fresh: bool) -> Row:
    """The row as a run that was broken off left it, else measured now."""
    path = CACHE / f"{name}-{minutes:g}-{seed}{'-quick' if quick else ''}.json"
    if path.is_file() and not fresh:
        return Row(**json.loads(path.read_text(encoding="utf-8")))
    row = measure(name, minutes, seed, quick)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dataclasses.asdict(row)), encoding="utf-8")
    return row


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [name.removeprefix("fashion-") for name in lwcore.gallery() if name.startswith("fashion-")]
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="200 test and 500 training images")
    parser.add_argument("--fresh", action="store_true", help="measure again what an earlier run has measured")
    options = parser.parse_args()
    print("| model | MACs left | dense | cut | labels alone | taught | points lost | over the control | steps |")
    print(f"|{'---|' * 9}")
    rows = []
    for name in options.models:
        rows.append(remembered(name, options.minutes, options.seed, options.quick, options.fresh))
        print(rows[-1].text(), flush=True)
    near = sum(row.dense - row.taught <= 0.01 for row in rows)
    better = sum(row.taught > row.control for row in rows)
    print(f"\nwithin 1 point of dense: {near} of {len(rows)}; better than the control: {better} of {len(rows)}")


if __name__ == "__main__":
    main()
