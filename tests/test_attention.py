"""Attention and its relatives: every way in which exporters write them is cut to the law."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lwcore.analysis.coupling import Coupling, couple
from lwcore.graph import Graph, attributes
from lwcore.model import Model
from lwcore.slimming.rewrite import cut, keep_any
from lwcore.sources.normalise import normalise
from tests.helpers import assert_law

Node = onnx.NodeProto
TOKENS, WIDTH, HEADS = 6, 12, 3


class Net:
    """A graph written line by line: `net("MatMul", x, (12, 8))` adds a node and gives the name of its result."""

    def __init__(self, **inputs: Sequence[int | str]) -> None:
        self.nodes: list[Node] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.inputs = inputs
        self.rng = np.random.default_rng(0)

    def __call__(
        self, operator: str, *operands: str | tuple[int, ...] | np.ndarray | list[int], **options: object
    ) -> str:
        names = [o if isinstance(o, str) else self.constant(o) for o in operands]
        result = f"{operator}_{len(self.nodes)}"
        count = options.pop("outputs", None)
        results = [result] if count is None else [f"{result}_{i}" for i in range(count)]  # type: ignore[call-overload]
        self.nodes.append(helper.make_node(operator, names, results, name=result, **options))
        return result

    def constant(self, value: tuple[int, ...] | np.ndarray | list[int]) -> str:
        """A weight of a shape (tuple), a given array, or whole numbers (list)."""
        name = f"c{len(self.arrays)}"
        if isinstance(value, tuple):
            fan = max(1, value[-2]) if len(value) > 1 else 1
            value = (self.rng.standard_normal(value) / np.sqrt(fan)).astype(np.float32)
        self.arrays[name] = np.asarray(value, np.int64) if isinstance(value, list) else value
        return name

    def model(self, *outputs: str, opset: int = 17) -> Model:
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in self.inputs.items()],
            [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs],
            [numpy_helper.from_array(a, n) for n, a in self.arrays.items()],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
        return Model(data=normalise(proto)[0])


def _tokens() -> tuple[Net, str]:
    """A net whose input was embedded: (batch, tokens, width)."""
    net = Net(x=["batch", TOKENS, 5])
    return net, net("MatMul", "x", (5, WIDTH))


def _heads(net: Net, x: str, perm: Sequence[int]) -> str:
    return net("Transpose", net("Reshape", x, [0, TOKENS, HEADS, WIDTH // HEADS]), perm=perm)


def _merged(net: Net, x: str) -> str:
    return net("Reshape", net("Transpose", x, perm=[0, 2, 1, 3]), [0, TOKENS, WIDTH])


def _free(coupling: Coupling) -> set[str]:
    return {group.name for group in coupling.groups}


def _only_output_stays(coupling: Coupling) -> None:
    """Positions that a table of an einsum makes are no channels: they stay too."""
    stuck = [f for f in coupling.frozen if not f.layer.startswith("Einsum")]
    assert {f.reason for f in stuck} == {"it is the network's output"}


def _one_qkv(net: Net, x: str) -> str:
    packed = net("Add", net("MatMul", x, (WIDTH, 3 * WIDTH)), (3 * WIDTH,))
    split = net("Reshape", packed, [0, TOKENS, 3, HEADS, WIDTH // HEADS])
    stack = net("Transpose", split, perm=[2, 0, 3, 1, 4])
    q, k, v = (net("Gather", stack, np.array(i), axis=0) for i in range(3))
    scores = net("MatMul", q, net("Transpose", k, perm=[0, 1, 3, 2]))
    return _merged(net, net("MatMul", net("Softmax", scores, axis=-1), v))


def _three_layers(net: Net, x: str) -> str:
    q, k, v = (
        _heads(net, net("MatMul", x, (WIDTH, WIDTH)), perm) for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    )
    return _merged(net, net("MatMul", net("Softmax", net("MatMul", q, k), axis=-1), v))


def _cosine_with_bias_table(net: Net, x: str) -> str:
    """Swin v2: unit vectors, a temperature and a table of position biases for each head."""
    sides = []
    for perm in ([0, 2, 1, 3], [0, 2, 1, 3]):
        side = _heads(net, net("MatMul", x, (WIDTH, WIDTH)), perm)
        norm = net("Max", net("ReduceL2", side, axes=[-1], keepdims=1), np.float32([1e-6]))
        sides.append(net("Div", side, net("Expand", norm, [1, HEADS, TOKENS, WIDTH // HEADS])))
    scores = net("MatMul", sides[0], net("Transpose", sides[1], perm=[0, 1, 3, 2]))
    scores = net("Add", net("Mul", scores, (HEADS, 1, 1)), (1, HEADS, TOKENS, TOKENS))
    values = _heads(net, net("MatMul", x, (WIDTH, WIDTH)), [0, 2, 1, 3])
    return _merged(net, net("MatMul", net("Softmax", scores, axis=-1), values))


def _einsum_with_positions(net: Net, x: str) -> str:
    """MaxViT and MViT v2: einsum for the products, relative positions multiplied with the queries."""
    q, k, v = (_heads(net, net("MatMul", x, (WIDTH, WIDTH)), [0, 2, 1, 3]) for _ in range(3))
    scores = net("Einsum", q, k, equation="bhid,bhjd->bhij")
    place = net("Einsum", q, (TOKENS, TOKENS, WIDTH // HEADS), equation="bhid,ijd->bhij")
    weights = net("Softmax", net("Add", scores, place), axis=-1)
    return _merged(net, net("Einsum", weights, v, equation="...ij,...jd->...id"))


@pytest.mark.parametrize("attention", [_one_qkv, _three_layers, _cosine_with_bias_table, _einsum_with_positions])
def test_embedding_and_head_width_are_cut_together_with_the_norm(attention: object) -> None:
    net, x = _tokens()
    inner = net("LayerNormalization", x, (WIDTH,), (WIDTH,), axis=-1)
    x = net("Add", x, net("MatMul", attention(net, inner), (WIDTH, WIDTH)))  # type: ignore[operator]
    x = net("Add", x, net("MatMul", net("Tanh", net("MatMul", x, (WIDTH, 20))), (20, WIDTH)))
    _only_output_stays(assert_law(net.model(net("MatMul", x, (WIDTH, 4)))))


def test_channels_that_attend_to_each_other_are_cut_on_both_axes_of_the_scores() -> None:
    net, x = _tokens()
    q, k, v = (_heads(net, net("MatMul", x, (WIDTH, WIDTH)), [0, 2, 3, 1]) for _ in range(3))
    scores = net("MatMul", q, net("Transpose", k, perm=[0, 1, 3, 2]))  # (batch, heads, width, width)
    mixed = net("MatMul", net("Softmax", scores, axis=-1), v)
    merged = net("Reshape", net("Transpose", mixed, perm=[0, 3, 1, 2]), [0, TOKENS, WIDTH])
    _only_output_stays(assert_law(net.model(net("MatMul", merged, (WIDTH, 4)))))


def test_a_mixer_loses_width_and_hidden_tokens() -> None:
    net, x = _tokens()
    turned = net("Transpose", x, perm=[0, 2, 1])
    hidden = net("Tanh", net("Add", net("MatMul", turned, (TOKENS, 10)), (10,)))
    x = net("Add", x, net("Transpose", net("MatMul", hidden, (10, TOKENS)), perm=[0, 2, 1]))
    coupling = assert_law(net.model(net("MatMul", x, (WIDTH, 4))))
    assert sorted(g.channels for g in coupling.groups) == [10, WIDTH]
    assert sorted(coupling.tensors["Tanh_4"]) == [1, 2]


@pytest.mark.parametrize("flat", [False, True])
def test_a_class_token_that_is_repeated_for_every_sample_shrinks_with_the_embedding(flat: bool) -> None:
    net, x = _tokens()
    batch = net("Slice", net("Shape", x), [0], [1])
    if flat:
        token = net("Unsqueeze", net("Expand", (WIDTH,), net("Concat", batch, [WIDTH], axis=0)), [1])
    else:
        token = net("Expand", (1, 1, WIDTH), net("Concat", batch, [1, WIDTH], axis=0))
    x = net("Add", net("Concat", token, x, axis=1), (1, TOKENS + 1, WIDTH))
    first = net("Gather", x, np.array(0), axis=1)
    coupling = assert_law(net.model(net("Gemm", first, (WIDTH, 4))))
    assert [g.channels for g in coupling.groups] == [WIDTH]


def test_a_repeated_tensor_with_several_readers_stays_and_holds_what_it_meets() -> None:
    net, x = _tokens()
    wide = net("Expand", net("ReduceMean", "x", axes=[-1], keepdims=1), [1, TOKENS, WIDTH])
    x = net("Add", net("Mul", x, wide), wide)
    coupling = couple(net.model(net("MatMul", x, (WIDTH, 4))))
    assert not coupling.groups
    assert "cannot be removed" in coupling.frozen[0].reason


def test_heads_with_weights_of_their_own_share_their_width() -> None:
    net, x = _tokens()
    one = net("Unsqueeze", x, [1])
    each = net("MatMul", one, (1, HEADS, WIDTH, 8))
    back = net("ReduceSum", net("MatMul", net("Tanh", each), (HEADS, 8, WIDTH)), [1], keepdims=0)
    coupling = assert_law(net.model(net("MatMul", back, (WIDTH, 4))))
    assert sorted(g.channels for g in coupling.groups) == [8, WIDTH, WIDTH]


def test_a_matrix_times_a_vector_is_a_layer_with_one_output() -> None:
    net, x = _tokens()
    assert assert_law(net.model(net("MatMul", x, (WIDTH,)))).groups[0].channels == WIDTH


@pytest.mark.parametrize("rank", [3, 4])
def test_the_fused_attention_keeps_its_scale(rank: int) -> None:
    net, x = _tokens()
    q, k, v = (net("MatMul", x, (WIDTH, WIDTH)) for _ in range(3))
    if rank == 4:
        q, k, v = (_heads(net, side, [0, 2, 1, 3]) for side in (q, k, v))
        merged = _merged(net, net("Attention", q, k, v, scale=0.5))
    else:
        merged = net("Attention", q, k, v, scale=0.5, q_num_heads=HEADS, kv_num_heads=HEADS)
    _only_output_stays(assert_law(net.model(net("MatMul", merged, (WIDTH, 4)), opset=23)))


def test_the_fused_attention_without_a_scale_is_given_the_one_it_had() -> None:
    net, x = _tokens()
    q, k, v = (net("MatMul", x, (WIDTH, WIDTH)) for _ in range(3))
    fused = net("Attention", q, k, v, q_num_heads=HEADS, kv_num_heads=HEADS)
    model = net.model(net("MatMul", fused, (WIDTH, 4)), opset=23)
    coupling = couple(model)
    slim = cut(Graph.of(model), coupling, keep_any(coupling, {g.name: 2 for g in coupling.groups}))
    node = next(n for n in slim.nodes if n.op_type == "Attention")
    assert attributes(node)["scale"] == pytest.approx((WIDTH / HEADS) ** -0.5)


# -- norms and other statistics over channels ------------------------------------------------------------------------


def _written_out(net: Net, x: str) -> str:
    centred = net("Sub", x, net("ReduceMean", x, axes=[-1]))
    spread = net("Sqrt", net("Add", net("ReduceMean", net("Mul", centred, centred), axes=[-1]), np.float32([1e-5])))
    return net("Add", net("Mul", net("Div", centred, spread), (WIDTH,)), (WIDTH,))


def _attended(net: Net, x: str) -> str:
    """Channel attention's spatial half: mean and maximum over channels make a gate."""
    gate = net("Add", net("ReduceMean", x, axes=[-1]), net("ReduceMax", x, axes=[-1]))
    return net("Mul", x, net("Sigmoid", gate))


