"""The recipes that a search may try: channels, blocks, low rank and precision in this order, each on or off."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np

from lwcore.analysis.cost import Cost
from lwcore.errors import LwcoreError
from lwcore.model import Model
from lwcore.recipe import Blocks, Budget, Channels, Format, LowRank, Precision, Recipe, Step, Variant
from lwcore.slimming.budget.allocate import Sensitivity
from lwcore.slimming.plan import plan

UNIFORM = "uniform"
BUDGETS = ("macs", "params", "latency")  # the last one only where time on this machine decides
BLOCKS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
RANKS = (0.9, 0.8, 0.7, 0.6, 0.5)
FORMATS = ("fp16", "int8-static", "int8-weights", "int4-weights")
LEAST = 0.05  # share of MACs, parameters or channels below which nothing that was learnt is left
OFTEN, SELDOM = 0.8, 0.15  # how often a random draw removes channels; drops blocks or splits layers
STEP = 0.04  # of a small move


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One point of the space.

    Attributes:
        channels: how removal is shared out: "" for none, `uniform`, or what the budget is of.
        keep: share of it that stays (of each group's channels where it is uniform), in hundredths.
        blocks: share of the residual blocks to drop.
        ranks: share of the MACs that splitting layers leaves; 1 for none.
        precision: a format, or "" for float32.
    """

    channels: str = ""
    keep: float = 1.0
    blocks: float = 0.0
    ranks: float = 1.0
    precision: str = ""

    @property
    def budgeted(self) -> bool:
        """Whether removal is shared out by sensitivity."""
        return self.channels not in ("", UNIFORM)


