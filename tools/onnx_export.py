"""Write a torch network as a clean ONNX file: dynamic batch, readable names, no traces of the machine."""

from __future__ import annotations

import ast
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import torch
from onnx import numpy_helper
from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveUnusedNodesPass
from onnxscript.optimizer import fold_constants
from torch import nn

OPSET = 18
SCOPES = "pkg.torch.onnx.name_scopes"


def to_onnx(model: nn.Module, shape: Sequence[int], *, optimize: bool = True) -> onnx.ModelProto:
    """Export ``model`` (eval mode) with input "input" of (batch, *shape) and output "logits".

    Args:
        model: The network; it is put into eval mode.
        shape: (C, H, W) of one sample.
        optimize: Let the exporter simplify the graph, which folds batch norms too; without it only shape
            arithmetic is folded.
    """
    program = torch.onnx.export(
        model.eval(),
        (torch.zeros(2, *shape),),
        dynamo=True,
        opset_version=OPSET,
        input_names=["input"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        optimize=optimize,
        verbose=False,
    )
    assert program is not None
    if not optimize:
        _fold_shapes(program.model)
    proto = program.model_proto
    _rename(proto.graph)
    _strip(proto)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _fold_shapes(model: onnx_ir.Model) -> None:
    """Fold integer constants in place, leave every operator on floats as it is."""
    fold_constants(model, should_fold=lambda node: False if _reads_floats(node) else None)
    onnx_ir.passes.Sequential(LiftConstantsToInitializersPass(), RemoveUnusedNodesPass())(model)


def _reads_floats(node: onnx_ir.Node) -> bool:
    return any(v is not None and v.dtype == onnx_ir.DataType.FLOAT for v in node.inputs)


def _scope(node: onnx.NodeProto) -> str:
    """Dotted path of the torch module that made ``node``."""
    value = next((p.value for p in node.metadata_props if p.key == SCOPES), "[]")
    return next((s for s in reversed(ast.literal_eval(value)[:-1]) if s), "")


def _rename(graph: onnx.GraphProto) -> None:
    """Name nodes and values after their torch module: ``stage2.0.expand.conv.Conv``."""
    fixed = {v.name for v in [*graph.input, *graph.output]}
    constants = {i.name for i in graph.initializer if "." not in i.name}
    names: dict[str, str] = {}
    taken: set[str] = set()
    for node in graph.node:
        name = _unique(f"{_scope(node)}.{node.op_type}".lstrip("."), taken)
        node.name = name
        for slot, value in enumerate(node.input):
            if value in constants:
                names.setdefault(value, f"{name}.constant{slot}")
        for slot, value in enumerate(node.output):
            if value not in fixed:
                names[value] = name if slot == 0 else f"{name}.{slot}"
    for node in graph.node:
        node.input[:] = [names.get(v, v) for v in node.input]
        node.output[:] = [names.get(v, v) for v in node.output]
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)


def _unique(name: str, taken: set[str]) -> str:
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate


def _strip(proto: onnx.ModelProto) -> None:
    """Remove the exporter's notes (stack traces, symbolic names) and intermediate shapes."""
    graph = proto.graph
    del proto.metadata_props[:], graph.metadata_props[:], graph.value_info[:]
    graph.name, graph.doc_string, proto.doc_string = "main", "", ""
    for item in [*graph.node, *graph.initializer, *graph.input, *graph.output]:
        del item.metadata_props[:]
        item.doc_string = ""


def parameters(proto: onnx.ModelProto) -> int:
    """Elements of the graph's float initializers that are not scalars (limits of Clip and the like)."""
    return sum(int(np.prod(i.dims)) for i in proto.graph.initializer if i.dims and i.data_type in (1, 10))


def narrow(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose float32 initializers of one dimension or more are float16."""
    return _recast(proto, onnx.TensorProto.FLOAT, np.float16)


def widen(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose float16 initializers are float32: what a loader of these files does."""
    return _recast(proto, onnx.TensorProto.FLOAT16, np.float32)


def _recast(proto: onnx.ModelProto, source: int, target: type) -> onnx.ModelProto:
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    for tensor in copy.graph.initializer:
        if tensor.data_type == source and tensor.dims:
            values = numpy_helper.to_array(tensor).astype(target)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return copy


def write(path: Path, data: bytes) -> None:
    """Write ``data`` so that a reader sees the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    os.replace(part, path)
