"""The coupling analysis grows linearly with the number of nodes."""

from __future__ import annotations

import time

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lwcore.analysis.coupling import couple, label
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.sources.normalise import normalise

WIDTH = 16


def chain(blocks: int) -> Model:
    """Residual blocks with a channel shuffle each: everything is coupled with everything through the sums."""
    nodes: list[onnx.NodeProto] = []
    arrays = {"split": np.array([1, 2, WIDTH // 2, 2, 2]), "merge": np.array([1, WIDTH, 2, 2])}
    rng = np.random.default_rng(0)
    arrays["stem"] = rng.standard_normal((WIDTH, 3, 1, 1)).astype(np.float32)
    nodes.append(helper.make_node("Conv", ["x", "stem"], ["t0"], name="stem"))
    for i in range(blocks):
        arrays[f"a{i}"] = rng.standard_normal((WIDTH, WIDTH, 1, 1)).astype(np.float32)
        arrays[f"b{i}"] = rng.standard_normal((WIDTH, WIDTH, 1, 1)).astype(np.float32)
        nodes += [
            helper.make_node("Conv", [f"t{i}", f"a{i}"], [f"p{i}"], name=f"a{i}"),
            helper.make_node("Reshape", [f"p{i}", "split"], [f"q{i}"]),
            helper.make_node("Transpose", [f"q{i}"], [f"r{i}"], perm=[0, 2, 1, 3, 4]),
            helper.make_node("Reshape", [f"r{i}", "merge"], [f"s{i}"]),
            helper.make_node("Conv", [f"s{i}", f"b{i}"], [f"u{i}"], name=f"b{i}"),
            helper.make_node("Add", [f"t{i}", f"u{i}"], [f"t{i + 1}"]),
        ]
    arrays["head"] = rng.standard_normal((4, WIDTH, 1, 1)).astype(np.float32)
    nodes.append(helper.make_node("Conv", [f"t{blocks}", "head"], ["y"], name="head"))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Model(data=normalise(proto)[0])


def seconds(model: Model) -> float:
    """Processor time of one analysis, the least of three."""
    Graph.view(model)
    taken = []
    for _ in range(3):
        began = time.process_time()
        couple.__wrapped__(model)  # type: ignore[attr-defined]  # the analysis itself, not what is remembered of it
        taken.append(time.process_time() - began)
    return min(taken)


def test_four_times_the_nodes_take_about_four_times_as_long() -> None:
    short, long = chain(40), chain(160)
    assert seconds(long) < 4 * 2.5 * max(seconds(short), 1e-3)


def test_labels_grow_with_the_weights_and_not_with_the_square_of_the_depth() -> None:
    short, long = (label(Graph.view(chain(blocks))) for blocks in (20, 80))
    assert sum(ids.size for ids in long.cuts.values()) < 4.2 * sum(ids.size for ids in short.cuts.values())
    assert len(long.producers) < 4.2 * len(short.producers)