@pytest.mark.parametrize(
    "norm",
    [
        _written_out,
        _attended,
        lambda net, x: net("LpNormalization", x, axis=-1, p=2),
        lambda net, x: net("MeanVarianceNormalization", x, axes=[2]),
        lambda net, x: net("Softmax", x, axis=-1),
    ],
)
def test_statistics_over_removable_channels_leave_out_what_is_gone(norm: object) -> None:
    net, x = _tokens()
    _only_output_stays(assert_law(net.model(net("MatMul", norm(net, x), (WIDTH, 4)))))  # type: ignore[operator]


def test_an_rms_norm_is_cut() -> None:
    net, x = _tokens()
    normed = net("RMSNormalization", x, (WIDTH,), axis=-1)
    _only_output_stays(assert_law(net.model(net("MatMul", normed, (WIDTH, 4)), opset=23)))


def _picture(channels: int) -> tuple[Net, str]:
    net = Net(x=["batch", 3, 6, 6])
    return net, net("Conv", "x", (channels, 3, 3, 3))


@pytest.mark.parametrize(("groups", "units"), [(8, 8), (2, 8), (1, 16), (16, 16)])
def test_group_norms_lose_whole_groups_or_the_same_channel_of_each(groups: int, units: int) -> None:
    net, x = _picture(16)
    normed = net("GroupNormalization", x, (16,), (16,), num_groups=groups)
    coupling = assert_law(net.model(net("Conv", normed, (4, 16, 1, 1)), opset=21))
    assert [g.channels for g in coupling.groups] == [units]


