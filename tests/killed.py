"""A server's work, killed again and again: `python -m tests.killed HOME ROUNDS SEED`; run by test_killed.

Each round forks a process that writes attempts, uploads and state, and says so line by line once a call has returned;
a moment later it is ended with SIGKILL and everything that it said must be there.
"""

from __future__ import annotations

import os
import random
import select
import signal
import sys
import time
from itertools import count
from pathlib import Path

from lwcore.store import Store
from lwcore.workspaces import Owned, Workspaces, identify
from tests import kept

WORKSPACE = identify("A" * 22)
_LINES, _LONGEST = 8, 0.03  # lines, and seconds after them, until the kill


def work(home: str, pipe: int, start: int) -> None:
    """Write until killed."""
    store = Store(home)
    workspaces = Workspaces(store, kept.settings(home))
    workspaces.create(WORKSPACE)
    for seed in count(start):
        key = store.put_model(kept.model(f"model {seed % 50}", 20_000))
        workspaces.own(WORKSPACE, Owned(kind="model", key=key, about={"name": "x"}))
        say(pipe, "own", key)
        workspaces.add(WORKSPACE, kept.attempt(seed))
        say(pipe, "attempt", seed)
        workspaces.put_state(WORKSPACE, {"choices": str(seed)})
        workspaces.flush()
        say(pipe, "state", seed)
        store.put_upload(bytes([seed % 256]) * 100_000)


def say(pipe: int, kind: str, value: object) -> None:
    os.write(pipe, f"{kind} {value}\n".encode())


def one_round(home: str, start: int, chance: random.Random) -> list[list[str]]:
    """Fork, let it write, kill it; returns what it said."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work(home, theirs, start)
        finally:
            os._exit(3)
    os.close(theirs)
    wanted, text = chance.randint(0, _LINES), b""
    while text.count(b"\n") < wanted and select.select([ours], [], [], 60)[0]:
        text += os.read(ours, 4096)
    time.sleep(chance.uniform(0, _LONGEST))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with os.fdopen(ours, "rb") as rest:
        text += rest.read()
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, "it ended by itself"
    return [line.split() for line in text.decode().splitlines()]


def main(home: str, rounds: int, seed: int) -> None:
    """Print `rounds attempts` at the end; any other end is a failure."""
    chance, said, found, done = random.Random(seed), list[list[str]](), 0, 0
    end = time.monotonic() + float(os.environ.get("SLIMLAB_KILL_SECONDS", "3600"))
    while done < rounds and time.monotonic() < end:
        said += one_round(home, 1000 * done, chance)
        found = kept.check(home, WORKSPACE, said) if (Path(home) / "workspaces.db").exists() else 0
        done += 1
    print(done, found)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