class Space:
    """The choices for one model.

    Args:
        model: the original.
        seed: of every recipe.
        variant: int8 types for this processor; fixed, so that every worker makes the same file.
        timed: whether time on this machine decides.
    """

    def __init__(self, model: Model, seed: int, variant: Variant, timed: bool = False) -> None:
        self._model = model
        self._seed = seed
        self._variant = variant
        self._budgets = BUDGETS if timed else BUDGETS[:2]
        self.sensitivity: Sensitivity | None = None
        self.without: set[str] = set()  # methods that failed on this model
        self._prices: dict[tuple[str, float], Cost | None] = {}

    # -- what a choice means -------------------------------------------------------------------------------------

    def recipe(self, choice: Choice) -> Recipe:
        """The recipe of a choice.

        What was measured on the original serves the first step: sensitivity a budget of channels, else the order of the
        blocks.
        """
        steps: list[Step] = [Blocks(amount=choice.blocks)] if choice.blocks else []
        if choice.channels:
            steps.insert(0 if choice.budgeted else len(steps), _channels(choice.channels, choice.keep))
        if choice.ranks < 1:
            steps.append(LowRank(budget=Budget(of="macs", keep=choice.ranks)))
        if choice.precision == "int8-static":
            steps.append(Precision(format="int8-static", variant=self._variant))
        elif choice.precision:
            steps.append(Precision(format=cast(Format, choice.precision)))
        return Recipe(steps=tuple(steps), seed=self._seed)

    def methods(self, choice: Choice) -> set[str]:
        """The methods that a choice uses, as `without` names them."""
        used = {choice.channels and "channels", choice.blocks and "blocks", choice.ranks < 1 and "low-rank"}
        return {name for name in (*used, choice.precision) if isinstance(name, str) and name}

    def allowed(self, choice: Choice) -> bool:
        """False for what failed before, for budgets before sensitivity is known, and for those out of reach."""
        if self.methods(choice) & self.without:
            return False
        return not (choice.budgeted and self.sensitivity is None) and self._price(choice) is not None

    def features(self, choices: Sequence[Choice]) -> np.ndarray:
        """Coordinates in which a difference of one is large, shape (N, d); MACs and parameters as planned first."""
        return np.array([self._features(choice) for choice in choices])

    def _features(self, choice: Choice) -> list[float]:
        left, whole = self._price(choice) or self._whole, self._whole
        shares = [math.log(max(a, 1) / max(b, 1)) for a, b in ((left.macs, whole.macs), (left.params, whole.params))]
        formats = [float(choice.precision == name) for name in FORMATS]
        shares[0] += math.log(choice.ranks)
        split = 0.0 if choice.ranks == 1 else 0.3 + 1.4 * (1 - choice.ranks)  # 1 for half of the MACs
        ways = [0.3 * (choice.channels == way) for way in (UNIFORM, *BUDGETS)]
        return [*shares, 2 * choice.blocks, split, *formats, *ways]

    @cached_property
    def _whole(self) -> Cost:
        return plan(self._model, Recipe()).before

    def _price(self, choice: Choice) -> Cost | None:
        """What the channels step alone leaves, exactly; None where its budget cannot be met."""
        if not choice.channels:
            return self._whole
        key = (choice.channels, choice.keep)
        if key not in self._prices:
            recipe = Recipe(steps=(_channels(*key),), seed=self._seed)
            try:
                self._prices[key] = plan(self._model, recipe, self.sensitivity).after
            except LwcoreError:  # it would fail as a trial, too
                self._prices[key] = None
        return self._prices[key]

    # -- drawing choices -----------------------------------------------------------------------------------------

    def first(self) -> list[Choice]:
        """What any search tries first: what is likeliest to keep a limit, each method by itself, budgets at the end.

        However little time there is, the first of them are measured, and none but the last two needs sensitivity.
        """
        return [
            Choice(precision="int8-static"),
            Choice(channels=UNIFORM, keep=0.7, precision="int8-static"),
            Choice(precision="int8-weights"),
            Choice(precision="fp16"),
            Choice(channels=UNIFORM, keep=0.7),
            Choice(channels=UNIFORM, keep=0.45),
            Choice(ranks=0.8),
            Choice(ranks=0.6, precision="int8-static"),
            Choice(blocks=0.2),
            Choice(precision="int4-weights"),
            Choice(channels="macs", keep=0.5),
            Choice(channels="params", keep=0.4, precision="int8-static"),
        ]

    def draw(self, rng: np.random.Generator, count: int) -> list[Choice]:
        """Choices from all over the space."""
        return [self._drawn(rng) for _ in range(count)]

    def _drawn(self, rng: np.random.Generator) -> Choice:
        ways = (UNIFORM,) if self.sensitivity is None else (UNIFORM, *self._budgets)
        way = str(rng.choice(ways)) if rng.random() < OFTEN else ""
        return Choice(
            channels=way,
            keep=_hundredths(math.exp(rng.uniform(math.log(LEAST), 0.0)), 20) if way else 1.0,
            blocks=float(rng.choice(BLOCKS)) if rng.random() < SELDOM else 0.0,
            ranks=float(rng.choice(RANKS)) if rng.random() < SELDOM else 1.0,
            precision=str(rng.choice(("", *FORMATS))),
        )

    def near(self, rng: np.random.Generator, choice: Choice) -> Choice:
        """A choice that differs in one thing from another; most often in how much of the channels stays."""
        other = self._drawn(rng)
        kind = rng.random()
        if choice.channels and kind < 0.6:
            moved = choice.keep + rng.normal(0, STEP)
            return dataclasses.replace(choice, keep=_hundredths(moved, 100))
        if kind < 0.7 or (not choice.channels and kind < 0.8):
            keep = choice.keep if choice.channels and other.channels else other.keep
            return dataclasses.replace(choice, channels=other.channels, keep=keep if other.channels else 1.0)
        if kind < 0.8:
            return dataclasses.replace(choice, precision=other.precision)
        if kind < 0.9:
            return dataclasses.replace(choice, blocks=float(rng.choice(BLOCKS)))
        return dataclasses.replace(choice, ranks=float(rng.choice((1.0, *RANKS))))


def _hundredths(share: float, steps: int) -> float:
    """A share on a grid of so many steps, so that equal choices are found equal and prices are found again."""
    return min(0.99, max(LEAST, round(round(share * steps) / steps, 2)))


def _channels(way: str, keep: float) -> Channels:
    if way == UNIFORM:
        return Channels(amount=round(1 - keep, 2))
    return Channels(budget=Budget(of=cast(Any, way), keep=keep))
