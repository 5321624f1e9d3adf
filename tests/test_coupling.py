"""Channel coupling: what the labels find on graphs small enough to check by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import lwcore
from lwcore.analysis.coupling import Coupling, couple
from lwcore.model import Model
from lwcore.sources.normalise import normalise

Node = onnx.NodeProto


def _model(
    nodes: Sequence[Node],
    weights: dict[str, tuple[int, ...] | np.ndarray],
    shape: Sequence[int],
    outputs: Sequence[str],
    opset: int = 17,
) -> Model:
    """A graph of one input `x`; weights given by shape are drawn at random."""
    rng = np.random.default_rng(0)
    arrays = {
        n: w if isinstance(w, np.ndarray) else rng.standard_normal(w).astype(np.float32) for n, w in weights.items()
    }
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return Model(data=normalise(proto)[0])


def _conv(x: str, w: str, y: str, **options: object) -> Node:
    return helper.make_node("Conv", [x, w], [y], name=f"conv_{w}", **options)


def _sizes(coupling: Coupling) -> dict[str, int]:
    return {g.name: g.channels for g in coupling.groups}


def test_two_layers_added_together_form_one_group() -> None:
    model = _model(
        [_conv("x", "a", "p"), _conv("x", "b", "q"), helper.make_node("Add", ["p", "q"], ["s"]), _conv("s", "c", "y")],
        {"a": (8, 3, 1, 1), "b": (8, 3, 1, 1), "c": (4, 8, 1, 1)},
        (1, 3, 5, 5),
        ["y"],
    )
    coupling = couple(model)
    assert _sizes(coupling) == {"conv_a": 8}
    assert coupling.groups[0].layers == ("conv_a", "conv_b", "conv_c")
    assert [f.layer for f in coupling.frozen] == ["conv_c"]
    assert coupling.frozen[0].meant


def test_layers_joined_by_concat_stay_apart() -> None:
    model = _model(
        [
            _conv("x", "a", "p"),
            _conv("x", "b", "q"),
            helper.make_node("Concat", ["p", "q"], ["s"], axis=1),
            _conv("s", "c", "y"),
        ],
        {"a": (8, 3, 1, 1), "b": (6, 3, 1, 1), "c": (4, 14, 1, 1)},
        (1, 3, 5, 5),
        ["y"],
    )
    assert _sizes(couple(model)) == {"conv_a": 8, "conv_b": 6}


def test_adding_the_input_freezes_with_a_reason() -> None:
    model = _model(
        [_conv("x", "a", "p"), helper.make_node("Add", ["p", "x"], ["s"], name="shortcut"), _conv("s", "c", "y")],
        {"a": (3, 3, 1, 1), "c": (4, 3, 1, 1)},
        (1, 3, 5, 5),
        ["y"],
    )
    frozen = {f.layer: f.reason for f in couple(model).frozen}
    assert "network's input" in frozen["conv_a"]
    assert "shortcut" in frozen["conv_a"]


def test_a_depthwise_layer_shrinks_with_the_layer_before_it() -> None:
    model = _model(
        [_conv("x", "a", "p"), _conv("p", "d", "q", group=8), _conv("q", "c", "y")],
        {"a": (8, 3, 1, 1), "d": (8, 1, 3, 3), "c": (4, 8, 1, 1)},
        (1, 3, 7, 7),
        ["y"],
    )
    coupling = couple(model)
    assert coupling.groups[0].layers == ("conv_a", "conv_d", "conv_c")
    assert coupling.grouped == {1: 1}


def test_flatten_ties_a_channel_to_all_its_features() -> None:
    nodes = [
        _conv("x", "a", "p"),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["y"], name="fc"),
    ]
    coupling = couple(_model(nodes, {"a": (8, 3, 1, 1), "w": (8 * 9, 4)}, (1, 3, 3, 3), ["y"]))
    assert _sizes(coupling) == {"conv_a": 8}
    assert len(np.unique(coupling.cuts["w", 0])) == 8


def test_a_channel_shuffle_unites_what_must_stay_rectangular() -> None:
    shape = np.array([1, 2, 4, 5, 5], np.int64)
    back = np.array([1, 8, 5, 5], np.int64)
    nodes = [
        _conv("x", "a", "p"),
        helper.make_node("Reshape", ["p", "shape"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", ["t", "back"], ["s"]),
        _conv("s", "c", "y"),
    ]
    coupling = couple(
        _model(nodes, {"a": (8, 3, 1, 1), "c": (4, 8, 1, 1), "shape": shape, "back": back}, (1, 3, 5, 5), ["y"])
    )
    assert _sizes(coupling) == {"conv_a": 4}
    classes = coupling.cuts["a", 0]
    assert (classes[:4] == classes[4:]).all()


def test_an_operator_without_a_rule_freezes_by_ignorance() -> None:
    nodes = [_conv("x", "a", "p"), helper.make_node("CumSum", ["p", "one"], ["s"], name="odd"), _conv("s", "c", "y")]
    coupling = couple(
        _model(nodes, {"a": (8, 3, 1, 1), "c": (4, 8, 1, 1), "one": np.array(1, np.int64)}, (1, 3, 5, 5), ["y"])
    )
    assert not coupling.groups
    assert [(f.layer, f.meant) for f in coupling.frozen] == [("conv_a", False), ("conv_c", True)]
    assert "CumSum" in coupling.frozen[0].reason


def test_attention_unites_queries_and_keys_and_keeps_heads_alike() -> None:
    heads = np.array([1, 6, 2, 4], np.int64)
    flat = np.array([1, 6, 8], np.int64)
    nodes = [helper.make_node("MatMul", ["x", w], [f"{w}0"], name=w) for w in ("q", "k", "v")]
    nodes += [helper.make_node("Reshape", [f"{w}0", "heads"], [f"{w}1"]) for w in ("q", "k", "v")]
    nodes += [
        helper.make_node("Transpose", [f"{w}1"], [f"{w}2"], perm=p)
        for w, p in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3]))
    ]
    nodes += [
        helper.make_node("MatMul", ["q2", "k2"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v2"], ["o"]),
        helper.make_node("Transpose", ["o"], ["o1"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["o1", "flat"], ["o2"]),
        helper.make_node("MatMul", ["o2", "out"], ["y"], name="out"),
    ]
    coupling = couple(
        _model(
            nodes,
            {"q": (5, 8), "k": (5, 8), "v": (5, 8), "out": (8, 3), "heads": heads, "flat": flat},
            (1, 6, 5),
            ["y"],
        )
    )
    assert _sizes(coupling) == {"q": 4, "v": 4}
    assert (coupling.cuts["q", 1] == coupling.cuts["k", 1]).all()


def test_nearly_every_channel_of_the_shuffle_network_can_go() -> None:
    coupling = couple(lwcore.load("fashion-shufflenetv2"))
    assert [f.reason for f in coupling.frozen] == ["it is the network's output"]
    # A unit that sits where no other does is a group of one, and the last of a group always stays.
    assert sum(g.channels for g in coupling.groups) >= 0.99 * (coupling.units - 1)


@pytest.mark.parametrize("name", list(lwcore.gallery()))
def test_groups_have_names_of_their_own_and_share_no_unit(name: str) -> None:
    groups = couple(lwcore.load(name)).groups
    assert len({g.name for g in groups}) == len(groups)
    units = np.concatenate([g.units for g in groups])
    assert len(units) == len(set(units.tolist()))
