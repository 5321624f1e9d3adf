"""Small graphs written by hand, as other producers would write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lwcore.analysis.coupling import Coupling
from lwcore.model import Model
from lwcore.sources.normalise import normalise


def arrays(**shapes: Sequence[int]) -> dict[str, np.ndarray]:
    """Random weights by name, scaled so that sums stay about as large as what is summed."""
    rng = np.random.default_rng(0)
    return {n: (rng.standard_normal(s) / np.sqrt(max(1, np.prod(s[1:])))).astype(np.float32) for n, s in shapes.items()}


def proto_of(
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, np.ndarray],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
    listed: bool = False,
) -> onnx.ModelProto:
    """A file; `listed` names the initializers among the inputs too, as files before IR version 4 had to."""
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in inputs.items()]
    infos += [helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in weights.items() if listed]
    graph = helper.make_graph(
        list(nodes),
        "g",
        infos,
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    version = 3 if listed else 8 if opset < 20 else 10
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=version)


def made(proto: onnx.ModelProto) -> Model:
    """The file as a model, normalised."""
    return Model(data=normalise(proto)[0])


def sizes(coupling: Coupling) -> dict[str, int]:
    """Channels of every group."""
    return {g.name: g.channels for g in coupling.groups}


def conv(x: str, w: str, y: str, **options: object) -> onnx.NodeProto:
    """A convolution named after its weight."""
    return helper.make_node("Conv", [x, w], [y], name=f"conv_{w}", **options)
