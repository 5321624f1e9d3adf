"""The same search on a Dask cluster: a real scheduler and two real workers on loopback, one killed in the middle."""

from __future__ import annotations

import os
import shutil
import signal
import sys

import pytest

import lwcore
from lwcore.errors import SearchError
from lwcore.searching.executors import CLUSTER, open_pool
from lwcore.searching.journal import Journal
from lwcore.settings import ROOT
from tests.dask_cluster import Cluster, until

pytest.importorskip("distributed")

MODEL = "fashion-squeezenet"


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    made = Cluster(tmp_path, workers=2)
    monkeypatch.setenv(CLUSTER, made.address)

    def both():
        pool = open_pool()
        pool.close()
        return pool.workers == 2

    try:
        until(both)
        yield made
    finally:
        made.close()


def _found(journal=None, watch=None):
    model = lwcore.load(MODEL)
    return lwcore.search(
        model,
        lwcore.load_samples("fashion-test", model, limit=500),
        lwcore.Target(drop=2.0),
        calibration=lwcore.load_samples("fashion-calibration", model, limit=64),
        seconds=None,
        trials=7,
        journal=journal,
        watch=watch,
    )


def _numbers(trials):
    return [(t.recipe, t.cost, t.choice, t.held_out, t.error) for t in trials]


@pytest.mark.slow
def test_a_worker_that_is_killed_in_the_middle_loses_nothing(cluster, tmp_path, monkeypatch):
    def kill_one(trial):
        if trial.number == 2:  # the next ones are under way on both workers
            os.kill(cluster.workers[0].pid, signal.SIGKILL)
            cluster.workers[0].wait()

    journal = Journal(tmp_path / "journal")
    found = _found(journal, kill_one)
    assert cluster.workers[0].returncode == -signal.SIGKILL
    assert len(found.trials) == len(journal) + 1 == 8
    assert len({trial.recipe.dumps() for trial in found.trials}) == 8
    assert found.slimmed.model.size_bytes == found.evaluation.size_bytes
    monkeypatch.delenv(CLUSTER)
    local = _found()
    assert _numbers(local.trials) == _numbers(found.trials)
    assert local.slimmed.model.data == found.slimmed.model.data


@pytest.mark.slow
def test_workers_with_other_code_are_refused(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "lwcore", tmp_path / "lwcore", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "lwcore/units.py").open("a", encoding="utf-8") as file:
        file.write("# one line more under the same version number\n")
    made = Cluster(tmp_path, workers=1, code=tmp_path)
    monkeypatch.setenv(CLUSTER, made.address)

    def refused():
        with pytest.raises(SearchError) as caught:
            open_pool()
        return "found other code at 1 of 1 workers" in str(caught.value)

    try:
        until(refused)
    finally:
        made.close()


def test_a_cluster_that_does_not_answer_is_a_sentence(monkeypatch):
    monkeypatch.setattr("lwcore.searching.executors.CONNECT_SECONDS", 1)
    monkeypatch.setenv(CLUSTER, "tcp://127.0.0.1:9")
    with pytest.raises(SearchError, match="expected a Dask scheduler"):
        open_pool()


def test_a_missing_package_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setenv(CLUSTER, "tcp://127.0.0.1:9")
    with pytest.raises(SearchError, match="not installed"):
        open_pool()
