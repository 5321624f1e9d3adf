"""Targets: what may be asked for, how it reads, and when a limit is kept."""

from __future__ import annotations

import json
import math

import pytest

import lwcore
from lwcore.analysis.cost import cost
from lwcore.errors import LwcoreError
from lwcore.recipe import Recipe
from lwcore.searching.beliefs import Goal
from lwcore.searching.devices import DEVICES
from lwcore.searching.targets import Target, limits
from lwcore.searching.trials import Trial
from tests.search_world import MODEL, World


@pytest.mark.parametrize(
    "data",
    [
        {"drop": 1},
        {"size_bytes": 256000, "prefer": "speed"},
        {"speedup": 2, "macs": 0.5},
        {"device": "microcontroller", "latency_ms": 50},
    ],
)
def test_a_target_survives_json(data):
    target = Target.from_json(data)
    assert Target.from_json(json.loads(json.dumps(target.to_json()))) == target


@pytest.mark.parametrize(
    ("data", "where"),
    [
        ({}, "at least one of"),
        ({"drop": None}, "at least one of"),
        ([], "named limits"),
        ({"drop": -1}, "target.drop"),
        ({"drop": "1"}, "target.drop"),
        ({"drop": True}, "target.drop"),
        ({"size_bytes": 0}, "target.size_bytes"),
        ({"speedup": math.nan}, "target.speedup"),
        ({"macs": 0}, "target.macs"),
        ({"drop": 1, "prefer": "beauty"}, "target.prefer"),
        ({"drop": 1, "speed": 2}, "target.speed"),
        ({"device": "nosuch"}, "microcontroller"),
        ({"device": {"flash_bytes": 1}}, "target.device.ram_bytes"),
        ({"device": {"colour": 1}}, "target.device.colour"),
    ],
)
def test_a_bad_target_is_a_sentence_that_names_the_fault(data, where):
    with pytest.raises(LwcoreError, match=where):
        Target.from_json(data)


def test_what_is_preferred_follows_from_what_is_limited():
    assert Target(drop=1).wanted == "size"
    assert Target(size_bytes=1000).wanted == "accuracy"
    assert Target(drop=1, speedup=2).wanted == "accuracy"
    assert Target(drop=1, prefer="macs").wanted == "macs"


def test_a_share_of_the_macs_is_a_count_of_this_model():
    assert [limit.value for limit in limits(Target(macs=0.5), 1000)] == [500]
    assert [limit.value for limit in limits(Target(macs=70), 1000)] == [70]


def test_a_limit_is_kept_on_the_digit_and_missed_beyond_it():
    (limit,) = limits(Target(speedup=2), 1)
    assert limit.met(2.0)
    assert not limit.met(1.999)
    assert limit.beyond(1.0) == 1.0
    assert limit.beyond(3.0) == 0.0


def test_a_goal_scales_every_number_it_limits():
    model = lwcore.load(MODEL)
    world = World(model)
    target = Target(drop=1, macs=0.5, size_bytes=1000, device=DEVICES["microcontroller"], latency_ms=5)
    goal = Goal.of(target, cost(model).macs)
    assert {limit.name for limit in goal.limits} <= goal.raw(world.trial(Recipe())).keys()
    assert goal.misses(world.trial(Recipe())) > 0
    assert goal.misses(Trial(recipe=Recipe(), error="no")) == math.inf