@pytest.mark.parametrize(("groups", "units"), [(8, 8), (2, 8), (1, 16)])
def test_group_norms_written_as_instance_norms_are_cut(groups: int, units: int) -> None:
    net, x = _picture(16)
    flat = net("Reshape", x, [0, groups, -1])
    normed = net("InstanceNormalization", flat, np.ones(groups, np.float32), np.zeros(groups, np.float32))
    back = net("Mul", net("Reshape", normed, [-1, 16, 4, 4]), (16, 1, 1))
    coupling = assert_law(net.model(net("Conv", back, (4, 16, 1, 1))))
    assert [g.channels for g in coupling.groups] == [units]


def test_local_response_normalisation_looks_at_the_neighbours_that_are_left() -> None:
    net, x = _picture(16)
    _only_output_stays(assert_law(net.model(net("Conv", net("LRN", x, size=5, alpha=0.5), (4, 16, 1, 1)))))


@pytest.mark.parametrize("operator", ["ArgMax", "TopK"])
def test_the_number_of_a_channel_cannot_be_kept_when_channels_go(operator: str) -> None:
    net, x = _picture(8)
    net("Conv", x, (4, 8, 1, 1))
    places = net("ArgMax", x, axis=1) if operator == "ArgMax" else net("TopK", x, [2], axis=1, outputs=2) + "_1"
    found = couple(net.model("Conv_1", net("Cast", places, to=TensorProto.FLOAT)))
    assert not found.groups
    assert found.frozen[0].meant
    assert "number" in found.frozen[0].reason


