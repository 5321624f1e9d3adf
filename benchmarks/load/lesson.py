"""A lesson: thirty visitors on Slim, one of them every half second; each moves a slider every three seconds."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from dataclasses import dataclass, field

import lwcore
from benchmarks.load.server import ROOT, Server, megabytes, processor_seconds
from benchmarks.load.visitor import Visitor

MODELS = tuple(name for name in lwcore.gallery() if name.startswith("fashion-"))
AMOUNTS = (10, 20, 30, 40, 50)
EVERY, APART = 3.0, 0.5  # seconds between two moves of a visitor, and between two arrivals
EVALUATING, SEARCHING = 5, 2
WARM_UP = 60.0  # seconds until memory and processor time count
_LOOK_EVERY = 5.0
WORDS = json.loads((ROOT / "pages" / "ui" / "texts" / "en.json").read_text(encoding="utf-8"))


@dataclass
class Seen:
    """What the visitors met.

    Attributes:
        first: seconds until the first page, in the order of arrival.
        reruns: seconds of every rerun that a visitor caused.
        measured: measurements that were waited for and came.
        web, total: megabytes of the web process, and of it with its workers, over the time after warm-up.
        processor: seconds of processor time of the web process after warm-up, in `span` seconds with `counted` reruns.
    """

    first: list[float] = field(default_factory=list)
    reruns: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    measured: int = 0
    web: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    processor: float = 0.0
    span: float = 0.0
    counted: int = 0


async def lesson(server: Server, seen: Seen, visitors: int, minutes: float) -> None:
    """Everybody at once."""
    end = time.monotonic() + 60 * minutes
    await asyncio.gather(watch(server, end, seen), *(_attend(server.port, n, end, seen) for n in range(visitors)))


async def _attend(port: int, number: int, end: float, seen: Seen) -> None:
    """One visitor from arrival to the end of the lesson."""
    await asyncio.sleep(APART * number)
    lots = random.Random(number)
    visitor = Visitor(port, "slim", f"model={MODELS[number % len(MODELS)]}&lang=en")
    try:
        seen.first.append(await visitor.enter())
        if EVALUATING <= number < EVALUATING + SEARCHING:
            await _search(visitor, end, seen)
        while time.monotonic() < end:
            start = time.monotonic()
            seen.reruns.append(await visitor.set("channels-amount", double_array_value=[lots.choice(AMOUNTS)]))
            if number < EVALUATING:
                await visitor.until(is_measured)
                seen.measured += 1
            await asyncio.sleep(max(0.0, EVERY - (time.monotonic() - start)))
    except (TimeoutError, LookupError, OSError) as error:
        seen.errors.append(f"visitor {number}: {type(error).__name__} {error}")
    finally:
        seen.errors += [f"visitor {number}: {error}" for error in visitor.errors]
        await visitor.leave()


async def _search(visitor: Visitor, end: float, seen: Seen) -> None:
    """One goal after another; a goal that was searched for before would be answered at once, from the store."""
    for drop in itertools.count(1.0, 0.1):
        if time.monotonic() > end or visitor.errors:
            return
        if not visitor.has("find"):  # the recipe that was found is in the controls by hand now
            seen.reruns.append(await visitor.set("slim-way", string_array_value=[WORDS["way.find"]]))
        seen.reruns.append(await visitor.set("goal-drop", double_value=round(drop, 1)))
        await asyncio.sleep(EVERY)
        seen.reruns.append(await visitor.press("find"))
        await visitor.until(lambda v: (v.settled and v.has("found-close")) or bool(v.errors))
        await visitor.press("found-close")


def is_measured(visitor: Visitor) -> bool:
    """Whether the page has been drawn to its end and shows a measurement for where the slider is."""
    return visitor.settled and any(WORDS["result.measured.title"] in text for text in visitor.texts())


async def watch(server: Server, end: float, seen: Seen) -> None:
    """Note memory and processor time once everything has been used."""
    await asyncio.sleep(min(WARM_UP, (end - time.monotonic()) / 3))
    start, before, known = time.monotonic(), processor_seconds(server.process), len(seen.reruns)
    while time.monotonic() < end:
        web = megabytes(server.process)
        seen.web.append(web)
        seen.total.append(web + sum(map(megabytes, server.process.children(recursive=True))))
        seen.processor, seen.span = processor_seconds(server.process) - before, time.monotonic() - start
        seen.counted = len(seen.reruns) - known
        await asyncio.sleep(_LOOK_EVERY)
