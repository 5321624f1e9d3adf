"""What a training has come to, kept in the store as it goes: a cancel, a crash or a time-out loses no more than a look.

Kept by what it depends on: the model, the recipe up to the training and the calibration samples. Steps behind it may
change without training again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lwcore.kept import versions
from lwcore.model import Model
from lwcore.recipe import Distill, Precision, Recipe
from lwcore.slimming.distillation.lessons import Point, Taught, Trained
from lwcore.store import Store, digest


def keys(model: str, recipe: Recipe, calibration: str | None = None) -> dict[int, str]:
    """Where each training of a recipe is kept, by the position of its step.

    Args:
        model, calibration: by reference, as the task was asked.
    """
    found: dict[int, str] = {}
    for position, step in enumerate(recipe.steps):
        if isinstance(step, Distill):
            before = Recipe(seed=recipe.seed, steps=recipe.steps[: position + 1]).dumps()
            after = [s for s in recipe.steps[position:] if isinstance(s, Precision)] if step.int8 else []
            told = json.dumps([model, before, [dataclasses.asdict(s) for s in after[:1]], calibration])
            found[position] = digest(b"training", told.encode(), versions().encode())
    return found


@dataclass
class Keeper:
    """Writes down how one training stands whenever it is told."""

    store: Store
    key: str
    _states: tuple[Model | None, ...] = field(default=())

    def keep(self, taught: Taught, finished: bool) -> None:
        """The curves every time; the weights when they are others than the last time."""
        states = (taught.student.model, taught.control.model if taught.control else None)
        if any(a is not b for a, b in zip(states, self._states or (None, None), strict=True)):
            arrays = {
                name: np.frombuffer(state.data, np.uint8)
                for name, state in zip(("student", "control"), states, strict=True)
                if state is not None
            }
            self.store.put_arrays(self.key, arrays, folder="training")
            self._states = states
        about = {**taught.curves(), "notes": list(taught.notes), "finished": finished, "scores": {}}
        self.store.put_result(self.key, about)

    def score(self, samples: str, found: Mapping[str, float | None]) -> None:
        """What student and control get right of a set, by its reference."""
        about = so_far(self.store, self.key)
        if about is not None:
            about["scores"][samples] = dict(found)
            self.store.put_result(self.key, about)


def so_far(store: Store, key: str) -> dict[str, Any] | None:
    """How a running, finished or broken-off training stands, for a page; None where none has begun.

    Returns:
        `student`, `control`: their points; `notes`; `finished`; `scores`: by reference of a sample set, the share of
        right answers of both.
    """
    return store.get_result(key)


def found(store: Store, key: str, model: Model, broken_off: bool) -> Taught | None:
    """A finished training; one that was broken off only where that is wanted.

    Args:
        model: any with the card of the student.
    """
    about, states = so_far(store, key), store.arrays(key, folder="training")
    if about is None or states is None or not (about["finished"] or broken_off):
        return None
    return Taught(
        student=_trained(model, states["student"], about["student"]),
        control=_trained(model, states["control"], about["control"]) if about["control"] else None,
        notes=tuple(about["notes"]),
    )


def _trained(model: Model, data: np.ndarray, curve: list[Mapping[str, Any]]) -> Trained:
    points = tuple(Point(**point) for point in curve)
    return Trained(model=dataclasses.replace(model, data=data.tobytes()), curve=points)
