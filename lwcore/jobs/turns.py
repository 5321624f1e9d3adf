"""Whose turn it is: first come, first served, but nobody takes a second slot while another waits for a first one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

from lwcore.jobs.table import Run
from lwcore.settings import Settings

Owners = Callable[[Run], Collection[str]]


def in_turn(waiting: Sequence[Run], running: Iterable[Run], owners: Owners) -> list[Run]:
    """The waiting runs of one lane in the order in which they will start.

    The next is always the one whose owner (of several, the one best off) has fewest started; of equals the oldest.
    """
    started = Counter(owner for run in running for owner in owners(run))
    rest, ordered = list(waiting), list[Run]()
    while rest:
        chosen = min(rest, key=lambda run: min((started[owner] for owner in owners(run)), default=0))
        rest.remove(chosen)
        ordered.append(chosen)
        started.update(owners(chosen))
    return ordered


def lane(runs: Iterable[Run], like: Run) -> list[Run]:
    """The runs that share slots with one: those that take minutes have slots of their own."""
    return [run for run in runs if run.task.long == like.task.long]


def position(run: Run, queue: Iterable[Run], running: Iterable[Run], owners: Owners) -> int:
    """How many runs start before this one; 0 when it does not wait any more."""
    if run.state != "queued":
        return 0
    ahead = in_turn(lane(queue, run), lane(running, run), owners)
    return ahead.index(run) if run in ahead else 0


def next_runs(
    queue: Sequence[Run], running: Collection[Run], owners: Owners, settings: Settings, ready: Callable[[str], bool]
) -> list[Run]:
    """What can start now; a run whose worker still imports its libraries lets others pass."""
    chosen = list[Run]()
    for long, slots in ((False, settings.slots), (True, settings.long_slots)):
        busy = [run for run in running if run.task.long == long]
        waiting = [run for run in queue if run.task.long == long and ready(run.task.kind)]
        chosen += in_turn(waiting, busy, owners)[: max(0, slots - len(busy))]
    return chosen
