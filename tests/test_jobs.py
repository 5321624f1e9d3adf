"""Jobs: one queue, confined workers, every way to fail told apart, nothing left behind."""

import contextlib
import dataclasses
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

import tests.job_tasks  # noqa: F401  (registers the tasks below)
from lwcore.errors import JobError, UnknownName
from lwcore.jobs import parents
from lwcore.jobs.pool import Jobs
from lwcore.jobs.table import UNKNOWN, remaining
from lwcore.settings import ROOT, SETTINGS
from lwcore.store import Store

MODULES = ("tests.job_tasks",)
PATIENCE = 120  # seconds; only a hang is slower


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    home = str(tmp_path_factory.mktemp("home"))
    made = Jobs(dataclasses.replace(SETTINGS, home=home, parse_seconds=3, slots=2), modules=MODULES)
    made.warm("onnx")
    yield made
    made.close()


def finish(jobs, task, **arguments):
    return jobs.wait(jobs.submit(task, arguments), PATIENCE)


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def alive(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def sleepers(jobs, job_id):
    until(lambda: jobs.status(job_id).message)
    return [int(pid) for pid in jobs.status(job_id).message.split()]


def test_a_job_runs_in_a_process_of_its_own_without_torch_and_in_an_own_folder(jobs):
    status = finish(jobs, "test.echo", value={"a": [1, "ü"]})
    assert (status.state, status.progress, status.result["value"]) == ("done", 1.0, {"a": [1, "ü"]})
    assert status.result["pid"] != os.getpid()
    assert not status.result["modules"]
    assert not Path(status.result["cwd"]).exists() or not any(Path(status.result["cwd"]).iterdir())


def test_the_warm_parent_has_no_threads_but_its_own_to_copy(jobs):
    assert finish(jobs, "test.echo", value="threads").result["threads"] == 1


def test_a_job_gives_way_to_the_server(jobs):
    assert finish(jobs, "test.echo", value="nice").result["nice"] > os.nice(0)


def test_a_finished_answer_is_given_again_from_the_store(jobs):
    first = finish(jobs, "test.echo", value="again")
    assert finish(jobs, "test.echo", value="again").result == first.result
    until(lambda: jobs.status(jobs.submit("test.echo", {"value": "again"})).cached)
    assert finish(jobs, "test.echo", value="again").result == first.result


def test_equal_work_that_runs_is_shared_and_ends_only_when_nobody_waits(jobs):
    ids = [jobs.submit("test.sleep", {"seconds": 60}, owner=who) for who in ("a", "b", "a")]
    assert ids[0] == ids[2] != ids[1]
    pids = sleepers(jobs, ids[0])
    jobs.cancel(ids[0])
    assert jobs.status(ids[0]).state == "cancelled"
    assert jobs.status(ids[1]).state == "running"
    assert all(alive(pid) for pid in pids)
    jobs.cancel(ids[1])
    until(lambda: not any(alive(pid) for pid in pids))
    assert jobs.status(ids[1]).state == "cancelled"


def test_thirty_who_ask_the_same_cost_one(jobs):
    before = jobs.tally()
    ids = [jobs.submit("test.echo", {"value": "slider"}, owner=f"student {i}") for i in range(30)]
    assert {jobs.wait(i, PATIENCE).result["pid"] for i in ids} == {jobs.status(ids[0]).result["pid"]}
    ids += [jobs.submit("test.echo", {"value": "slider"}, owner=f"late {i}") for i in range(30)]
    assert len({jobs.wait(i, PATIENCE).result["pid"] for i in ids}) == 1
    cost = {name: count - before[name] for name, count in jobs.tally().items()}
    assert (cost["asked"], cost["run"], cost["known"] + cost["shared"]) == (60, 1, 59)
    assert jobs.waited_for() == 0


def test_first_come_first_served_with_positions(jobs):
    ids = [jobs.submit("test.sleep", {"seconds": 60, "tag": i}) for i in range(4)]
    sleepers(jobs, ids[0])
    sleepers(jobs, ids[1])
    assert [jobs.status(i).state for i in ids] == ["running", "running", "queued", "queued"]
    assert [jobs.status(i).position for i in ids] == [0, 0, 0, 1]
    jobs.cancel(ids[0])
    until(lambda: jobs.status(ids[2]).state == "running")
    assert jobs.status(ids[3]).position == 0
    for job_id in ids:
        jobs.cancel(job_id)


@pytest.mark.parametrize(
    ("task", "kind", "text"),
    [
        ("test.refuse", "ModelError", "Expected this, found that; do so."),
        ("test.surprise", "JobError", "could not be read"),
        ("test.crash", "JobError", "crashed (signal 11)"),
        ("test.killed", "JobError", "for want of memory"),
        ("test.hoard", "JobError", "more than 2048 MB of memory"),
        ("test.spin", "JobError", "longer than 3 seconds"),
        ("test.flood", "JobError", "Expected a result of at most"),
    ],
)
def test_every_way_to_fail_is_told_apart_and_the_next_job_runs(jobs, task, kind, text):
    status = finish(jobs, task)
    assert (status.state, status.error_kind) == ("failed", kind)
    assert text in status.error
    assert finish(jobs, "test.echo", value=task).state == "done"


def test_a_lost_worker_fails_its_jobs_and_is_started_again(jobs):
    assert "ended unexpectedly" in finish(jobs, "test.quit").error
    assert finish(jobs, "test.echo", value="back").state == "done"


def test_no_job_is_forgotten_whenever_its_worker_or_its_parent_is_killed(tmp_path):
    """Four people ask, share and cancel while processes die at random moments: every job ends, nothing stays behind."""
    settings = dataclasses.replace(SETTINGS, home=str(tmp_path), slots=3, jobs_per_person=1000)
    asked, errors, end = [], [], time.monotonic() + 6

    def ask(made, owner):
        lots = random.Random(owner)
        try:
            while time.monotonic() < end:
                tag = lots.randrange(40)
                mine = made.submit("test.nap", {"seconds": 0.05 * (tag % 3), "tag": tag}, owner=owner)
                asked.append(mine)
                if lots.random() < 0.3:
                    made.cancel(mine if lots.random() < 0.5 else lots.choice(asked), owner)
                time.sleep(0.02)
        except Exception as error:
            errors.append(error)

    with contextlib.closing(Jobs(settings, modules=MODULES)) as made:
        assert finish(made, "test.echo", value="before").state == "done"
        people = [threading.Thread(target=ask, args=(made, f"p{i}")) for i in range(4)]
        for person in people:
            person.start()
        _kill_at_random(made, end)
        for person in people:
            person.join(PATIENCE)
        ended = [made.wait(job, PATIENCE) for job in asked]
        assert not errors
        assert all(status.finished for status in ended)
        assert {"done", "cancelled"} <= {status.state for status in ended}
        until(lambda: not (made._queue or made._running or made._to_kill))
        until(lambda: not made._by_key)
        assert finish(made, "test.echo", value="after").state == "done"


def _kill_at_random(made, end):
    lots = random.Random(0)
    while time.monotonic() < end:
        with contextlib.suppress(psutil.NoSuchProcess):
            workers = [psutil.Process(parent.process.pid) for parent in tuple(made._parents.values())]
            found = workers if lots.random() < 0.05 else [child for worker in workers for child in worker.children()]
            if found:
                lots.choice(found).kill()
        time.sleep(lots.random() * 0.1)


def test_a_job_has_no_network(jobs):
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = finish(jobs, "test.network", port=server.getsockname()[1]).result
    if result["reached"]:
        pytest.skip("this system does not allow an empty network namespace")
    assert not result["reached"]


def test_unknown_tasks_jobs_and_arguments_are_said(jobs):
    with pytest.raises(UnknownName, match="measure"):
        jobs.submit("nothing", {})
    with pytest.raises(JobError, match="JSON"):
        jobs.submit("test.echo", {"value": object()})
    assert "restarted" in jobs.status("nobody").error
    assert "at most" in finish(jobs, "test.echo", value="x" * 300_000).error


def test_many_threads_may_ask_at_once(jobs):
    results = {}

    def ask(i):
        results[i] = finish(jobs, "test.echo", value=i % 5).result["value"]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert results == {i: i % 5 for i in range(20)}


def test_nobody_sees_or_stops_the_job_of_another(jobs):
    job_id = jobs.submit("test.sleep", {"seconds": 60, "tag": "mine"}, owner="ada")
    pids = sleepers(jobs, job_id)
    assert jobs.status(job_id, "bob").error_kind == UNKNOWN
    assert not jobs.status(job_id, "bob").message
    jobs.cancel(job_id, "bob")
    assert jobs.status(job_id, "ada").state == "running"
    jobs.cancel(job_id, "ada")
    until(lambda: not any(alive(pid) for pid in pids))


def test_what_takes_minutes_holds_nobody_up_and_nobody_fills_the_queue(jobs):
    long = [jobs.submit("test.long", {"seconds": 60 + i}, owner="ada") for i in range(3)]
    until(lambda: jobs.status(long[0]).state == "running")
    assert finish(jobs, "test.echo", value="beside").state == "done"
    assert [jobs.status(i).state for i in long].count("running") == jobs.settings.long_slots
    more = [
        jobs.submit("test.long", {"seconds": 100 + i}, owner="ada") for i in range(jobs.settings.jobs_per_person - 3)
    ]
    with pytest.raises(JobError, match="waiting for"):
        jobs.submit("test.long", {"seconds": 99}, owner="ada")
    other = jobs.submit("test.long", {"seconds": 98}, owner="bob")
    assert jobs.status(other).position < jobs.status(long[-1]).position
    for job_id in (*long, *more, other):
        jobs.cancel(job_id)


def test_what_a_job_still_needs_follows_from_its_pace():
    assert remaining(0.5, 10.0) == 10.0
    assert remaining(0.25, 10.0) == 30.0
    assert remaining(0.01, 10.0) is None
    assert remaining(0.5, 0.1) is None
    assert remaining(1.0, 10.0) is None


def test_a_worker_is_told_the_limits_but_no_secrets():
    told = parents._environment(
        dataclasses.replace(SETTINGS, class_code="hidden", database="postgresql://u:hidden@h/d")
    )
    assert told["SLIMLAB_HOME"] == SETTINGS.home
    assert "hidden" not in "".join(told.values())
    assert "hidden" not in repr(dataclasses.replace(SETTINGS, class_code="hidden"))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_orphaned_when_the_server_is_ended(tmp_path, end):
    code = (
        "import dataclasses, sys, time, tests.job_tasks\n"
        "from lwcore.jobs.pool import Jobs; from lwcore.settings import SETTINGS\n"
        "jobs = Jobs(dataclasses.replace(SETTINGS, home=sys.argv[1]), modules=('tests.job_tasks',))\n"
        "job = jobs.submit('test.sleep', {'seconds': 300})\n"
        "while not jobs.status(job).message: time.sleep(0.05)\n"
        "print(jobs._parents['onnx'].process.pid, jobs.status(job).message, flush=True)\n"
        "time.sleep(300)\n"
    )
    server = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    parent, child, grandchild = (int(pid) for pid in server.stdout.readline().split())
    os.kill(server.pid, end)
    assert server.wait() == -end
    until(lambda: not any(alive(pid) for pid in (parent, child, grandchild)))


def test_close_ends_everything(tmp_path):
    jobs = Jobs(dataclasses.replace(SETTINGS, home=str(tmp_path)), store=Store(tmp_path), modules=MODULES)
    job_id = jobs.submit("test.sleep", {"seconds": 300})
    pids = sleepers(jobs, job_id)
    jobs.close()
    until(lambda: not any(alive(pid) for pid in pids))
    assert jobs.status(job_id).state == "cancelled"
    with pytest.raises(JobError, match="stopped"):
        jobs.submit("test.echo", {"value": "late"})
    assert not list((tmp_path / "run").iterdir())


def test_an_answer_stays_on_the_disk_and_not_in_the_table(jobs):
    """Hundreds of finished jobs can be asked about; what a full disk could not keep stays in memory."""
    job = jobs.submit("test.echo", {"value": "big"})
    assert jobs.wait(job, PATIENCE).result["value"] == "big"
    run = jobs._tickets[job].run
    until(lambda: run.result is None)
    assert jobs.status(job).result["value"] == "big"
    jobs.store._path("results", run.key).unlink()
    assert jobs.status(job).error_kind == UNKNOWN
