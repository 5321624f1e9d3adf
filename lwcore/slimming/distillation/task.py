"""What the worker's tasks need for recipes that train: lessons out of the store, a limit of time, and scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lwcore.errors import LwcoreError, SlimError
from lwcore.model import Model
from lwcore.recipe import Distill, Recipe
from lwcore.samples import SampleSet
from lwcore.settings import SETTINGS
from lwcore.slimming.distillation import kept
from lwcore.slimming.distillation.lessons import Lessons, Taught

if TYPE_CHECKING:
    from lwcore.store import Store


def is_trained(recipe: Recipe) -> bool:
    """Whether a recipe has a distill step."""
    return any(isinstance(step, Distill) for step in recipe.steps)


def seconds(arguments: Mapping[str, Any]) -> float:
    """Time that training may take by the arguments of a task; 0 where they are none."""
    try:
        recipe = Recipe.from_json(arguments["recipe"])
    except (LwcoreError, LookupError):
        return 0.0  # the task itself says what is wrong
    several = 2 if arguments.get("control", True) else 1
    return several * 60 * sum(step.minutes for step in recipe.steps if isinstance(step, Distill))


def check_minutes(recipe: Recipe) -> None:
    """Refuse what this server gives no time for; raises `SlimError`."""
    minutes = sum(step.minutes for step in recipe.steps if isinstance(step, Distill))
    if minutes > SETTINGS.training_minutes:
        raise SlimError(
            f"Training: expected at most {SETTINGS.training_minutes} minutes on this server, found {minutes:g}. Choose "
            "fewer, or run the recipe with python -m lwcore slim --recipe."
        )


def all_trained(store: Store, model: str, original: Model, recipe: Recipe, calibration: str | None) -> Lessons:
    """Lessons for work that has no time to train; raises `SlimError` where a step is not trained yet."""
    found = {
        position: kept.found(store, key, original, broken_off=False)
        for position, key in kept.keys(model, recipe, calibration).items()
    }
    if None in found.values():
        raise SlimError("Training: expected a recipe whose training is done, found one that waits. Train it first.")
    return Lessons(kept={position: taught for position, taught in found.items() if taught is not None})


class School:
    """The lessons of one job, with what was kept of earlier ones, and what they came to.

    Args:
        model: as it was asked for, by reference.
        original: that model.
        calibration: the set asked for, by reference.
        train: whether a training that is not finished may begin; else what was broken off is taken as it is.
    """

    def __init__(
        self,
        store: Store,
        model: str,
        original: Model,
        recipe: Recipe,
        calibration: str | None,
        *,
        control: bool = True,
        train: bool = True,
    ) -> None:
        self._keepers = {
            position: kept.Keeper(store, key) for position, key in kept.keys(model, recipe, calibration).items()
        }
        self.taught: dict[int, Taught] = {}
        for position, keeper in self._keepers.items():
            known = kept.found(store, keeper.key, original, broken_off=not train)
            if known is not None:
                self.taught[position] = known
            elif not train:
                raise SlimError("Training: expected one that had begun, found none. Begin it on the page Slim.")
        self._store, self._control = store, control

    def lessons(self) -> Lessons:
        """For `apply`."""
        from lwcore.kept import find_model, find_samples

        return Lessons(
            teacher=lambda ref: find_model(self._store, ref),
            samples=lambda ref, model: find_samples(self._store, ref, model),
            control=self._control,
            watch=self._watch,
            kept=dict(self.taught),
        )

    def _watch(self, position: int, taught: Taught, finished: bool) -> None:
        self._keepers[position].keep(taught, finished)
        self.taught[position] = taught

    def score(self, name: str, samples: SampleSet) -> list[dict[str, Any]]:
        """Every training: its curves, and on `samples` the share of right answers of the student and the control.

        Args:
            name: of the set, by reference.
        """
        found = []
        for position, taught in sorted(self.taught.items()):
            scores = {
                "student": _share_right(taught.student.model, samples),
                "control": _share_right(taught.control.model, samples) if taught.control else None,
            }
            self._keepers[position].score(name, scores)
            found.append({"position": position, **taught.curves(), "scores": scores})
        return found


def _share_right(model: Model, samples: SampleSet) -> float | None:
    from lwcore import runtime
    from lwcore.answers import logits
    from lwcore.domains import domain

    if samples.labels is None or not domain(model).classes:
        return None
    found = logits(runtime.session(model.data), model, samples).argmax(axis=1)
    return float((found == samples.labels).mean())
