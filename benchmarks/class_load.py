"""A class of thirty on one small machine: how quickly the page answers everybody, and whether memory stays flat.

    python benchmarks/class_load.py [--minutes 10] [--visitors 30] [--only ours|defaults] [--soak]

Thirty visitors over real WebSockets open Slim one after another (as a class does: one every half second) and move a
slider every three seconds; five wait for each measurement before they move again, two search for a goal. The same is
done with the page as Streamlit would run it by itself: its default settings and no warm start. Aims: reruns 60 ms in
the median and 300 ms for nine of ten, the thirtieth's first page within 2 s, no error, the web process grows by less
than 5 % after warm-up, everything together stays under 4 GB.

`--soak` instead walks visitors over all pages by a seed while a worker is killed every 20 s; whatever accuracy a page
showed is then compared with one serial run of the same recipe.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import lwcore  # noqa: E402  (the path above comes first)
from benchmarks.load.visitor import Visitor  # noqa: E402
from lwcore import units  # noqa: E402

MODELS = tuple(name for name in lwcore.gallery() if name.startswith("fashion-"))
EVERY, APART = 3.0, 0.5  # seconds between two moves of a visitor, and between two arrivals
EVALUATING, SEARCHING = 5, 2
WARM_UP = 60.0  # seconds until memory counts
KILL_EVERY = 20.0
PAGES = ("layers", "slim", "compare", "take-home")
AMOUNTS = (10, 20, 30, 40, 50)
WORDS = json.loads((ROOT / "pages" / "ui" / "texts" / "en.json").read_text(encoding="utf-8"))
DEFAULTS = (
    "--server.fileWatcherType=auto",
    "--server.disconnectedSessionTTL=120",
    "--runner.magicEnabled=true",
)


# -- the server --------------------------------------------------------------------------------------------------------


@contextmanager
def server(script: str, options: tuple[str, ...] = ()) -> Iterator[tuple[int, psutil.Process]]:
    """A dashboard of its own on a free port, with an empty store; ended with everything it started."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as home:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        command = [sys.executable, "-m", "streamlit", "run", script, *options]
        command += [f"--server.port={port}", "--server.address=127.0.0.1"]
        log = (Path(home) / "log").open("wb")
        started = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "SLIMLAB_HOME": home}, stdout=log, stderr=log)
        try:
            _wait_for(port)
            yield port, psutil.Process(started.pid)
        finally:
            started.terminate()
            started.wait(30)


def _wait_for(port: int) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit("The server did not start.")


def _megabytes(process: psutil.Process) -> float:
    try:
        return float(process.memory_full_info().pss) / 1e6  # shared pages once: the workers are forks of one parent
    except psutil.Error:
        return 0.0


