"""`search`: estimates propose, measurements decide.

Results are taken in the order in which they were asked for, so with a number of trials (instead of seconds) the same
seed finds the same recipe whatever the machine's speed.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from lwcore.analysis.cost import cost
from lwcore.domains import load_samples
from lwcore.errors import SearchError
from lwcore.evaluation import Reference, reference
from lwcore.kept import versions
from lwcore.model import Model
from lwcore.progress import Progress, silent
from lwcore.recipe import Recipe, Variant
from lwcore.samples import SampleSet
from lwcore.searching.beliefs import Goal
from lwcore.searching.clock import Plan
from lwcore.searching.conclude import Case, conclude
from lwcore.searching.executors import Pool, open_pool
from lwcore.searching.footprint import footprint
from lwcore.searching.found import Found, message
from lwcore.searching.journal import Journal
from lwcore.searching.problem import Problem, pose
from lwcore.searching.propose import Proposer
from lwcore.searching.space import Choice, Space
from lwcore.searching.targets import Target
from lwcore.searching.trials import Trial, carry_out, find_sensitivity
from lwcore.slimming.budget.allocate import Sensitivity
from lwcore.slimming.precision.processor import ranking
from lwcore.store import digest

TRIALS = 40  # where neither seconds nor a number is given
SMALL = 4_000_000  # bytes of an original whose slimmed files are kept from the trials
AT_ONCE = 2  # trials asked for before the oldest is looked at, at least: one worker or two decide alike
FIRST = 2  # trials measured before sensitivity is: int8, without and with fewer channels
UNLUCKY = 4  # trials in a row whose workers died, before the search gives up

Watch = Callable[[Trial], None]


def search(
    model: Model,
    samples: SampleSet,
    target: Target,
    *,
    calibration: SampleSet | None = None,
    seconds: float | None = 60.0,
    trials: int | None = None,
    seed: int = 0,
    executor: Executor | None = None,
    progress: Progress = silent,
    watch: Watch | None = None,
    journal: Journal | Path | None = None,
    sensitivity: Sensitivity | None = None,
) -> Found:
    """Find a recipe that keeps a target.

    Args:
        model: the original.
        samples: what accuracy is measured on. One half chooses, the other is looked at when the choice has been made.
        target: the limits, and what to have most of within them.
        calibration: what slimming may look at; the card's own set when None, else `samples`.
        seconds: about how long to search; None for a number of trials instead.
        trials: the most recipes to measure; 40 when `seconds` is None, too. With `seconds=None` no decision depends on
            time (but for targets that limit it), so the same seed gives the same recipe.
        executor: where trials run: functions of lwcore with bytes, texts and numbers. Processes of this machine when
            None, or the Dask cluster that `LWCORE_CLUSTER` names.
        progress: told the share done and a few words.
        watch: told every trial as it is measured.
        journal: a file to write trials to and to take known ones from, so that none is measured twice.
        sensitivity: of the model on `calibration`, where it is known.

    Raises:
        SearchError: nothing can be measured, or no worker can be reached.
    """
    if (seconds is not None and not seconds > 0) or (trials is not None and trials < 1):
        raise SearchError("Expected seconds above zero, or at least one trial, to search with.")
    started = time.monotonic()
    pool = open_pool(executor)  # its processes import what they need while the original is asked
    try:
        known = reference(model, samples)
        looked_at = calibration or _own_calibration(model, samples)
        problem = pose(model, samples, looked_at, known.outputs, seed)
        book = journal if isinstance(journal, Journal) else Journal(journal)
        plan = Plan(started=started, seconds=seconds, trials=trials or (None if seconds else TRIALS))
        goal = Goal.of(target, cost(model).macs)
        space = Space(model, seed, cast(Variant, ranking()[0]), target.timed)
        run = _Search(problem, goal, pool, plan, space, book, seed)
        run.told(progress, watch)
        run.know(sensitivity)
        run.explore()
        return conclude(_case(run, samples, known))
    finally:
        pool.close()


def _own_calibration(model: Model, samples: SampleSet) -> SampleSet:
    ref = model.card.calibration
    return load_samples(ref, model) if ref else samples


def _case(run: _Search, samples: SampleSet, known: Reference) -> Case:
    return Case(
        problem=run.problem,
        goal=run.goal,
        samples=samples,
        reference=known,
        trials=tuple(run.trials),
        order=tuple(run.proposer.order()),
        looked=frozenset(run.proposer.looked),
        sensitivity=run.space.sensitivity,
        again=run.again,
    )


@dataclass
class _Asked:
    """A trial that was asked for: on its way, or known from the journal."""

    choice: Choice
    key: str
    future: Future[str] | None = None
    known: Trial | None = None


class _Search:
    """The state of one search."""

    def __init__(
        self, problem: Problem, goal: Goal, pool: Pool, plan: Plan, space: Space, journal: Journal, seed: int
    ) -> None:
        self.problem, self.goal, self.space = problem, goal, space
        self.proposer = Proposer(space, goal, seed)
        self._pool, self._plan, self._journal = pool, plan, journal
        self._shared = pool.share(problem.to_bytes())
        self._asked: deque[_Asked] = deque()
        self._answers: dict[str, dict[str, Any]] = {}  # with the files of small models, so that none is made twice
        self._unlearnt = True
        self._learning: Future[str] | None = None
        self._unlucky = 0
        self._progress: Progress = silent
        self._watch: Watch | None = None

    @property
    def trials(self) -> list[Trial]:
        """What was measured, the original first."""
        return self.proposer.trials

    def told(self, progress: Progress, watch: Watch | None) -> None:
        """Whom to tell."""
        self._progress, self._watch = progress, watch

    def know(self, sensitivity: Sensitivity | None) -> None:
        """Have the sensitivity of the groups of channels, or have it measured beside the trials."""
        self.space.sensitivity = sensitivity or self._journal.sensitivity(self.problem.key)
        self._unlearnt = self.space.sensitivity is None

    # -- the loop ------------------------------------------------------------------------------------------------

    def explore(self) -> None:
        """Propose and measure until the plan is over or nothing is left to try."""
        self._take(Choice(), self._original())
        self._recall()
        while True:
            while len(self._asked) < max(AT_ONCE, self._pool.workers) and not self._over():
                self._learn()
                waiting = [asked.choice for asked in self._asked]
                choice = self.proposer.next(waiting, patient=self._unlearnt or self._learning is not None)
                if choice is None:
                    break
                self._ask(choice)
            if not self._asked or not self._waited(self._asked[0]):
                break
            self._receive(self._asked.popleft())
        self._hurry()
        if self._learning is not None and not self._learning.done():
            self._learning.cancel()

    def _recall(self) -> None:
        """A search by the clock starts from all that the journal knows; one by count takes it as it comes to it."""
        for key, choice, trial in self._journal.items() if self._plan.seconds is not None else ():
            if key == self._key(self.space.recipe(choice)):
                self._take(choice, trial)

    def _over(self) -> bool:
        return self._plan.over(len(self.trials) - 1 + len(self._asked), self._longest(), self._late())

    def _late(self) -> bool:
        """Whether there is nothing yet but the original."""
        return all(trial.error is not None for trial in self.trials[1:])

    def _waited(self, asked: _Asked) -> bool:
        """Wait for a trial, but not beyond the end of the search (see `Plan.left`)."""
        if asked.future is None or self._plan.seconds is None:
            return True
        return bool(wait([asked.future], timeout=max(0.0, self._plan.left(self._late()))).done)

    def _hurry(self) -> None:
        """After the time is over: take in what is done; where time decides, let what runs end before it is taken."""
        futures = [asked.future for asked in self._asked if asked.future and not asked.future.cancel()]
        if self.goal.target.timed:
            wait(futures)
        for asked in self._asked:
            if asked.known or (asked.future and asked.future.done() and not asked.future.cancelled()):
                self._receive(asked)

    def _longest(self) -> float:
        return max((trial.seconds for trial in self.trials[-6:]), default=0.0)

    def _ask(self, choice: Choice) -> None:
        recipe = self.space.recipe(choice)
        key = self._key(recipe)
        known = self._journal.get(key)
        future = None if known else self._submit(recipe)
        self._asked.append(_Asked(choice=choice, key=key, future=future, known=known))

    def _key(self, recipe: Recipe) -> str:
        parts = (self.problem.key, recipe.dumps(), str(self.goal.target.timed), versions())
        return digest(*(part.encode() for part in parts))

    def _submit(self, recipe: Recipe, keep: bool = False) -> Future[str]:
        known = self.space.sensitivity
        request = {
            "recipe": recipe.to_json(),
            "sensitivity": None if known is None else known.to_json(),
            "timed": self.goal.target.timed,
            "keep": keep or self.problem.model.size_bytes <= SMALL,
        }
        return self._pool.executor.submit(carry_out, self._shared, json.dumps(request))

    def _receive(self, asked: _Asked) -> None:
        trial = asked.known
        if trial is None and asked.future is not None:
            answer = self._answer(asked.future, lambda: self._submit(self.space.recipe(asked.choice)))
            if isinstance(answer, str):
                trial = Trial(recipe=self.space.recipe(asked.choice), error=answer)
            else:
                trial = Trial.from_json(answer["trial"])
                self._journal.add(asked.key, asked.choice, trial)
                if "model" in answer:
                    self._answers[trial.recipe.dumps()] = answer
        if trial is not None:
            self._take(asked.choice, trial)

    def _answer(self, future: Future[str], retry: Callable[[], Future[str]]) -> dict[str, Any] | str:
        """A worker's answer, asked for once more when it was lost; a sentence when it cannot be had."""
        for attempt in (1, 2):
            try:
                answer: dict[str, Any] = json.loads(future.result())
                self._unlucky = 0
                return answer
            except (Exception, CancelledError) as error:  # each executor has its own ways of losing work
                said = str(error) or type(error).__name__
                if attempt == 1:
                    self._shared = self._pool.share(self.problem.to_bytes())
                    future = retry()
        self._unlucky += 1
        if self._unlucky >= UNLUCKY:
            raise SearchError(f"The workers failed on {UNLUCKY} trials in a row; the last one said: {said[:300]}")
        return said

    def _take(self, choice: Choice, trial: Trial) -> None:
        trial = self.proposer.take(choice, trial)
        if self._watch is not None:
            self._watch(trial)
        self._progress(0.95 * self._plan.share(len(self.trials) - 1), message(self.goal, self.trials))

    def _original(self) -> Trial:
        choice, held_out = self.problem.score(self.problem.answers)
        return Trial(
            recipe=self.space.recipe(Choice()),
            cost=cost(self.problem.model),
            choice=choice,
            held_out=held_out,
            footprint=footprint(self.problem.model),
        )

    # -- sensitivity ---------------------------------------------------------------------------------------------

    def _learn(self) -> None:
        """Have sensitivity measured beside the trials, and take it once it is there.

        It begins when the likeliest recipes have been measured, and gets a share of the time that is then left. A
        search by count waits for it where it is first needed, so that what is tried next depends on no clock.
        """
        if self._unlearnt and self._worth_learning():
            self._unlearnt = False
            self._learning = self._ask_to_learn()
        by_count = self._plan.seconds is None
        if self._learning is None or not (self._needs_to_learn() if by_count else self._learning.done()):
            return
        answer = self._answer(self._learning, self._ask_to_learn)
        self._learning = None
        if not isinstance(answer, str) and "error" not in answer:
            self.space.sensitivity = Sensitivity.from_json(answer)
            self._journal.add_sensitivity(self.problem.key, self.space.sensitivity)

    def _worth_learning(self) -> bool:
        """After the first trials, unless the number of trials ends before any would need it."""
        measured = len(self.trials) - 1
        asked = measured + len(self._asked)
        if self._plan.trials is not None and asked + self.proposer.before_budgets >= self._plan.trials:
            return False
        return measured >= FIRST or self._needs_to_learn()

    def _needs_to_learn(self) -> bool:
        return self.proposer.before_budgets == 0

    def _ask_to_learn(self) -> Future[str]:
        return self._pool.executor.submit(find_sensitivity, self._shared, self._plan.to_learn(self._pool.workers))

    def again(self, recipe: Recipe) -> dict[str, Any]:
        """The file of a trial, made once more where it was not kept; raises `SearchError` when it cannot be had."""
        known = self._answers.get(recipe.dumps())
        if known is not None:
            return known
        answer = self._answer(self._submit(recipe, keep=True), lambda: self._submit(recipe, keep=True))
        if isinstance(answer, str) or answer["trial"]["error"]:
            said = answer if isinstance(answer, str) else answer["trial"]["error"]
            raise SearchError(f"The recipe that was found could not be carried out again: {said}")
        return answer
