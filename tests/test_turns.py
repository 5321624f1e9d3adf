"""Turns: first come, first served, and nobody has two slots while another waits for one."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from lwcore.jobs.sandbox import Limits
from lwcore.jobs.table import Run
from lwcore.jobs.tasks import TASKS
from lwcore.jobs.turns import in_turn, next_runs
from lwcore.settings import SETTINGS

OWNERS = st.lists(st.sampled_from("abc"), max_size=12)


def run(owner, task="measure"):
    made = Run(key=owner, task=TASKS[task], arguments={}, limits=Limits(seconds=1, memory_mb=1))
    made.tickets = {owner}
    return made


def owners(found):
    return found.tickets


def names(runs):
    return "".join(next(iter(r.tickets)) for r in runs)


def test_of_equals_the_oldest_is_next():
    assert names(in_turn([run("a"), run("b"), run("c")], [], owners)) == "abc"
    assert names(in_turn([run("a"), run("a")], [], owners)) == "aa"


def test_whoever_has_fewest_running_is_next():
    assert names(in_turn([run("a"), run("a"), run("b")], [], owners)) == "aba"
    assert names(in_turn([run("a"), run("b")], [run("a")], owners)) == "ba"


@given(OWNERS, OWNERS)
def test_everybody_gets_a_turn_in_the_order_of_coming(waiting, running):
    queue = [run(name) for name in waiting]
    ordered = in_turn(queue, [run(name) for name in running], owners)
    assert sorted(map(id, ordered)) == sorted(map(id, queue))
    for name in set(waiting):
        mine = [r for r in queue if name in r.tickets]
        assert [r for r in ordered if name in r.tickets] == mine


@given(OWNERS, st.integers(0, 3), st.integers(0, 2))
def test_no_slot_stays_free_while_something_waits(waiting, slots, long_slots):
    settings = replace(SETTINGS, slots=slots, long_slots=long_slots)
    queue = [run(name, task) for name in waiting for task in ("measure", "search")]
    chosen = next_runs(queue, [], owners, settings, lambda kind: True)
    assert len([r for r in chosen if not r.task.long]) == min(slots, len(waiting))
    assert len([r for r in chosen if r.task.long]) == min(long_slots, len(waiting))


def test_a_kind_that_is_not_ready_lets_others_pass():
    queue = [run("a", "profile"), run("b")]
    assert names(next_runs(queue, [], owners, SETTINGS, lambda kind: kind == "onnx")) == "b"
