"""A pulled plug: the server killed in the middle of a write, an upload, a job; and two servers on one store."""

import os
import signal
import subprocess
import sys
import time

import pytest

from lwcore.settings import ROOT
from lwcore.store import Store
from lwcore.workspaces import Workspaces
from tests import kept
from tests.killed import WORKSPACE

ROUNDS = int(os.environ.get("SLIMLAB_KILLS", "100"))
SECONDS = 40  # the rounds end then, however many were done; all of them with SLIMLAB_KILLS set
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

SERVER = """
import sys, time, tests.job_tasks
from lwcore.jobs.pool import Jobs
from lwcore.store import Store
from lwcore.workspaces import Workspaces
from tests import kept
from tests.killed import WORKSPACE
home = sys.argv[1]
workspaces = Workspaces(Store(home), kept.settings(home))
workspaces.create(WORKSPACE)
jobs = Jobs(kept.settings(home), modules=("tests.job_tasks",))
ids = [jobs.submit("test.keep", {"count": 100_000, "tag": tag}) for tag in sys.argv[2:]]
while not all(jobs.status(i).message for i in ids): time.sleep(0.02)
print("running", *[jobs.status(i).message for i in ids], flush=True)
seed = len(workspaces.attempts(WORKSPACE))
while True:
    workspaces.add(WORKSPACE, kept.attempt(seed))
    print("attempt", seed, flush=True)
    seed += 1
"""

HAMMER = """
import sys, threading, time
from lwcore.store import Store, digest
from lwcore.workspaces import Owned, Workspaces
from tests import kept
from tests.killed import WORKSPACE
home, first, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
store = Store(home)
workspaces = Workspaces(store, kept.settings(home))
workspaces.create(WORKSPACE)
counts = [0] * 4
def hammer(thread):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        seed = first + 4 * counts[thread] + thread
        workspaces.add(WORKSPACE, kept.attempt(seed))
        key = store.put_model(kept.model(f"model {seed % 9}"))
        workspaces.own(WORKSPACE, Owned(kind="model", key=key, about={"name": str(seed)}))
        store.put_result(digest(b"shared"), {"from": seed, "text": "x" * 10_000})
        assert store.get_result(digest(b"shared"))["text"] == "x" * 10_000
        workspaces.put_state(WORKSPACE, {f"part {thread}": str(seed)})
        if seed % 16 == thread: store.sweep()
        counts[thread] += 1
threads = [threading.Thread(target=hammer, args=(i,)) for i in range(4)]
for t in threads: t.start()
for t in threads: t.join()
workspaces.close()
print(sum(counts))
"""


@pytest.mark.slow
def test_killed_a_hundred_times_nothing_that_was_finished_is_lost(tmp_path):
    """SIGKILL at a random moment of writing: every acknowledged attempt, upload and choice is there, none is half."""
    limit = {} if "SLIMLAB_KILLS" in os.environ else {"SLIMLAB_KILL_SECONDS": str(SECONDS)}
    command = [sys.executable, "-m", "tests.killed", str(tmp_path), str(ROUNDS), "0"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**ENVIRONMENT, **limit})
    assert done.returncode == 0, done.stderr[-2000:]
    rounds, attempts = map(int, done.stdout.split())
    assert attempts >= rounds >= 5


@pytest.mark.slow
def test_killed_in_the_middle_of_jobs_nothing_is_lost_or_left_over(tmp_path):
    """Two jobs that write into the store, and the server, end at once; what was acknowledged is there and whole."""
    for turn in range(ROUNDS // 10 if "SLIMLAB_KILLS" in os.environ else 2):
        command = [sys.executable, "-c", SERVER, str(tmp_path), f"a{turn}", f"b{turn}"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=ENVIRONMENT)
        pids = [int(pid) for pid in server.stdout.readline().split()[1:]]
        said = [server.stdout.readline().split() for _ in range(3)]
        os.kill(server.pid, signal.SIGKILL)
        said += [line.split() for line in server.stdout.read().splitlines() if line.count(" ") == 1]
        server.wait()
        server.stdout.close()
        end = time.monotonic() + 60
        while any(os.path.exists(f"/proc/{pid}/exe") for pid in pids):
            assert time.monotonic() < end
            time.sleep(0.02)
        assert kept.check(tmp_path, WORKSPACE, said) >= 3


@pytest.mark.slow
def test_two_servers_on_one_store_do_not_corrupt_it(tmp_path):
    """Two processes of four threads each write for seconds: every attempt is there once, numbered without a gap."""
    Workspaces(Store(tmp_path), kept.settings(tmp_path)).close()
    running = [
        subprocess.Popen(
            [sys.executable, "-c", HAMMER, str(tmp_path), str(first), "5"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=ENVIRONMENT,
        )
        for first in (0, 1_000_000)
    ]
    counts = [int(process.communicate(timeout=300)[0]) for process in running]
    assert all(process.returncode == 0 for process in running)
    assert min(counts) > 4
    assert kept.check(tmp_path, WORKSPACE, []) == sum(counts)
