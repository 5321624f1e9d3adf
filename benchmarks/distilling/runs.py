"""One training after a hard cut: what it came to, kept on disk so that a run that was broken off goes on."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lwcore
from lwcore.kept import code
from lwcore.model import Model
from lwcore.recipe import Distill
from lwcore.samples import SampleSet
from lwcore.settings import ROOT
from lwcore.slimming.distillation.lessons import Taught
from lwcore.slimming.distillation.teach import teach

KEEP = 0.3  # of the multiply–accumulates
CORES = 2
CACHE = ROOT / ".cache" / "distil"


@dataclass(frozen=True)
class Case:
    """What is trained, and for how long.

    Attributes:
        name: of a built-in model, without `fashion-`.
        minutes: of two cores that do nothing else.
        quick: few samples, to see that it runs.
        int8: whether the training rounds as static int8 will.
    """

    name: str
    minutes: float
    seed: int
    quick: bool = False
    int8: bool = False

    @property
    def dense(self) -> Model:
        """The model as shipped."""
        return lwcore.load(f"fashion-{self.name}")

    @property
    def test(self) -> SampleSet:
        """Pictures that took part in nothing."""
        return lwcore.load_samples("fashion-test", self.dense, limit=200 if self.quick else None)

    @property
    def folder(self) -> Path:
        """Where its outcome is kept."""
        kind = ("-quick" if self.quick else "") + ("-int8" if self.int8 else "")
        return CACHE / code()[:12] / f"{self.name}-{self.minutes:g}-{self.seed}{kind}"


@dataclass(frozen=True)
class Outcome:
    """Top-1 of the dense model, after the cut, of the control and of the student; `macs` is the share that is left.

    `curves` are those of `Taught.curves`, `steps` those of the student.
    """

    dense: float
    cut: float
    control: float | None
    taught: float
    macs: float
    steps: int
    curves: dict[str, Any] = field(repr=False)


def outcome(case: Case, fresh: bool = False) -> Outcome:
    """As an earlier run left it, else measured now."""
    path = case.folder / "outcome.json"
    if path.is_file() and not fresh:
        return Outcome(**json.loads(path.read_text(encoding="utf-8")))
    found, student = _measured(case)
    case.folder.mkdir(parents=True, exist_ok=True)
    (case.folder / "student.onnx").write_bytes(student.data)
    path.write_text(json.dumps(dataclasses.asdict(found)), encoding="utf-8")
    return found


def student(case: Case) -> Model:
    """The taught model of a case that was measured."""
    return dataclasses.replace(case.dense, data=(case.folder / "student.onnx").read_bytes())


def top1(model: Model, samples: SampleSet) -> float:
    """Share of right answers."""
    return lwcore.evaluate(model, samples, latency=False).top1 or 0.0


def _measured(case: Case) -> tuple[Outcome, Model]:
    """Cut, train, and ask the test images; the control is left out where rounding is compared."""
    dense = case.dense
    step = lwcore.Channels(budget=lwcore.Budget(of="macs", keep=KEEP))
    cut = lwcore.apply(dense, lwcore.Recipe(seed=case.seed, steps=(step,)))
    taught = _taught(case, cut.model)
    found = Outcome(
        dense=top1(dense, case.test),
        cut=top1(cut.model, case.test),
        control=top1(taught.control.model, case.test) if taught.control else None,
        taught=top1(taught.student.model, case.test),
        macs=cut.after.macs / cut.before.macs,
        steps=taught.student.curve[-1].steps,
        curves=taught.curves(),
    )
    return found, taught.student.model


def _taught(case: Case, cut: Model) -> Taught:
    return teach(
        cut,
        Distill(minutes=case.minutes, int8=case.int8),
        lwcore.load_samples("fashion-train", case.dense, limit=500 if case.quick else None),
        case.dense,
        case.seed,
        control=not case.int8,
        seconds=lambda: time.process_time() / CORES,
    )
