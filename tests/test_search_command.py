"""A search as it is asked for from outside: the task of a worker and the command line."""

from __future__ import annotations

import json

import pytest

import lwcore
from lwcore.cli import main
from lwcore.errors import SearchError
from lwcore.jobs.tasks import run_task
from lwcore.scenarios import Attempt
from lwcore.searching.executors import Pool
from lwcore.searching.journal import place, so_far
from lwcore.searching.problem import SPLIT_FROM
from lwcore.searching.targets import Target
from lwcore.store import Store
from tests.search_world import MODEL, Inline, World, found_in


@pytest.fixture(scope="module")
def model():
    return lwcore.load(MODEL)


@pytest.fixture(scope="module")
def samples(model):
    return lwcore.load_samples("fashion-test", model, limit=SPLIT_FROM)


def test_the_task_keeps_model_and_journal_in_the_store(tmp_path, samples, monkeypatch):
    monkeypatch.setattr("lwcore.searching.find.open_pool", lambda executor: _inline_pool())
    monkeypatch.setattr("lwcore.searching.task.LEAST_SECONDS", 0.1)
    store = Store(tmp_path)
    few = lwcore.load_samples("fashion-calibration", lwcore.load(MODEL), limit=32)
    arguments = {"model": MODEL, "samples": store.put_samples(samples), "target": {"drop": 5}, "seconds": 2, "seed": 0}
    arguments["calibration"] = store.put_samples(few)
    assert so_far(store, arguments) == []
    result = json.loads(json.dumps(run_task("search", arguments, store, lambda *_: None)))
    assert store.model(result["model"]).size_bytes == result["after"]["size_bytes"]
    assert so_far(store, arguments) == so_far(store, arguments | {"seconds": 60})
    assert len(so_far(store, arguments)) == len(result["trials"]) - 1
    assert place(store, arguments) != place(store, arguments | {"seed": 1})
    assert Attempt.from_result(MODEL, arguments["samples"], result).evaluation.n == len(samples)


def _inline_pool():
    return Pool(executor=Inline(), workers=1, share=lambda data: data, close=lambda: None)


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"seconds": "x"}, {"seed": -1}, {"target": {"drop": -1}}])
def test_bad_arguments_of_the_task_are_sentences(tmp_path, wrong):
    arguments = {"model": MODEL, "samples": "fashion-test", "target": {"drop": 1}} | wrong
    with pytest.raises(SearchError):
        run_task("search", arguments, Store(tmp_path), lambda *_: None)


@pytest.mark.parametrize(
    "options",
    [
        ("--samples", "fashion-test"),
        ("--drop", "1"),
        ("--samples", "fashion-test", "--drop", "x"),
        ("--samples", "fashion-test", "--drop", "-1"),
        ("--samples", "fashion-test", "--size-kb", "0"),
        ("--samples", "fashion-test", "--device", "nosuch"),
        ("--samples", "fashion-test", "--device", "/no/such.json"),
        ("--samples", "fashion-test", "--drop", "1", "--prefer", "beauty"),
        ("--samples", "fashion-test", "--drop", "1", "--trials", "0"),
        ("--samples", "nosuch", "--drop", "1"),
        ("--samples", "fashion-test", "--drop", "1", "--out", "x.bin"),
    ],
    ids=" ".join,
)
def test_bad_options_of_the_command_are_one_sentence(capsys, options):
    assert main(["search", MODEL, *options]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert "fault of lwcore" not in told.err


def test_the_command_tells_what_was_found_and_writes_it(capsys, model, samples, monkeypatch, tmp_path):
    found = found_in(World(model), samples, Target(drop=1), trials=6)
    monkeypatch.setattr(lwcore, "search", lambda *arguments, **options: found)
    out = tmp_path / "small.onnx"
    told = ["search", MODEL, "--samples", "fashion-test", "--drop", "1", "--out", str(out)]
    assert main([*told, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["met"]
    assert lwcore.load(str(out)).data == found.slimmed.model.data
    assert main(told) == 0
    assert "points lost" in capsys.readouterr().out