# -- channels that become places -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_that_becomes_space_goes_in_whole_squares(mode: str) -> None:
    net, x = _picture(16)
    big = net("DepthToSpace", x, blocksize=2, mode=mode)
    coupling = assert_law(net.model(net("Conv", big, (4, 4, 1, 1))))
    assert [g.channels for g in coupling.groups] == [4]


def test_space_that_becomes_depth_keeps_every_channel_apart() -> None:
    net, x = _picture(8)
    coupling = assert_law(net.model(net("Conv", net("SpaceToDepth", x, blocksize=2), (4, 32, 1, 1))))
    assert [g.channels for g in coupling.groups] == [8]


@pytest.mark.parametrize(("inputs", "width", "groups"), [(8, 1, 8), (8, 6, 2), (8, 3, 4), (8, 6, 1)])
def test_transposed_convolutions_are_cut_grouped_or_not(inputs: int, width: int, groups: int) -> None:
    net, x = _picture(inputs)
    up = net("ConvTranspose", x, (inputs, width, 2, 2), (width * groups,), group=groups, strides=[2, 2])
    _only_output_stays(assert_law(net.model(net("Conv", up, (4, width * groups, 1, 1)))))


@pytest.mark.parametrize(("outputs", "groups"), [(8, 8), (16, 8), (2, 2), (8, 2), (8, 4)])
def test_grouped_convolutions_are_cut_whatever_the_groups(outputs: int, groups: int) -> None:
    net, x = _picture(8)
    y = net("Conv", x, (outputs, 8 // groups, 3, 3), group=groups)
    assert _free(assert_law(net.model(net("Conv", y, (4, outputs, 1, 1))), share=0.5))


def test_pictures_that_are_looked_up_elsewhere_lose_channels() -> None:
    net, x = _picture(8)
    grid = net("Transpose", net("Tanh", net("Conv", "x", (2, 3, 3, 3))), perm=[0, 2, 3, 1])
    coupling = assert_law(net.model(net("Conv", net("GridSample", x, grid), (4, 8, 1, 1))))
    assert {f.layer: f.reason.split(" (")[0] for f in coupling.frozen}["Conv_1"] == "its channels say where to look"


def test_what_a_missing_rule_leads_to_counts_as_ignorance() -> None:
    net, x = _picture(8)
    y = net("Conv", "x", (8, 3, 3, 3))
    odd = net("CumSum", y, np.array(1))
    coupling = couple(net.model(net("Conv", net("Add", x, odd), (4, 8, 1, 1))))
    assert {f.layer: f.meant for f in coupling.frozen} == {"Conv_0": False, "Conv_1": False, "Conv_4": True}
