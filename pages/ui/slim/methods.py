"""The methods on Slim as plain data: a list of steps in the making → `Recipe`, and any recipe back to such a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lwcore.errors import RecipeError
from lwcore.recipe import (
    Blocks,
    Budget,
    Channels,
    Connections,
    Distill,
    Heads,
    LowRank,
    Precision,
    Recipe,
    Step,
    Vocabulary,
)

# The order that serves most models: what goes whole goes first, number formats come last.
ORDER = ("blocks", "heads", "channels", "low-rank", "connections", "distill", "vocabulary", "precision")
ALWAYS = ("channels", "precision")  # on the page from the beginning; the others once they are chosen
MOST_STEPS = 12  # a page of more is no longer read

# What each number format does, and the formats that do it; a family of several asks a second question.
FAMILIES: dict[str, tuple[str, ...]] = {
    "fp32": (),
    "fp16": ("fp16",),
    "int8": ("int8-static", "int8-dynamic"),
    "weights": ("int8-weights", "int4-weights", "int4-matmul"),
    "palette": ("palette",),
}

# With what a method begins when it is chosen: enough to see what it does.
_BEGIN: dict[str, Step] = {
    "channels": Channels(amount=0.2),
    "blocks": Blocks(amount=0.2),
    "vocabulary": Vocabulary(),
    "heads": Heads(amount=0.25),
    "low-rank": LowRank(),
    "connections": Connections(amount=0.5),
    "distill": Distill(),
    "precision": Precision(format="int8-static"),
}


@dataclass(frozen=True, kw_only=True)
class Method:
    """One step on the page.

    Attributes:
        name: unique in its list and steady; the widgets' keys begin with it.
        on: False only for precision: the numbers stay as they are (fp32).
    """

    name: str
    step: Step
    on: bool = True

    @property
    def idle(self) -> bool:
        """Whether this step changes nothing, so that it is left out of the recipe."""
        return not self.on or _is_idle(self.step)


Methods = tuple[Method, ...]
AT_REST: Methods = (
    Method(name="channels", step=Channels()),
    Method(name="precision", step=_BEGIN["precision"], on=False),
)


def _is_idle(step: Step) -> bool:
    if isinstance(step, Channels):
        return not step.groups and removed(step) <= 0
    if isinstance(step, Blocks):
        return not step.names and step.amount <= 0
    if isinstance(step, LowRank):
        return step.budget is not None and step.budget.keep >= 1
    if isinstance(step, Heads):
        return step.amount <= 0
    return isinstance(step, Connections) and step.amount <= 0


def removed(step: Channels) -> float:
    """The share that the main slider shows: of the channels, or of what is budgeted."""
    return round(1 - step.budget.keep, 6) if step.budget else step.amount


def remove_share(step: Channels, share: float) -> Channels:
    """The step with another share; what the share is of stays."""
    if step.budget:
        return replace(step, budget=replace(step.budget, keep=round(1 - share, 6)))
    return replace(step, amount=share)


def share_of(step: Channels, goal: Any) -> Channels:
    """The step with its share taken of something else: `same` for every group alike, else a budget."""
    share = removed(step)
    if goal == "same":
        return replace(step, budget=None, amount=share)
    return replace(step, budget=Budget(of=goal, keep=round(1 - share, 6)), amount=0.0)


def family(method: Method) -> str:
    """The family of a precision step's format."""
    if not method.on or not isinstance(method.step, Precision):
        return "fp32"
    wanted = method.step.format
    return next(name for name, formats in FAMILIES.items() if wanted in formats)


# -- between the list and a recipe ---------------------------------------------------------------------------------


def to_recipe(methods: Sequence[Method], seed: int) -> Recipe:
    """The recipe that a list means; raises `RecipeError` for values that no control has."""
    return Recipe.from_json(Recipe(seed=seed, steps=tuple(m.step for m in methods if not m.idle)).to_json())


def from_recipe(recipe: Recipe) -> Methods:
    """The list that shows a recipe: its steps in their order, and what is always on the page at rest.

    Raises:
        RecipeError: more steps than a page can show.
    """
    if len(recipe.steps) > MOST_STEPS:
        raise RecipeError(
            f"Expected a recipe of at most {MOST_STEPS} steps, found {len(recipe.steps)}; "
            "run this one with python -m lwcore slim --recipe."
        )
    methods: Methods = ()
    for step in recipe.steps:
        methods = (*methods, Method(name=_free_name(methods, step.kind), step=step))
    for resting in AT_REST:
        if not any(m.step.kind == resting.step.kind for m in methods):
            methods = _placed(methods, resting)
    return methods


def is_in_order(methods: Sequence[Method]) -> bool:
    """Whether each kind is there once at most, in the usual order."""
    places = [ORDER.index(m.step.kind) for m in methods]
    return places == sorted(set(places))


def shrinks_gzipped(recipe: Recipe) -> bool:
    """Whether a step's whole gain is in the compressed file: zeros and palettes are stored as they were."""
    return any(isinstance(s, Connections) or (isinstance(s, Precision) and s.format == "palette") for s in recipe.steps)


# -- editing -------------------------------------------------------------------------------------------------------


def find(methods: Sequence[Method], name: str) -> Method | None:
    """The method of a name."""
    return next((m for m in methods if m.name == name), None)


def edited(methods: Methods, name: str, step: Step, on: bool = True) -> Methods:
    """The list with one step replaced."""
    return tuple(replace(m, step=step, on=on) if m.name == name else m for m in methods)


def added(methods: Methods, kind: str, step: Step | None = None) -> Methods:
    """The list with one more method of a kind, in its usual place; as it is when it is full."""
    if len(methods) >= MOST_STEPS:
        return methods
    return _placed(methods, Method(name=_free_name(methods, kind), step=step or _BEGIN[kind]))


def without(methods: Methods, name: str) -> Methods:
    """The list without a method; what is always on the page goes to rest instead of away."""
    gone = find(methods, name)
    rest = tuple(m for m in methods if m.name != name)
    if gone is None or gone.step.kind not in ALWAYS or any(m.step.kind == gone.step.kind for m in rest):
        return rest
    resting = next(m for m in AT_REST if m.step.kind == gone.step.kind)
    return tuple(replace(resting, name=name) if m.name == name else m for m in methods)


def moved(methods: Methods, name: str, by: int) -> Methods:
    """The list with a method one place up (-1) or down (1) among those that do something."""
    listed = list(methods)
    active = [i for i, m in enumerate(listed) if not m.idle or m.name == name]
    place = next(at for at, i in enumerate(active) if listed[i].name == name)
    here, there = active[place], active[min(max(place + by, 0), len(active) - 1)]
    listed[here], listed[there] = listed[there], listed[here]
    return tuple(listed)


def _placed(methods: Methods, new: Method) -> Methods:
    after = [i for i, m in enumerate(methods) if ORDER.index(m.step.kind) > ORDER.index(new.step.kind)]
    at = after[0] if after else len(methods)
    return (*methods[:at], new, *methods[at:])


def _free_name(methods: Sequence[Method], kind: str) -> str:
    taken = {m.name for m in methods}
    names = (kind, *(f"{kind}-{i}" for i in range(2, MOST_STEPS + 2)))
    return next(name for name in names if name not in taken)
