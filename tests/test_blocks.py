"""Residual blocks: finding, dropping and making good."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from onnx import helper

import lwcore
from lwcore import Blocks, Channels, Recipe
from lwcore.answers import feed
from lwcore.errors import SlimError
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.runtime import run, session
from lwcore.samples import SampleSet
from lwcore.slimming.blocks import blocks, dropping_order, without
from tests.tiny import finish, tiny_samples

NAME = "fashion-mobilenetv2"


@pytest.fixture(scope="module")
def net() -> Model:
    return lwcore.load(NAME)


@pytest.fixture(scope="module")
def calibration(net: Model) -> SampleSet:
    return lwcore.load_samples("fashion-calibration", net).take(64)


@pytest.fixture(scope="module")
def order(net: Model, calibration: SampleSet) -> tuple[str, ...]:
    return dropping_order(net, calibration)


def _logits(model: Model, samples: SampleSet) -> np.ndarray:
    return run(session(model.data), feed(model, samples))[0]


def _residual(*extra: object, add: tuple[str, str] = ("s", "b2"), last: str = "t") -> Model:
    """Two layers beside a shortcut, and what else is asked for, then three classes."""
    rng = np.random.default_rng(0)
    tensors = {
        "w": rng.standard_normal((8, 1, 3, 3)),
        "w1": rng.standard_normal((8, 8, 3, 3)),
        "w2": rng.standard_normal((8, 8, 1, 1)),
        "f": rng.standard_normal((3, 8)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["s"], pads=[1] * 4, name="stem"),
        helper.make_node("Conv", ["s", "w1"], ["b1"], pads=[1] * 4, name="one"),
        helper.make_node("Conv", ["b1", "w2"], ["b2"], name="two"),
        helper.make_node("Add", list(add), ["t"], name="sum"),
        *extra,
        helper.make_node("GlobalAveragePool", [last], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["q"], name="flat"),
        helper.make_node("Gemm", ["q", "f"], ["y"], transB=1, name="fc"),
    ]
    return finish(nodes, tensors)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "count"), [("fashion-resnet20", 7), (NAME, 5), ("fashion-efficientnet", 3), ("fashion-squeezenet", 0)]
)
def test_blocks_with_a_free_shortcut_are_found(name: str, count: int) -> None:
    assert len(blocks(lwcore.load(name))) == count


def test_a_block_names_its_layers_and_their_macs() -> None:
    (block,) = blocks(_residual())
    assert (block.name, block.layers) == ("sum", ("one", "two"))
    assert block.macs == 64 * (8 * 8 * 9 + 8 * 8)


def test_the_shortcut_may_stand_on_either_side() -> None:
    assert blocks(_residual(add=("b2", "s")))[0].shortcut == "s"


def test_a_sum_of_two_branches_is_no_block() -> None:
    assert blocks(_residual(add=("b1", "b2")))[0].shortcut == "b1"  # b2 is a layer beside b1
    other = helper.make_node("Add", ["t", "x"], ["u"], name="outer")
    assert [b.name for b in blocks(_residual(other, last="u"))] == ["sum"]


def test_layers_that_others_read_stay() -> None:
    model = _residual(helper.make_node("Add", ["t", "b1"], ["u"], name="late"), last="u")
    block = next(b for b in blocks(model) if b.name == "sum")
    assert block.layers == ("two",)


def test_a_block_that_adds_nothing_can_go_without_a_trace(net: Model) -> None:
    graph, block = Graph.of(net), blocks(net)[2]
    last = next(n for n in graph.nodes if n.name == block.layers[-1])
    for name in last.input[1:]:
        graph.constants[name] = np.zeros_like(graph.constants[name])
    dull = dataclasses.replace(net, data=graph.serialize())
    slim = lwcore.apply(
        dataclasses.replace(dull, card=dataclasses.replace(net.card, calibration=None)), _named(block.name)
    )
    test = lwcore.load_samples("fashion-test", net).take(32)
    np.testing.assert_allclose(_logits(slim.model, test), _logits(dull, test), rtol=1e-4, atol=1e-4)
    assert slim.before.macs - slim.after.macs == block.macs
    assert any("No samples" in note for note in slim.notes)


def _named(*names: str) -> Recipe:
    return Recipe(steps=(Blocks(names=names),))


def test_an_unknown_name_is_said(net: Model) -> None:
    with pytest.raises(SlimError, match="nonsense"):
        lwcore.plan(net, _named("nonsense"))


def test_names_win_over_the_amount(net: Model) -> None:
    name = blocks(net)[1].name
    both = lwcore.plan(net, Recipe(steps=(Blocks(amount=0.9, names=(name,)),)))
    assert both.after == lwcore.plan(net, _named(name)).after


def test_a_plan_with_the_order_is_exact(net: Model, calibration: SampleSet, order: tuple[str, ...]) -> None:
    recipe = Recipe(steps=(Blocks(amount=0.4),))
    plan, slim = lwcore.plan(net, recipe, order=order), lwcore.apply(net, recipe, calibration)
    assert (plan.after.params, plan.after.macs) == (slim.after.params, slim.after.macs)
    assert not plan.estimated
    rough = lwcore.plan(net, recipe)
    assert rough.estimated
    assert rough.needs == ("order",)


def test_macs_never_rise_with_the_amount(net: Model, order: tuple[str, ...]) -> None:
    found = [
        lwcore.plan(net, Recipe(steps=(Blocks(amount=amount / 10),)), order=order).after.macs for amount in range(10)
    ]
    assert found == sorted(found, reverse=True)
    assert found[0] == lwcore.cost(net).macs


def test_a_shorter_order_is_the_beginning_of_a_longer_one(
    net: Model, calibration: SampleSet, order: tuple[str, ...]
) -> None:
    assert dropping_order(net, calibration, 2) == order[:2]


def test_compensation_brings_the_answer_nearer_to_the_original(net: Model, calibration: SampleSet) -> None:
    names = [block.name for block in blocks(net)[1:3]]
    plain = dataclasses.replace(net, data=without(Graph.view(net), names).serialize())
    better = lwcore.apply(net, _named(*names), calibration)
    again = lwcore.apply(net, _named(*names), calibration)
    test = lwcore.load_samples("fashion-test", net).take(200)
    truth = _logits(net, test)
    assert np.mean((_logits(better.model, test) - truth) ** 2) < 0.3 * np.mean((_logits(plain, test) - truth) ** 2)
    assert better.model.data == again.model.data
    assert any(names[0] in note for note in better.notes)


def test_a_model_without_blocks_says_so() -> None:
    model = lwcore.load("fashion-squeezenet")
    slim = lwcore.apply(model, Recipe(steps=(Blocks(amount=0.5),)))
    assert slim.model.data == model.data
    assert any("no residual block" in note for note in slim.notes)


def test_choosing_without_samples_says_what_to_do() -> None:
    with pytest.raises(SlimError, match="calibration samples"):
        lwcore.apply(_residual(), Recipe(steps=(Blocks(amount=0.9),)))


def test_channels_can_go_after_blocks() -> None:
    model, samples = _residual(), tiny_samples(40)
    slim = lwcore.apply(model, Recipe(steps=(Blocks(names=("sum",)), Channels(amount=0.5, align=1))), samples)
    assert slim.after.macs < lwcore.plan(model, _named("sum")).after.macs


def test_a_sum_that_is_the_answer_stays_as_a_copy() -> None:
    model = _residual(last="t")
    graph = Graph.of(model)
    graph.outputs = [*graph.outputs, "t"]
    slim = without(graph, ["sum"])
    assert any(node.op_type == "Identity" and node.output[0] == "t" for node in slim.nodes)