# -- the class ---------------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What thirty visitors met.

    Attributes:
        first: seconds until the first page, in the order of arrival.
        reruns: seconds of every rerun.
        web, total: megabytes of the web process and of it with its workers, over the time after warm-up.
        shown: soak: (model, amount, accuracy as the page showed it).
    """

    first: list[float] = field(default_factory=list)
    reruns: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    measured: int = 0
    web: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    shown: set[tuple[str, int, str]] = field(default_factory=set)


async def attend(port: int, number: int, end: float, seen: Seen) -> None:
    """One visitor from arrival to the end of the lesson."""
    await asyncio.sleep(APART * number)
    lots = random.Random(number)
    model = MODELS[number % len(MODELS)]
    visitor = Visitor(port, "slim", f"model={model}&lang=en")
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
    await visitor.set("slim-way", string_array_value=["find"])
    while time.monotonic() < end and not visitor.errors:
        seen.reruns.append(await visitor.press("find"))
        await visitor.until(lambda v: v.has("found-close") or bool(v.errors))
        await visitor.press("found-close")


def is_measured(visitor: Visitor) -> bool:
    """Whether the page shows a measurement for where the slider is."""
    return any(WORDS["result.measured.title"] in text for text in visitor.texts())


def accuracy(visitor: Visitor) -> str:
    """The measured accuracy as the page shows it, empty when it shows none."""
    pattern = re.escape(WORDS["result.accuracy"]).replace(r"\{before\}", ".+").replace(r"\{after\}", "(.+)")
    found = (re.fullmatch(pattern, text) for text in visitor.texts())
    return next((match[1] for match in found if match), "")


async def watch(process: psutil.Process, end: float, seen: Seen) -> None:
    """Note the memory every two seconds once everything has been used."""
    await asyncio.sleep(min(WARM_UP, (end - time.monotonic()) / 3))
    while time.monotonic() < end:
        web = _megabytes(process)
        seen.web.append(web)
        seen.total.append(web + sum(map(_megabytes, process.children(recursive=True))))
        await asyncio.sleep(2)


async def lesson(port: int, process: psutil.Process, visitors: int, minutes: float) -> Seen:
    """Everybody at once."""
    seen, end = Seen(), time.monotonic() + 60 * minutes
    await asyncio.gather(watch(process, end, seen), *(attend(port, n, end, seen) for n in range(visitors)))
    return seen


# -- the soak ----------------------------------------------------------------------------------------------------------


async def wander(port: int, number: int, end: float, seen: Seen) -> None:
    """Pages in random order; on Slim a slider is moved, and what is measured is written down."""
    lots = random.Random(1000 + number)
    model = MODELS[number % len(MODELS)]
    visitor = Visitor(port, "slim", f"model={model}&lang=en")
    amount = 0
    try:
        await visitor.enter()
        while time.monotonic() < end:
            page = lots.choice(PAGES)
            seen.reruns.append(await visitor.turn_to(page))
            if page == "slim":
                amount = lots.choice(AMOUNTS)
                await visitor.set("channels-amount", double_array_value=[amount])
                await visitor.until(lambda v: is_measured(v) or v.has("measure"))  # or the button after a killed worker
                if is_measured(visitor):
                    seen.measured += 1
                    seen.shown.add((model, amount, accuracy(visitor)))
            await asyncio.sleep(lots.uniform(0.5, 2))
    except (TimeoutError, LookupError, OSError) as error:
        seen.errors.append(f"visitor {number}: {type(error).__name__} {error}")
    finally:
        seen.errors += [f"visitor {number}: {error}" for error in visitor.errors]
        await visitor.leave()


async def kill(process: psutil.Process, end: float, seen: Seen) -> None:
    """Every 20 s one of the processes that carry out a job dies."""
    lots = random.Random(0)
    while time.monotonic() < end - KILL_EVERY:
        await asyncio.sleep(KILL_EVERY)
        jobs = [child for parent in process.children() for child in parent.children()]
        if jobs:
            lots.choice(jobs).send_signal(signal.SIGKILL)


async def soak(port: int, process: psutil.Process, visitors: int, minutes: float) -> Seen:
    """Everybody walks about while workers die."""
    seen, end = Seen(), time.monotonic() + 60 * minutes
    walks = (wander(port, n, end, seen) for n in range(visitors))
    await asyncio.gather(kill(process, end, seen), watch(process, end, seen), *walks)
    return seen


def wrong(shown: set[tuple[str, int, str]]) -> list[str]:
    """What a page showed and a serial run does not give."""
    bad = []
    for model, amount, text in sorted(shown):
        original = lwcore.load(model)
        recipe = lwcore.Recipe(steps=(lwcore.Channels(amount=amount / 100),))
        slim = lwcore.apply(original, recipe).model
        truth = lwcore.evaluate(slim, lwcore.load_samples("fashion-test", original), latency=False).top1
        if truth is None or units.percent(truth) != text:
            bad.append(f"{model} −{amount} %: shown {text}, serial run {truth}")
    return bad


# -- the report --------------------------------------------------------------------------------------------------------


def row(name: str, seen: Seen) -> str:
    """One line of the table."""
    times = sorted(seen.reruns)
    p50, p90 = statistics.median(times), times[int(0.9 * len(times))]
    growth = seen.web[-1] / seen.web[0] - 1
    cells = [
        name,
        f"{len(times)}",
        f"{1000 * p50:.0f}",
        f"{1000 * p90:.0f}",
        f"{seen.first[-1]:.2f}" if seen.first else "–",
        f"{seen.measured}",
        f"{len(seen.errors)}",
        f"{seen.web[0]:.0f} → {seen.web[-1]:.0f} ({growth:+.1%})",
        f"{max(seen.total):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--visitors", type=int, default=30)
    parser.add_argument("--only", choices=("ours", "defaults"))
    parser.add_argument("--soak", action="store_true", help="random walks while workers are killed")
    args = parser.parse_args()
    heads = [
        "set-up",
        "reruns",
        "p50 ms",
        "p90 ms",
        "first page of the last s",
        "measured",
        "errors",
        "web MB",
        "all MB",
    ]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    setups = {"ours": ("app.py", ()), "defaults": ("pages/ui/main.py", DEFAULTS)}
    for name, (script, options) in setups.items():
        if args.only not in (None, name) or (args.soak and name != "ours"):
            continue
        with server(script, options) as (port, process):
            play = soak if args.soak else lesson
            seen = asyncio.run(play(port, process, args.visitors, args.minutes))
        print(row(name, seen), flush=True)
        for error in seen.errors[:5]:
            print(f"  {error}")
        if args.soak:
            bad = wrong(seen.shown)
            print(
                f"{len(seen.shown)} different numbers were shown; {len(bad)} differ from a serial run.",
                *bad,
                sep="\n  ",
            )


if __name__ == "__main__":
    main()
