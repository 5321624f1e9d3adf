"""What to try next: first a fixed list, then what the estimates hold to be most worth trying."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from lwcore.searching.beliefs import Beliefs, Goal, drop_noise, scaled
from lwcore.searching.space import Choice, Space
from lwcore.searching.trials import Trial

DRAWN, MOVED, PARENTS = 80, 160, 6  # choices weighed before each trial: from everywhere, near the best so many
ENOUGH = 4  # trials before estimates choose
NEARBY = 0.15  # in units of the features: closer than this to a trial under way there is little to learn
LOOKS, LOWER = 10, 0.3  # at the held-out half while searching; what one that fails costs, in standard deviations


class Proposer:
    """Takes trials in and gives choices out; the same trials in the same order give the same choices.

    Attributes:
        trials: what was measured, the original first.
        looked: numbers of the trials whose held-out half was looked at.
    """

    def __init__(self, space: Space, goal: Goal, seed: int) -> None:
        self.trials: list[Trial] = []
        self.looked: set[int] = set()
        self._space, self._goal = space, goal
        self._rng = np.random.default_rng(seed)
        self._choices: list[Choice] = []
        self._first = deque(space.first())
        self._given: set[Choice] = set()
        self._worked: set[str] = set()  # methods
        self._margin = 0.0

    def take(self, choice: Choice, trial: Trial) -> Trial:
        """Learn from a trial; returns it with its number."""
        trial = replace(trial, number=len(self.trials))
        self.trials.append(trial)
        self._choices.append(choice)
        self._given.add(choice)
        methods = self._space.methods(choice)
        if trial.error is None:
            self._worked |= methods
        if trial.error is not None and len(methods) == 1:
            self._space.without |= methods - {"channels"} - self._worked  # a budget out of reach says little of others
        elif len(methods) == 1 and trial.cost == self.trials[0].cost:  # it finds nothing to do in this model
            self._space.without |= methods
        return trial

    @property
    def before_budgets(self) -> int:
        """How many choices of the fixed list are still to be tried before one needs sensitivity."""
        return sum(not c.budgeted and c not in self._given and self._space.allowed(c) for c in self._first)

    def next(self, waiting: Sequence[Choice], patient: bool) -> Choice | None:
        """The next choice to try; None when nothing new is left.

        Args:
            waiting: choices that are being measured.
            patient: sensitivity is still on its way, so budgets of the fixed list keep their place.
        """
        choice = self._listed(patient) or self._estimated(waiting)
        choice = choice or next(iter(self._new(self._space.draw(self._rng, DRAWN))), None)
        if choice is not None:
            self._given.add(choice)
        return choice

    def _listed(self, patient: bool) -> Choice | None:
        for _ in range(len(self._first)):
            choice = self._first.popleft()
            if choice not in self._given and self._space.allowed(choice):
                return choice
            if patient and choice.budgeted:
                self._first.append(choice)
        return None

    def _estimated(self, waiting: Sequence[Choice]) -> Choice | None:
        """The choice that is most worth trying by all estimates, and not beside one that is being measured."""
        self._look()
        beliefs, _ = self._beliefs()
        if beliefs is None:
            return None
        parents = [self._measured()[index][0] for index in beliefs.order()[:PARENTS]]
        drawn = self._space.draw(self._rng, DRAWN)
        moved = [self._space.near(self._rng, parents[i % len(parents)]) for i in range(MOVED)]
        choices = self._new([*drawn, *moved])
        if not choices:
            return None
        features = self._space.features(choices)
        worth = beliefs.worth(features)
        if waiting:  # do not try beside what is under way
            beside = self._space.features(waiting)
            apart = np.linalg.norm(features[:, None] - beside[None], axis=2).min(axis=1)
            worth = worth * np.where(worth > 0, -np.expm1(-((apart / NEARBY) ** 2)), 1)
        return choices[int(np.argmax(worth))]

    def _look(self) -> None:
        """Ask the held-out half about the best so far, yes or no; on a no, aim a little below the limit from here on.

        The two halves differ by chance, for all recipes alike: without this the search would refine recipes around a
        limit that the other half puts elsewhere. It learns few bits, and the number of looks is told with the result.
        """
        drop = self._goal.target.drop
        if drop is None or len(self.looked) >= LOOKS:
            return
        kept = [
            trial
            for _, trial in self._measured()
            if self._goal.misses(trial) == 0 and trial.choice and trial.choice.drop <= drop - self._margin
        ]
        if not kept:
            return
        best = min(kept, key=lambda trial: (scaled(self._goal.objective, self._goal.raw(trial)), trial.number))
        if best.number in self.looked or best.held_out is None:
            return
        self.looked.add(best.number)
        if best.held_out.drop > drop:
            self._margin += LOWER * drop_noise(best.held_out.n)

    def _new(self, choices: Iterable[Choice]) -> list[Choice]:
        return [c for c in dict.fromkeys(choices) if c not in self._given and self._space.allowed(c)]

    def _measured(self) -> list[tuple[Choice, Trial]]:
        """What could be carried out and has every number that matters."""
        needed = {limit.name for limit in self._goal.limits} | ({"speedup"} if self._goal.target.timed else set())
        pairs = zip(self._choices, self.trials, strict=True)
        return [(choice, trial) for choice, trial in pairs if needed <= self._goal.raw(trial).keys()]

    def _beliefs(self) -> tuple[Beliefs | None, list[int]]:
        """Estimates, where there are enough trials, and the numbers of the trials they rest on."""
        measured = self._measured()
        numbers = [trial.number for _, trial in measured]
        if len(measured) < ENOUGH:
            return None, numbers
        features = self._space.features([choice for choice, _ in measured])
        return Beliefs(self._goal, [trial for _, trial in measured], features, self._margin), numbers

    def order(self) -> list[int]:
        """Numbers of the trials, the best first by estimate."""
        beliefs, numbers = self._beliefs()
        return numbers if beliefs is None else [numbers[index] for index in beliefs.order()]
