"""The layer table: torchinfo over the bridge for layers, shapes and parameters, the graph for MACs and bytes.

torchinfo's own multiply-adds are not used: version 1.8.0 counts none for products of two activations and too many for
linear layers over sequences (ViT-B/16: 0.173 instead of 17.564 GMACs).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import NodeProto, helper

from lwcore.analysis import cost
from lwcore.errors import ModelError
from lwcore.graph import Graph, reads
from lwcore.model import Model

if TYPE_CHECKING:  # torch is imported when a profile is made, not when this module is
    import torch

    from lwcore.bridge import Network, Step


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One layer at batch 1.

    Attributes:
        name, type: the node's name and ONNX operator.
        output_shape: shape of its (first) output.
        params: trained values it owns; a weight that several layers read belongs to the first.
        macs: multiply–accumulates.
        weight_bytes: bytes of the constants it owns, settings and running statistics included.
        activation_bytes: bytes of its outputs.
        weights: names of its trained initializers, shared ones included.
        note: anything particular about it, in plain words.
    """

    name: str
    type: str
    output_shape: tuple[int, ...]
    params: int
    macs: int
    weight_bytes: int
    activation_bytes: int
    weights: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Every layer of a model in running order; each total is the sum of its column. `tree` is torchinfo's text."""

    layers: tuple[LayerRow, ...]
    params: int
    macs: int
    weight_bytes: int
    activation_bytes: int
    size_bytes: int
    tree: str

    def to_json(self) -> dict[str, Any]:
        """Plain data: totals, `flops` (2 × MACs), `layers[]` and `tree`."""
        layers = [
            {**asdict(row), "output_shape": list(row.output_shape), "weights": list(row.weights)} for row in self.layers
        ]
        return {**asdict(self), "flops": 2 * self.macs, "layers": layers}

    def __repr__(self) -> str:
        cells = [("layer", "type", "output", "params", "MACs", "weight bytes", "activation bytes")]
        cells += [
            (
                r.name,
                r.type,
                " × ".join(map(str, r.output_shape)),
                f"{r.params:,}",
                f"{r.macs:,}",
                f"{r.weight_bytes:,}",
                f"{r.activation_bytes:,}",
            )
            for r in self.layers
        ]
        cells.append(
            (
                "total",
                f"{len(self.layers)} layers",
                "",
                f"{self.params:,}",
                f"{self.macs:,}",
                f"{self.weight_bytes:,}",
                f"{self.activation_bytes:,}",
            )
        )
        widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
        lines = [
            "  ".join(cell.ljust(widths[i]) if i < 3 else cell.rjust(widths[i]) for i, cell in enumerate(row))
            for row in cells
        ]
        rule = "─" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def profile(model: Model) -> Profile:
    """Measure every layer of a model at batch 1.

    Returns:
        Parameters and output shapes as torchinfo reports them, MACs counted on the operators (the convention of
        torchvision's published `_ops`), bytes as they are in the file.

    Raises:
        ModelError: an operator cannot be turned into a torch layer, or the layers could not be run.
    """
    from lwcore.bridge import to_torch

    graph = Graph.view(model)
    network = to_torch(model)
    params, shapes, tree = _torchinfo(network, graph)
    layers = _rows(graph, network.steps, params, shapes)
    total_macs = sum(row.macs for row in layers)
    return Profile(
        layers=layers,
        params=sum(row.params for row in layers),
        macs=total_macs,
        weight_bytes=sum(row.weight_bytes for row in layers),
        activation_bytes=sum(row.activation_bytes for row in layers),
        size_bytes=model.size_bytes,
        tree=_with_macs(tree, total_macs),
    )


def _torchinfo(network: Network, graph: Graph) -> tuple[dict[int, int], dict[int, tuple[int, ...]], str]:
    """Parameters and output shape by identity of the module, and the printed tree."""
    from torchinfo import summary

    depth = max(name.count(".") + 1 for name, _ in network.named_modules())
    try:
        found = summary(
            network,
            input_data=_zeros(graph),
            depth=depth,
            col_names=("output_size", "num_params"),
            row_settings=("var_names",),
            verbose=0,
            mode="eval",
            device="cpu",
        )
    except RuntimeError as error:
        reason = error.__cause__ or error
        raise ModelError(f"The layers could not be run as torch modules: {str(reason)[:200]}") from None
    params = {info.layer_id: info.num_params for info in found.summary_list}
    shapes = {info.layer_id: tuple(info.output_size) for info in found.summary_list}
    return params, shapes, str(found)


def _zeros(graph: Graph) -> list[torch.Tensor]:
    import torch

    from lwcore.bridge.node import TORCH_TYPES

    return [torch.zeros(graph.shape(name), dtype=TORCH_TYPES[graph.types[name]]) for name in graph.inputs]


def _with_macs(tree: str, macs: int) -> str:
    lines = [
        f"Multiply-accumulates, counted on the operators: {macs:,}" if line.startswith("Total mult-adds") else line
        for line in tree.splitlines()
    ]
    return "\n".join(lines)


def _rows(
    graph: Graph, steps: Sequence[Step], params: Mapping[int, int], shapes: Mapping[int, tuple[int, ...]]
) -> tuple[LayerRow, ...]:
    owners: dict[str, str] = {}
    prepared: dict[str, list[Step]] = {}
    rows: list[LayerRow] = []
    for step in steps:
        if step.feeds:
            prepared.setdefault(step.feeds, []).append(step)
            continue
        parts = [*_prepared_for(step.name, prepared), step]
        read = list(dict.fromkeys(n for part in parts for n in reads(part.node) if n in graph.constants))
        owned = [name for name in read if owners.setdefault(name, step.name) == step.name]
        weights = tuple(name for part in parts for name in cost.node_parameters(graph, part.node))
        rows.append(
            LayerRow(
                name=step.name,
                type=step.node.op_type,
                output_shape=shapes[id(step.module)],
                params=sum(params[id(part.module)] + _packed(graph, part.node) for part in parts),
                macs=cost.macs(step.node, graph.shapes),
                weight_bytes=sum(cost.constant_bytes(graph, name) for name in owned),
                activation_bytes=_output_bytes(graph, step.node),
                weights=weights,
                note=_note(graph, step.name, weights, owners),
            )
        )
    return tuple(rows)


def _packed(graph: Graph, node: NodeProto) -> int:
    """Trained values beyond the elements of their constants, where two share a byte."""
    return sum(count - graph.constants[name].size for name, count in cost.node_values(graph, node).items())


def _prepared_for(name: str, prepared: Mapping[str, Sequence[Step]]) -> list[Step]:
    """The steps that only make constants for a layer, those that make constants for them included."""
    parts: list[Step] = []
    for step in prepared.get(name, ()):
        parts += [*_prepared_for(step.name, prepared), step]
    return parts


def _output_bytes(graph: Graph, node: NodeProto) -> int:
    return sum(
        math.prod(graph.shape(name)) * helper.tensor_dtype_to_np_dtype(graph.types[name]).itemsize
        for name in node.output
        if name in graph.shapes
    )


def _note(graph: Graph, name: str, weights: Sequence[str], owners: Mapping[str, str]) -> str:
    shared = sorted({owners[w] for w in weights} - {name})
    kinds = sorted({str(graph.constants[w].dtype) for w in weights if graph.constants[w].dtype != np.float32})
    notes = [f"weights shared with {', '.join(shared)}"] * bool(shared) + [f"weights stored as {k}" for k in kinds]
    return "; ".join(notes)
