"""A soak: visitors walk over all pages by a seed while workers are killed; what they were shown is checked after it."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import re
import signal
import time
from dataclasses import dataclass, field
from urllib.parse import parse_qs

import psutil

import lwcore
from benchmarks.load.lesson import MODELS, WORDS, Seen, is_measured, watch
from benchmarks.load.server import Server
from benchmarks.load.visitor import Visitor
from lwcore import units
from lwcore.settings import SETTINGS
from lwcore.store import Store
from lwcore.workspaces import Workspaces, identify

KILL_EVERY = 20.0  # seconds
AMOUNTS = tuple(range(5, 95, 5))  # the slider goes in fives
_PAGES = ("", "layers", "slim", "slim", "compare", "take-home")  # the first is Start; measuring is on Slim
_TRIES = 3  # presses of the button after a worker was killed


@dataclass(frozen=True, order=True)
class Shown:
    """A measurement as a page showed it: accuracy, parameters, MACs and size as the words that stood there."""

    model: str
    amount: int
    figures: tuple[str, ...]


@dataclass
class Walked(Seen):
    """What a soak brought.

    Attributes:
        shown: workspace's token → what was shown in it.
        killed: processes that were ended.
        again: measurements that were asked for anew after that.
    """

    shown: dict[str, set[Shown]] = field(default_factory=dict)
    killed: int = 0
    again: int = 0


async def soak(server: Server, seen: Walked, visitors: int, minutes: float) -> None:
    """Everybody walks about while workers die."""
    end = time.monotonic() + 60 * minutes
    walks = (_wander(server.port, n, end, seen) for n in range(visitors))
    await asyncio.gather(_kill(server.process, end, seen), watch(server, end, seen), *walks)


async def _wander(port: int, number: int, end: float, seen: Walked) -> None:
    """Pages in random order; on Slim a slider is moved, and what is measured is written down."""
    lots = random.Random(1000 + number)
    model = MODELS[number % len(MODELS)]
    visitor = Visitor(port, "slim", f"model={model}&lang=en")
    try:
        seen.first.append(await visitor.enter())
        while time.monotonic() < end:
            page = lots.choice(_PAGES)
            seen.reruns.append(await visitor.turn_to(page))
            if page == "slim":
                amount = lots.choice(AMOUNTS)
                seen.reruns.append(await visitor.set("channels-amount", double_array_value=[amount]))
                await _measure(visitor, Shown(model, amount, ()), seen)
            await asyncio.sleep(lots.uniform(0.5, 2))
    except (TimeoutError, LookupError, OSError) as error:
        seen.errors.append(f"visitor {number}: {type(error).__name__} {error}")
    finally:
        seen.errors += [f"visitor {number}: {error}" for error in visitor.errors]
        await visitor.leave()


async def _measure(visitor: Visitor, asked: Shown, seen: Walked) -> None:
    """Wait for the measurement; where a killed worker left the button instead, press it."""
    for _ in range(_TRIES):
        await visitor.until(lambda v: is_measured(v) or (v.settled and v.has("measure")))
        if is_measured(visitor):
            seen.measured += 1
            token = parse_qs(visitor.query).get("w", [""])[0]
            seen.shown.setdefault(token, set()).add(dataclasses.replace(asked, figures=_figures(visitor)))
            return
        seen.again += 1
        await visitor.press("measure")


def _figures(visitor: Visitor) -> tuple[str, ...]:
    metrics = visitor.metrics()
    return (_accuracy(visitor), *(metrics.get(WORDS[key], "") for key in ("cost.params", "cost.macs", "cost.file")))


def _accuracy(visitor: Visitor) -> str:
    """The measured accuracy as the page shows it, empty when it shows none."""
    pattern = re.escape(WORDS["result.accuracy"]).replace(r"\{before\}", ".+").replace(r"\{after\}", "(.+)")
    found = (re.fullmatch(pattern, text) for text in visitor.texts())
    return next((match[1] for match in found if match), "")


async def _kill(process: psutil.Process, end: float, seen: Walked) -> None:
    """Every 20 s one of the processes that carry out a job dies, or a parent of such when no job runs."""
    lots = random.Random(0)
    while time.monotonic() < end - KILL_EVERY:
        await asyncio.sleep(KILL_EVERY)
        parents = process.children()
        found = [child for parent in parents for child in parent.children()] or parents
        if found:
            lots.choice(found).send_signal(signal.SIGKILL)
            seen.killed += 1


# -- what was shown, and what is true ------------------------------------------------------------------------------


def wrong(seen: Walked) -> list[str]:
    """What a page showed and one serial run in this process does not give."""
    bad = []
    for shown in sorted(set().union(*seen.shown.values())):
        original = lwcore.load(shown.model)
        recipe = lwcore.Recipe(steps=(lwcore.Channels(amount=shown.amount / 100),))
        slim = lwcore.apply(original, recipe).model
        e = lwcore.evaluate(slim, lwcore.load_samples("fashion-test", original), latency=False)
        accuracy = "–" if e.top1 is None else units.percent(e.top1)
        truth = (accuracy, units.count(e.params), units.count(e.macs), units.size(e.size_bytes))
        if truth != shown.figures:
            bad.append(f"{shown.model} −{shown.amount} %: shown {shown.figures}, serial run {truth}")
    return bad


def lost(server: Server, seen: Walked) -> list[str]:
    """What was shown as measured and is not in the database of the server, which has ended."""
    kept = Workspaces(Store(server.home), dataclasses.replace(SETTINGS, home=str(server.home)))
    missing = []
    try:
        for token, shown in sorted(seen.shown.items()):
            there = {(a.model, a.recipe.dumps()) for a in kept.attempts(identify(token))}
            for one in sorted(shown):
                recipe = lwcore.Recipe(steps=(lwcore.Channels(amount=one.amount / 100),))
                if (one.model, recipe.dumps()) not in there:
                    missing.append(f"{one.model} −{one.amount} %")
    finally:
        kept.close()
    return missing
