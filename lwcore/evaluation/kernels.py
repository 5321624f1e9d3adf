"""What onnxruntime really ran, kernel by kernel, and how long each took, by its own profiler."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median

import numpy as np
import onnx
from onnx import TensorProto, helper

from lwcore import runtime
from lwcore.answers import example
from lwcore.graph import Graph, reads
from lwcore.model import Model
from lwcore.timing import take_turns

RUNS = 8  # the median over them; the first two warm up
_SUFFIX = re.compile(r"(_nchwc|_token_\d+)*_kernel_time$")
_CHAIN = 200  # operators in the network that measures what starting one costs


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One operator as it was run, after onnxruntime merged and replaced some.

    Attributes:
        name: of the operator in the file that it came from, as far as onnxruntime kept it.
        kind: what was run (Conv, QLinearConv, QuantizeLinear …).
        seconds: median of one run of batch 1.
        moved: bytes of weights, inputs and outputs.
    """

    name: str
    kind: str
    seconds: float
    moved: int


def kernels(model: Model) -> tuple[Kernel, ...]:
    """Profile some runs of one random sample; raises `ModelError` when the model cannot be run."""
    graph = Graph.view(model)
    batch = example(graph, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        runner = runtime.session(model.data, profile=str(Path(folder) / "run"))
        for _ in range(RUNS):
            runtime.run(runner, batch)
        events = json.loads(Path(runner.end_profiling()).read_text(encoding="utf-8"))
    return _summed(events)


def _summed(events: list[Mapping[str, object]]) -> tuple[Kernel, ...]:
    times: dict[tuple[str, str], list[float]] = {}
    moved: dict[tuple[str, str], int] = {}
    for event in events:
        if event.get("cat") != "Node" or not str(event["name"]).endswith("_kernel_time"):
            continue
        arguments = event["args"]
        assert isinstance(arguments, dict)
        key = (_SUFFIX.sub("", str(event["name"])), str(arguments.get("op_name", "")))
        times.setdefault(key, []).append(float(str(event["dur"])) / 1e6)
        moved[key] = sum(int(arguments.get(part, 0)) for part in ("parameter_size", "activation_size", "output_size"))
    return tuple(
        Kernel(name=name, kind=kind, seconds=median(taken[2:] or taken), moved=moved[name, kind])
        for (name, kind), taken in times.items()
    )


def layer_of(graph: Graph) -> dict[str, str]:
    """Name of each operator → name of the convolution or matrix product that it follows: they are run as one."""
    made_by, owner = graph.producers(), dict[str, str]()
    for node in graph.nodes:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulNBits", "ConvInteger", "MatMulInteger"):
            owner[node.name] = node.name
            continue
        computed = [made_by[name] for name in reads(node) if name in made_by]
        if len(computed) == 1:
            before = graph.nodes[computed[0]].name
            owner[node.name] = owner.get(before, node.name)
    return owner


@lru_cache(maxsize=1)
def start_seconds() -> float:
    """What starting one operator costs here, whatever it computes: a chain of operators on a single number, divided."""
    names = [f"t{i}" for i in range(_CHAIN + 1)]
    kinds = ("Sin", "Cos")  # neither is merged with its neighbour
    nodes = [helper.make_node(kinds[i % 2], [names[i]], [names[i + 1]]) for i in range(_CHAIN)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in (names[0], names[-1])]
    body = helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    proto: onnx.ModelProto = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    runner = runtime.session(proto.SerializeToString(), threads=1)
    taken = take_turns([lambda: runtime.run(runner, {names[0]: np.ones(1, np.float32)})], 0.05)[0]
    return taken.median_ms / 1000 / _CHAIN
