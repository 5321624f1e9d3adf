"""Measuring on the pages: looking at jobs stays cheap however many wait."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from pages.ui import measuring, service, turn


@pytest.mark.parametrize("waiting", [0, 1, 5, 30, 200])
def test_all_tabs_together_look_as_often_however_many_wait(monkeypatch: pytest.MonkeyPatch, waiting: int) -> None:
    monkeypatch.setattr(service, "jobs", lambda: SimpleNamespace(waited_for=lambda: waiting))
    looks = waiting / measuring.pace()
    assert looks <= measuring._POLLS_PER_SECOND + 1e-9
    assert measuring.pace() >= measuring._POLL_SECONDS
    if waiting < 2:
        assert measuring.pace() == measuring._POLL_SECONDS


def test_a_slow_server_is_looked_at_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "jobs", lambda: SimpleNamespace(waited_for=lambda: 1))
    clock = SimpleNamespace(monotonic=lambda: 100.0)
    monkeypatch.setattr(measuring, "time", clock)
    monkeypatch.setattr(measuring, "st", SimpleNamespace(session_state={}))
    measuring.start_clock()
    clock.monotonic = lambda: 101.0
    assert measuring.pace() == measuring._RUNS_BETWEEN


def test_pages_are_drawn_one_after_the_other_but_none_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    held, go = threading.Event(), threading.Event()

    def slow() -> None:
        with turn.turn():
            held.set()
            go.wait(60)
            drawn.append("slow")

    first = threading.Thread(target=slow)
    first.start()
    held.wait(60)
    monkeypatch.setattr(turn, "_PATIENCE", 0.01)
    with turn.turn(), turn.turn():  # within a run of the page a fragment is drawn, too
        drawn.append("impatient")
    go.set()
    first.join(60)
    with turn.turn():
        drawn.append("next")
    assert drawn == ["impatient", "slow", "next"]


def test_what_is_asked_again_and_again_is_worked_out_once_a_drawing() -> None:
    """For each argument, by its identity; again in the next drawing, after `ask_again`, and outside of any."""
    asked: list[object] = []

    @turn.once
    def answer(*arguments: object) -> int:
        asked.append(arguments)
        return len(asked)

    first, second = [1], [1]
    assert (answer(), answer()) == (1, 2)
    with turn.turn():
        assert (answer(first), answer(first), answer(second), answer(), answer()) == (3, 3, 4, 5, 5)
        turn.ask_again(answer)
        assert (answer(), answer(first)) == (6, 7)
    with turn.turn():
        assert answer() == 8
    turn.ask_again(answer)
    assert answer() == 9
