"""`Quantizer`: a float32 model and its ranges in, the bytes of int8 files out, whichever operators stay in float32."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.samples import SampleSet
from lwcore.slimming.precision.correct import Shifts, bias_shifts, corrected
from lwcore.slimming.precision.nodes import Layout, absorb_clamps, layout, weight_of
from lwcore.slimming.precision.qdq import Range, write_qdq
from lwcore.slimming.precision.rounding import Rounded, round_weights
from lwcore.slimming.precision.variants import VARIANTS
from lwcore.sources.normalise import normalise

CORRECTING = 64  # samples whose means correct the biases; more change the third digit


@dataclass(frozen=True, kw_only=True)
class Quantizer:
    """Static int8 of one model with one set of ranges and one variant.

    Attributes:
        model: float32, prepared by `prepared(model, STATIC_OPSET)`.
        ranges: lowest and highest value of each activation.
        variant: a name in `VARIANTS`.
        samples: biases are corrected on them, when given.
        seven: weights of a reduced variant use seven bits throughout, instead of as much as saturation allows.
    """

    model: Model
    ranges: Mapping[str, Range]
    variant: str
    samples: SampleSet | None = None
    seven: bool = False

    def data(self, keep: Collection[str] = ()) -> bytes:
        """The file, with the operators named in `keep` in float32."""
        return normalise(self.graph(keep).proto())[0]

    def draft(self, keep: Collection[str] = ()) -> bytes:
        """The file without the shapes of its new tensors: enough to run it, and made ten times as fast."""
        return bytes(self.graph(keep).proto().SerializeToString())

    def graph(self, keep: Collection[str] = ()) -> Graph:
        """The int8 graph; the shapes of its new tensors are not known yet."""
        graph = absorb_clamps(Graph.view(self.model), self.ranges, keep)
        plan = layout(graph, self.ranges, keep)
        rounded = {graph.nodes[index].input[2] for index in plan.nodes if len(graph.nodes[index].input) > 2}
        graph = corrected(graph, {bias: shift for bias, shift in self._shifts.items() if bias in rounded})
        return write_qdq(graph, plan, self.ranges, self._weights, VARIANTS[self.variant])

    def operators(self) -> tuple[str, ...]:
        """Names of the operators that compute in int8, in order; those that only move numbers are left out."""
        graph, plan = self._whole
        return tuple(graph.nodes[index].name for index in sorted(plan.computing))

    @cached_property
    def _whole(self) -> tuple[Graph, Layout]:
        graph = absorb_clamps(Graph.view(self.model), self.ranges)
        return graph, layout(graph, self.ranges)

    @cached_property
    def _weights(self) -> dict[str, Rounded]:
        graph, plan = self._whole
        return round_weights(graph, plan.nodes, VARIANTS[self.variant], seven=self.seven)

    @cached_property
    def _shifts(self) -> Shifts:
        if self.samples is None or not len(self.samples):
            return {}
        graph, plan = self._whole
        nodes = [graph.nodes[index] for index in sorted(plan.nodes)]
        inputs = {n.name: self.ranges[plan.tensors[n.input[0]]] for n in nodes if weight_of(graph, n)}
        few = self.samples.take(CORRECTING)
        return bias_shifts(self.model, few, inputs, self._weights, VARIANTS[self.variant])


def quantize_static(model: Model, ranges: Mapping[str, Range], variant: str) -> bytes:
    """The int8 file of a prepared model with these ranges, nothing corrected."""
    return Quantizer(model=model, ranges=ranges, variant=variant).data()
