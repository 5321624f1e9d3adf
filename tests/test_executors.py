"""Worker processes of a search: what dies is done again, what is foreign is refused, what is given up ends."""

from __future__ import annotations

import json
import os
import signal
import time

import numpy as np
import pytest

from lwcore import units
from lwcore.analysis.cost import cost
from lwcore.errors import JobError
from lwcore.recipe import Recipe
from lwcore.searching.executors import LocalProcesses
from lwcore.searching.problem import pose
from lwcore.searching.trials import Trial, carry_out
from tests.helpers import noise
from tests.tiny import tiny_model


@pytest.fixture
def processes():
    made = LocalProcesses(1)
    yield made
    made.shutdown(cancel_futures=True)


def first_pid(processes: LocalProcesses) -> int:
    """Wait until there is one; a machine that starts none in two minutes fails the test."""
    end = time.monotonic() + 120
    while not (pids := processes.pids()):
        assert time.monotonic() < end, "no process was started"
        time.sleep(0.01)
    return pids[0]


def test_work_of_a_killed_process_is_done_again_by_another(processes, tmp_path):
    problem = tmp_path / "problem"
    pictures = noise(tiny_model(), 16)
    logits = np.eye(10)[np.arange(16) % 10][:, : len(tiny_model().card.classes) or 10]
    problem.write_bytes(pose(tiny_model(), pictures, pictures, [logits], 0).to_bytes())
    request = json.dumps({"recipe": Recipe().to_json(), "sensitivity": None, "timed": False, "keep": False})
    future = processes.submit(carry_out, str(problem), request)
    os.kill(first_pid(processes), signal.SIGKILL)
    trial = Trial.from_json(json.loads(future.result(timeout=120))["trial"])
    assert trial.error is None
    assert trial.cost == cost(tiny_model())


def test_a_foreign_function_is_refused_by_the_worker(processes):
    with pytest.raises(JobError, match="expected a function of lwcore"):
        processes.submit(os.getpid).result(timeout=120)


def test_a_processor_pool_ends_its_processes(processes):
    pid = first_pid(processes)
    processes.shutdown(cancel_futures=True)
    assert processes.pids() == []
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_is_given_up_is_not_begun_again_by_another_process(processes):
    running = processes.submit(time.sleep, 0)  # refused by the worker, so it is up
    assert running.exception(timeout=120)
    begun = processes.submit(carry_out, "no such problem", "{}")
    processes.shutdown(cancel_futures=True)
    assert begun.cancelled() or begun.exception(timeout=120)
    assert processes._started() is None
    assert processes.pids() == []


def test_a_pool_that_is_only_shut_down_ends_what_was_asked_for(processes):
    asked = [processes.submit(units.count, number) for number in (1, 2_000_000)]
    processes.shutdown()
    assert [future.result(timeout=120) for future in asked] == [units.count(1), units.count(2_000_000)]
    with pytest.raises(RuntimeError):
        processes.submit(units.count, 1)
