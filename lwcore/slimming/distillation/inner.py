"""Inner tensors of two transformers that are alike, and the losses on them that TinyBERT adds to that on the answers.

Hidden states (embeddings among them) and attention maps are found in the graph by structure: a softmax over a square of
positions is an attention, what its queries are computed from is the hidden state before it. A student's layer learns
from the teacher's layer at the same share of the depth; where widths differ, through a projection learnt along with it.
Source: Jiao et al., "TinyBERT" (arXiv 1909.10351). Distances here are relative to the teacher's own power, so that one
weight serves all layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from onnx import NodeProto
from torch import nn

from lwcore import answers, runtime
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.samples import SampleSet
from lwcore.slimming.distillation.student import watching

_BLOCKED = -100.0  # scores below stand for "not attended to"; how far below says nothing
_LEAST = 1e-12
_LINEAR = ("MatMul", "Gemm")
_STREAM = ("Add", "LayerNormalization", "SkipLayerNormalization")


@dataclass(frozen=True)
class Layers:
    """Names of tensors in the order of the network: hidden states (one more than layers), and attention scores."""

    hidden: tuple[str, ...]
    scores: tuple[str, ...]


def find_layers(graph: Graph) -> Layers | None:
    """The layers of a transformer; None where the graph is none."""
    made = graph.producers()
    scores, hidden, last = [], [], -1
    for index, node in enumerate(graph.nodes):
        shape = graph.shapes.get(node.output[0], ())
        if node.op_type != "Softmax" or len(shape) != 4 or shape[-1] != shape[-2]:
            continue
        source = _source(graph, made, node.input[0])
        if source is not None:
            scores.append(node.input[0])
            hidden.append(source)
            last = index
    if not scores:
        return None
    shape = graph.shapes[hidden[-1]]
    after = [n.output[0] for n in graph.nodes[last:] if n.op_type in _STREAM and graph.shapes.get(n.output[0]) == shape]
    return Layers((*hidden, after[-1]), tuple(scores)) if after else None


def _source(graph: Graph, made: dict[str, int], scores: str) -> str | None:
    """The hidden state that the queries of an attention are computed from."""
    product = _upwards(graph, made, scores, lambda node: node.op_type == "MatMul", graph.shapes[scores])
    if product is None:
        return None
    linear = _upwards(graph, made, product.input[0], lambda node: _weighs(graph, node))
    name = None if linear is None else linear.input[0]
    while name is not None and len(graph.shapes.get(name, ())) != 3:  # a Gemm reads positions and samples as one
        index = made.get(name)
        reshapes = index is not None and graph.nodes[index].op_type == "Reshape"
        name = graph.nodes[index].input[0] if index is not None and reshapes else None
    return name


def _weighs(graph: Graph, node: NodeProto) -> bool:
    return node.op_type in _LINEAR and node.input[1] in graph.constants


def _upwards(
    graph: Graph,
    made: dict[str, int],
    name: str,
    wanted: Callable[[NodeProto], bool],
    shape: tuple[int, ...] | None = None,
) -> NodeProto | None:
    """The first operator of a kind above a tensor; through tensors of one shape alone, where one is given."""
    stack, seen = [name], set[str]()
    while stack:
        here = stack.pop(0)
        index = made.get(here)
        if here in seen or index is None or (shape is not None and graph.shapes.get(here) != shape):
            continue
        seen.add(here)
        node = graph.nodes[index]
        if wanted(node):
            return node
        stack += [other for other in node.input if other]
    return None


class Inner:
    """Pairs of tensors, the student's beside the teacher's, and their loss."""

    def __init__(self, student: Graph, teacher: Model, ours: Layers, theirs: Layers) -> None:
        graph, depth, deep = Graph.view(teacher), len(ours.scores), len(theirs.scores)
        pairs = [(ours.hidden[m], theirs.hidden[round(m * deep / depth)]) for m in range(depth + 1)]
        self._hidden = len(pairs)
        pairs += [(ours.scores[m], theirs.scores[round((m + 1) * deep / depth) - 1]) for m in range(depth)]
        self.of_student, self._of_teacher = (tuple(side) for side in zip(*pairs, strict=True))
        self._model = teacher
        self._session = runtime.session(watching(teacher, self._of_teacher).data)
        widths = [(student.shape(a)[-1], graph.shape(b)[-1]) for a, b in pairs[: self._hidden]]
        self._projections = nn.ModuleList(nn.Identity() if a == b else nn.Linear(a, b, bias=False) for a, b in widths)

    def parameters(self) -> list[nn.Parameter]:
        """The projections', which are learnt and thrown away."""
        return list(self._projections.parameters())

    def loss(self, found: Sequence[torch.Tensor], samples: SampleSet) -> torch.Tensor:
        """Mean distance over all pairs, relative to the teacher's power.

        Args:
            found: the student's tensors, in the order of `of_student`.
            samples: the same batch, as the teacher reads it.
        """
        batch = answers.feed(self._model, samples)
        told = [torch.from_numpy(a[: len(samples)]) for a in runtime.run(self._session, batch, self._of_teacher)]
        hidden = [
            _distance(project(ours), theirs)
            for project, ours, theirs in zip(self._projections, found, told[: self._hidden], strict=False)
        ]
        attention = [
            _distance(_comparable(ours, theirs), _comparable(theirs, ours))
            for ours, theirs in zip(found[self._hidden :], told[self._hidden :], strict=True)
        ]
        return torch.stack([*hidden, *attention]).mean()


def _comparable(scores: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Attention scores, the mean over the heads where the two networks have different numbers of them."""
    seen = torch.where(scores <= _BLOCKED, torch.zeros_like(scores), scores)
    return seen if scores.shape[1] == others.shape[1] else seen.mean(dim=1)


def _distance(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return (found - wanted).square().mean() / wanted.square().mean().clamp(min=_LEAST)


def pair_up(student: Model, teacher: Model) -> Inner | None:
    """What is alike in two networks; None where one of them is no transformer, or they read texts of other lengths."""
    graph, other = Graph.view(student), Graph.view(teacher)
    ours, theirs = find_layers(graph), find_layers(other)
    if ours is None or theirs is None or graph.shape(ours.hidden[0])[1] != other.shape(theirs.hidden[0])[1]:
        return None
    return Inner(graph, teacher, ours, theirs)
