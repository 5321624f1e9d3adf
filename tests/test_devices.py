"""What a model asks of a device: its memory, its arithmetic, and the cards of devices."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from onnx import TensorProto, helper

import lwcore
from lwcore.analysis.cost import cost
from lwcore.graph import Graph
from lwcore.searching.devices import DEVICES, Device, fit
from lwcore.searching.footprint import Footprint, footprint, peak_ram
from tests.search_world import MODEL


@pytest.fixture(scope="module")
def model():
    return lwcore.load(MODEL)


def graph_of(*nodes, size=10, constants=()):
    """A graph of float vectors of ten that takes `x` and gives the last node's first output."""
    out = nodes[-1].output[0]
    names = [name for node in nodes for name in node.output if name != out]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, size]) for n in ("x", *names, out)]
    body = helper.make_graph(list(nodes), "g", infos[:1], infos[-1:], list(constants), value_info=infos[1:-1])
    return Graph(helper.make_model(body))


def node(kind, inputs, output):
    return helper.make_node(kind, inputs, [output])


def test_peak_memory_is_the_largest_sum_alive_at_once():
    chain = graph_of(node("Sin", ["x"], "a"), node("Cos", ["a"], "b"), node("Sin", ["b"], "y"))
    assert peak_ram(chain) == 2 * 40
    shortcut = graph_of(node("Sin", ["x"], "a"), node("Cos", ["a"], "b"), node("Add", ["b", "x"], "y"))
    assert peak_ram(shortcut) == 3 * 40


def test_views_and_what_runs_in_place_take_no_memory():
    viewed = graph_of(
        node("Sin", ["x"], "a"), node("Identity", ["a"], "b"), node("Relu", ["b"], "c"), node("Sin", ["c"], "y")
    )
    assert peak_ram(viewed) == 2 * 40
    read_twice = graph_of(node("Sin", ["x"], "a"), node("Relu", ["a"], "b"), node("Add", ["a", "b"], "y"))
    assert peak_ram(read_twice) == 3 * 40


def test_a_view_keeps_alive_what_it_looks_at():
    graph = graph_of(
        node("Sin", ["x"], "a"), node("Identity", ["a"], "v"), node("Cos", ["x"], "b"), node("Cos", ["b"], "c"),
        node("Add", ["v", "c"], "y"),
    )  # fmt: skip
    assert peak_ram(graph) == 3 * 40


def alive_one_by_one(graph):
    """The peak by its definition: the activations that are alive, listed anew for every operator that runs."""
    uses = [(set(step.input), set(step.output)) for step in graph.nodes]
    alive, peak = set(graph.inputs), 0
    for index, (_, made) in enumerate(uses):
        alive |= made
        peak = max(peak, sum(4 * math.prod(graph.shapes[name]) for name in alive))
        later = set(graph.outputs).union(*(read for read, _ in uses[index + 1 :]))
        alive &= later
    return peak


@pytest.mark.parametrize("seed", range(8))
def test_peak_memory_is_what_listing_the_living_gives(seed):
    rng = np.random.default_rng(seed)
    names, nodes = ["x"], []
    for index in range(60):
        read = [names[i] for i in rng.integers(max(0, len(names) - 9), len(names), 2)]
        nodes.append(node("Add", read, f"t{index}"))
        names.append(f"t{index}")
    graph = graph_of(*nodes)
    graph.shapes |= {name: (1, int(rng.integers(1, 100))) for name in names}
    assert peak_ram(graph) == alive_one_by_one(graph)


def test_int8_takes_a_quarter_of_the_memory(model):
    step = lwcore.Precision(format="int8-static", variant="u8u8", samples=8)
    calibration = lwcore.load_samples("fashion-calibration", model, limit=8)
    slim = lwcore.apply(model, lwcore.Recipe(steps=(step,)), samples=calibration)
    assert footprint(slim.model).ram_bytes == footprint(model).ram_bytes / 4


def test_a_footprint_adds_up_to_the_model_and_survives_json(model):
    needs = footprint(model)
    assert sum(load.macs for load in needs.loads) == cost(model).macs
    assert needs.file_bytes == model.size_bytes
    assert Footprint.from_json(json.loads(json.dumps(needs.to_json()))) == needs


def test_latency_is_the_slower_of_arithmetic_and_memory_and_names_the_bottleneck(model):
    def times(macs, moved):
        card = Device(flash_bytes=1e9, ram_bytes=1e9, macs_per_second=macs, bytes_per_second=moved)
        return fit(model, card)

    computing, moving = times(1e6, 1e15), times(1e15, 1e6)
    assert computing.latency_ms == pytest.approx(1000 * cost(model).macs / 1e6)
    assert computing.bottleneck.bound == "compute"
    assert moving.bottleneck.bound == "memory"
    both = times(1e6, 1e6)
    assert max(computing.latency_ms, moving.latency_ms) <= both.latency_ms
    assert both.latency_ms <= computing.latency_ms + moving.latency_ms


def test_room_is_judged_to_the_byte(model):
    needs = footprint(model)

    def card(flash, ram):
        return Device(flash_bytes=flash, ram_bytes=ram, macs_per_second=1e9, bytes_per_second=1e9)

    assert fit(model, card(needs.file_bytes, needs.ram_bytes)).fits
    assert not fit(model, card(needs.file_bytes - 1, needs.ram_bytes)).fits
    assert not fit(model, card(needs.file_bytes, needs.ram_bytes - 1)).fits


def test_every_shipped_device_is_labelled_as_pretend_and_survives_json():
    for name, device in DEVICES.items():
        assert device.title.startswith("Pretend")
        assert Device.from_json(name) == Device.from_json(device.to_json()) == device
