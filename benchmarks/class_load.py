"""A class of thirty on one small machine: how quickly the page answers everybody, and whether memory stays flat.

    python benchmarks/class_load.py [--minutes 10] [--visitors 30] [--only ours|defaults] [--soak]

Thirty visitors over real WebSockets open Slim one after another (as a class does: one every half second) and move a
slider every three seconds; five wait for each measurement before they move again, two search for a goal. The same is
done with the page as Streamlit would run it by itself: its default settings and no warm start. Aims: reruns 60 ms in
the median and 300 ms for nine of ten, the thirtieth's first page within 2 s, no error, the web process grows by less
than 5 % after warm-up, everything together stays under 4 GB.

`--soak` instead walks visitors over all pages by a seed while a worker is killed every 20 s; whatever figures a page
showed are then compared with one serial run of the same recipe, and looked for in the database.

An interrupted run (Ctrl-C or SIGTERM) prints what it has.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import statistics
import sys
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.load.lesson import Seen, lesson
from benchmarks.load.server import Server, serve
from benchmarks.load.walks import Walked, lost, soak, wrong

SETUPS = {
    "ours": ("app.py", ()),
    "defaults": (
        "pages/ui/main.py",
        (
            "--server.fileWatcherType=auto",
            "--server.disconnectedSessionTTL=120",
            "--runner.magicEnabled=true",
            "--runner.postScriptGC=true",
        ),
    ),
}
COLUMNS = (
    "set-up",
    "reruns",
    "p50 ms",
    "p90 ms",
    "first page of the last s",
    "measured",
    "errors",
    "web MB",
    "all MB",
    "web process: share of a core",
    "processor ms a rerun",
)


def row(name: str, seen: Seen) -> str:
    """One line of the table; a dash for what an interrupted run has not come to."""
    times = sorted(seen.reruns)
    few = max(1, len(seen.web) // 10)
    begin, end = (statistics.median(part) if part else 0.0 for part in (seen.web[:few], seen.web[-few:]))
    cells = [
        name,
        f"{len(times)}",
        f"{1000 * statistics.median(times):.0f}" if times else "–",
        f"{1000 * times[int(0.9 * len(times))]:.0f}" if times else "–",
        f"{seen.first[-1]:.2f}" if seen.first else "–",
        f"{seen.measured}",
        f"{len(seen.errors)}",
        f"{begin:.0f} → {end:.0f} ({end / begin - 1:+.1%})" if begin else "–",
        f"{max(seen.total):.0f}" if seen.total else "–",
        f"{seen.processor / seen.span:.0%}" if seen.span else "–",
        f"{1000 * seen.processor / seen.counted:.0f}" if seen.counted else "–",
    ]
    return f"| {' | '.join(cells)} |"


def run(name: str, args: argparse.Namespace) -> None:
    """One set-up: its line of the table, what went wrong, and how many jobs all those questions cost."""
    walked = Walked()
    with serve(*SETUPS[name]) as server:
        try:
            asyncio.run((soak if args.soak else lesson)(server, walked, args.visitors, args.minutes))
        except KeyboardInterrupt:
            name += ", interrupted"
        print(row(name, walked), flush=True)
        server.stop()
        print(f"\n{server.tally()}", *walked.errors[:5], sep="\n  ", flush=True)
        if args.soak:
            _check(server, walked)


def _check(server: Server, walked: Walked) -> None:
    bad, gone = wrong(walked), lost(server, walked)
    shown = sum(map(len, walked.shown.values()))
    print(
        f"{walked.killed} workers were killed, {walked.again} measurements asked for anew. {shown} results were shown "
        f"({len(set().union(*walked.shown.values()))} different); {len(bad)} differ from a serial run; "
        f"{len(gone)} are not in the database.",
        *bad,
        *gone,
        sep="\n  ",
    )


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--visitors", type=int, default=30)
    parser.add_argument("--only", choices=sorted(SETUPS))
    parser.add_argument("--soak", action="store_true", help="random walks while workers are killed")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    print(f"Load average before: {psutil.getloadavg()[0]:.1f} on {psutil.cpu_count()} cores.\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}", flush=True)
    for name in ("ours",) if args.soak else (args.only,) if args.only else SETUPS:
        run(name, args)


if __name__ == "__main__":
    main()
