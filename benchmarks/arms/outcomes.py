"""Outcomes: one JSON line for each arm, model, draw and share of the MACs, and the tables made of them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

DENSE, PLAIN, RECALIBRATED = "dense", "Torch-Pruning", "Torch-Pruning + BN recalibration"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one arm reached.

    Attributes:
        draw: number of the calibration draw.
        keep: share of the MACs that it was asked to keep; 1 for the dense model.
        score: accuracy, or agreement with the original, 0–1.
        share: of the MACs that really are left.
        error: name of the error that it ended in, else empty.
        seconds: wall time of slimming; `learning` is what a sensitivity took before it.
        sure: the same where the original is sure; of the original the share of such pictures. Of natural pictures only.
    """

    model: str
    draw: int
    keep: float
    arm: str
    score: float = 0.0
    share: float = 0.0
    error: str = ""
    seconds: float = 0.0
    learning: float = 0.0
    sure: float | None = None

    @property
    def key(self) -> tuple[str, int, float, str]:
        """What it is an outcome of."""
        return (self.model, self.draw, self.keep, self.arm)


class Book:
    """Outcomes written down as they come, so that a long run can be done in portions."""

    def __init__(self, path: Path, fresh: bool) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            path.unlink(missing_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self._known = {outcome.key: outcome for outcome in (Outcome(**json.loads(line)) for line in lines)}

    def add(self, outcome: Outcome) -> None:
        """Write one down; it replaces an older one of the same key."""
        self._known[outcome.key] = outcome
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(outcome)) + "\n")

    def has(self, model: str, draw: int, keep: float, arms: Iterable[str]) -> bool:
        """True when all of these arms are there."""
        return all((model, draw, keep, arm) in self._known for arm in arms)

    def of(self, model: str, keep: float, arm: str) -> list[Outcome]:
        """All draws, in their order."""
        return sorted(
            (o for o in self._known.values() if o.key[0] == model and o.key[2:] == (keep, arm)), key=lambda o: o.draw
        )

    def models(self, among: Sequence[str]) -> list[str]:
        """Those of which anything is known."""
        return [name for name in among if any(key[0] == name for key in self._known)]


def row(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def cell(outcomes: list[Outcome]) -> str:
    """Mean score in per cent, deviation over draws, share left; or the error."""
    if not outcomes:
        return "–"
    if outcomes[0].error:
        return outcomes[0].error
    values = [100 * o.score for o in outcomes]
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread} ({statistics.mean(o.share for o in outcomes):.3f})"


def losses(book: Book, model: str, keep: float, arm: str) -> list[float]:
    """Points lost in each draw; none where the arm failed or is unknown."""
    dense = book.of(model, 1.0, DENSE)[0].score
    return [100 * (dense - o.score) for o in book.of(model, keep, arm) if not o.error]


def report(book: Book, names: Sequence[str], keeps: Sequence[float], arms: Sequence[str]) -> None:
    """Print every model's scores, then what each arm loses on average beside Torch-Pruning."""
    print(row(["model", "MACs to keep", DENSE, *arms]) + "\n" + row(["---"] * (len(arms) + 3)))
    for name in names:
        for keep in keeps:
            dense = f"{100 * book.of(name, 1.0, DENSE)[0].score:.1f}"
            print(row([name, f"{keep:.0%}", dense, *(cell(book.of(name, keep, arm)) for arm in arms)]))
    print("\nAccuracy in per cent, mean ± deviation over the draws; in brackets the share of the MACs really left.\n")
    heads = [
        "MACs to keep",
        "arm",
        "draws",
        "points lost, all models",
        "worst model",
        "points lost, where Torch-Pruning works",
        "lost by Torch-Pruning + recalibration ÷ lost here",
    ]
    print(row(heads) + "\n" + row(["---"] * len(heads)))
    for keep in keeps:
        both = [n for n in names if losses(book, n, keep, RECALIBRATED)]
        peer = _mean(book, both, keep, RECALIBRATED)
        for arm in arms:
            print(row([f"{keep:.0%}", arm, *_summary(book, names, both, keep, arm, peer)]))
    _times(book, names, keeps, arms)


def _mean(book: Book, names: Sequence[str], keep: float, arm: str) -> float | None:
    """Mean over models of the mean over draws; None where a model is missing."""
    each = [losses(book, name, keep, arm) for name in names]
    return statistics.mean(statistics.mean(found) for found in each) if each and all(each) else None


def _summary(
    book: Book, names: Sequence[str], both: Sequence[str], keep: float, arm: str, peer: float | None
) -> list[str]:
    everywhere, here = _mean(book, names, keep, arm), _mean(book, both, keep, arm)
    known = {name: statistics.mean(found) for name in names if (found := losses(book, name, keep, arm))}
    worst = max(known, key=lambda name: known[name], default="")
    return [
        str(max((len(book.of(name, keep, arm)) for name in names), default=0)),
        "–" if everywhere is None else f"{everywhere:.2f}",
        f"{worst} {known[worst]:.2f}" if worst else "–",
        "–" if here is None else f"{here:.2f}",
        f"{peer / here:.1f}" if peer is not None and here is not None and here > 0 else "–",
    ]


def _times(book: Book, names: Sequence[str], keeps: Sequence[float], arms: Sequence[str]) -> None:
    learnt = [o.learning for name in names for keep in keeps for arm in arms for o in book.of(name, keep, arm)]
    took = [seconds for seconds in learnt if seconds]
    if took:
        print(f"\nMeasuring sensitivity took {min(took):.0f}–{max(took):.0f} s a model and draw, once for all budgets.")
