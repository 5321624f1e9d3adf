"""The layer table: its columns add up to its totals, and those are the graph's and torch's own."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.utils.flop_counter import FlopCounterMode

from lwcore.analysis.cost import cost
from lwcore.analysis.profile import Profile, profile
from lwcore.bridge import to_torch
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.sources import builtin, load
from lwcore.sources.normalise import normalise
from tests.helpers import LIGHT, light

LARGE = ("vgg19", "zfnet512", "alexnet")
FILES = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * any(part in path.stem for part in LARGE))
    for path in LIGHT
]


def assert_adds_up(model: Model, table: Profile) -> None:
    """Columns against totals, totals against the graph, shapes against the graph's."""
    total = cost(model)
    for column in ("params", "macs", "weight_bytes", "activation_bytes"):
        assert sum(getattr(row, column) for row in table.layers) == getattr(table, column)
    assert (table.params, table.macs, table.weight_bytes) == (total.params, total.macs, total.weight_bytes)
    assert table.size_bytes == total.size_bytes
    graph = Graph.view(model)
    shapes = {node.name: graph.shapes[node.output[0]] for node in graph.nodes}
    assert all(row.output_shape == shapes[row.name] for row in table.layers)


def counted_by_torch(model: Model) -> int:
    """MACs that torch's own counter sees while the bridge runs."""
    graph = Graph.view(model)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        to_torch(model)(*(torch.zeros(graph.shape(name)) for name in graph.inputs))
    return counter.get_total_flops() // 2


def int8_model() -> Model:
    """Two convolutions of one input, one with int8 weights behind DequantizeLinear, and a shared scale."""
    rng = np.random.default_rng(0)
    tensors = {
        "w": rng.integers(-9, 9, (6, 3, 3, 3)).astype(np.int8),
        "s": np.full(6, 0.1, np.float32),
        "z": np.zeros(6, np.int8),
        "v": rng.standard_normal((6, 3, 3, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wf"], name="a.dequantize", axis=0),
        helper.make_node("Conv", ["x", "wf"], ["a"], name="a.conv"),
        helper.make_node("Conv", ["x", "v"], ["b"], name="b.conv"),
        helper.make_node("Add", ["a", "b"], ["y"], name="sum"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 6, 6, 6])],
        [numpy_helper.from_array(v, k) for k, v in tensors.items()],
    )
    return Model(data=normalise(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))[0])


@pytest.mark.parametrize("name", builtin.ids())
def test_columns_add_up_for_built_in_models_and_torch_counts_the_same_macs(name: str) -> None:
    model = load(name)
    table = profile(model)
    assert_adds_up(model, table)
    assert counted_by_torch(model) == table.macs


@pytest.mark.parametrize("path", FILES)
def test_columns_add_up_for_real_files_and_torch_counts_the_same_macs(path: object) -> None:
    model = light(str(path))
    table = profile(model)
    assert_adds_up(model, table)
    assert counted_by_torch(model) == table.macs


def test_int8_weights_are_counted_in_the_layer_that_uses_them() -> None:
    model = int8_model()
    table = profile(model)
    assert_adds_up(model, table)
    rows = {row.name: row for row in table.layers}
    assert set(rows) == {"a.conv", "b.conv", "sum"}
    assert rows["a.conv"].params == rows["b.conv"].params == 162
    assert rows["a.conv"].weight_bytes == 162 + 6 * 4 + 6 < rows["b.conv"].weight_bytes == 162 * 4
    assert rows["a.conv"].weights == ("w",)
    assert "int8" in rows["a.conv"].note


def test_a_half_precision_model_has_half_the_weight_bytes() -> None:
    model = load("fashion-squeezenet")
    proto = onnx.load_model_from_string(model.data)
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for info in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        info.type.tensor_type.elem_type = TensorProto.FLOAT16
    half = Model(data=proto.SerializeToString())
    table = profile(half)
    assert_adds_up(half, table)
    assert table.activation_bytes * 2 == profile(model).activation_bytes
    assert table.params == profile(model).params


def test_the_table_survives_json_and_prints_its_totals() -> None:
    table = profile(load("fashion-resnet20"))
    data = json.loads(json.dumps(table.to_json()))
    assert (data["params"], data["macs"], data["flops"]) == (table.params, table.macs, 2 * table.macs)
    assert {"name", "type", "params", "macs", "output_shape"} <= set(data["layers"][0])
    assert f"{table.params:,}" in repr(table)
    assert f"Total params: {table.params:,}" in table.tree
    assert f"{table.macs:,}" in table.tree
    assert "mult-adds" not in table.tree


def test_activation_bytes_are_those_of_the_output() -> None:
    assert all(
        row.activation_bytes == 4 * math.prod(row.output_shape) for row in profile(load("fashion-resnet20")).layers
    )


def test_importing_the_module_does_not_import_torch() -> None:
    code = "import sys, lwcore.analysis.profile, lwcore.sources.zoo; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
