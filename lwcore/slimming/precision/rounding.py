"""Weights as integers: scales a tensor or a channel, within a budget of bytes for the scales."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from lwcore.graph import Graph
from lwcore.slimming.precision.nodes import channel_axis, is_depthwise, weight_of
from lwcore.slimming.precision.variants import Variant

ROOM = 127  # magnitudes that eight signed bits hold alike on both sides
PAIR = 127  # two neighbours of this sum, times 255, stay within 16 bits, in which AVX2 without VNNI adds them
SCALES = 0.01  # scales may take so much of the float32 weights' bytes; with 0.25 for the weights that makes 0.26
Pairs = Callable[[np.ndarray], np.ndarray]  # weight with channels first → largest sum of two weights in each channel
_LOWEST = 1e-12  # a channel of zeros still needs a scale that divides


@dataclass(frozen=True, kw_only=True)
class Rounded:
    """A weight as integers: value = (integers - zero) · scale.

    Attributes:
        integers: int8 or uint8, the weight's shape.
        scale: float32, () or one a channel.
        zero: what stands for zero; 0 needs no constant in the file.
        axis: of the channels; None with one scale for all.
    """

    integers: np.ndarray
    scale: np.ndarray
    zero: int
    axis: int | None

    def values(self) -> np.ndarray:
        """The numbers that the integers stand for, float32."""
        scale = self.scale
        if self.axis is not None:
            scale = scale.reshape([-1 if a == self.axis else 1 for a in range(self.integers.ndim)])
        return np.asarray((self.integers.astype(np.float32) - self.zero) * scale, np.float32)


def round_weights(
    graph: Graph, nodes: Collection[int], variant: Variant, scales: float = SCALES, seven: bool = False
) -> dict[str, Rounded]:
    """Every constant weight of the contractions among `nodes`, as integers.

    Weights get one scale a channel where that lowers the rounding error most for each byte of scales, until the scales
    take the share `scales` of the float32 weights; the others get one scale for the whole tensor. `seven` halves every
    range of a reduced variant instead of keeping only neighbours from saturating.
    """
    single, each, total = {}, {}, 0
    for index in sorted(nodes):
        node = graph.nodes[index]
        name = weight_of(graph, node)
        if name is None or name in single:
            continue
        # MLAS adds depthwise products in 32 bits, so they keep their eighth bit.
        reduced = variant.reduced and not is_depthwise(graph, node)
        pairs = (_halved if seven else _neighbours) if reduced else None
        weight = graph.constants[name].astype(np.float64)
        total += weight.size * 4
        single[name] = _rounded(weight, channel_axis(node), False, pairs, variant)
        each[name] = _rounded(weight, channel_axis(node), True, pairs, variant)
    best = _most_useful(graph, single, each, int(total * scales))
    return {name: each[name] if name in best else rounded for name, rounded in single.items()}


def _most_useful(graph: Graph, single: Mapping[str, Rounded], each: Mapping[str, Rounded], room: int) -> set[str]:
    """Weights that get one scale a channel: greatest gain a byte first, as far as `room` bytes go."""
    gains = {}
    for name, rounded in single.items():
        weight = graph.constants[name].astype(np.float64)
        energy = max(float((weight**2).sum()), _LOWEST)
        gain = _error(rounded, weight) - _error(each[name], weight)
        gains[name] = gain / energy / _bytes(each[name])
    left, chosen = room - sum(_bytes(rounded) for rounded in single.values()), set()
    for name in sorted(gains, key=lambda name: -gains[name]):
        more = _bytes(each[name]) - _bytes(single[name])
        if gains[name] > 0 and more <= left:
            left -= more
            chosen.add(name)
    return chosen


def _bytes(rounded: Rounded) -> int:
    return rounded.scale.size * (4 if rounded.zero == 0 else 5)


def _error(rounded: Rounded, weight: np.ndarray) -> float:
    return float(((rounded.values() - weight) ** 2).sum())


def _rounded(weight: np.ndarray, axis: int, each: bool, pairs: Pairs | None, variant: Variant) -> Rounded:
    """One scale a channel where `each`, else one for all; the sums that `pairs` finds stay within PAIR."""
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    scale = np.abs(rows).max(axis=1) / ROOM
    if pairs is not None:
        scale = np.maximum(scale, pairs(np.moveaxis(weight, axis, 0)) / PAIR)
    scale = np.maximum(scale if each else scale.max(keepdims=True), _LOWEST).astype(np.float32)
    zero, kind = (128, np.uint8) if variant.weights == "uint8" else (0, np.int8)
    shape = [-1 if a == axis else 1 for a in range(weight.ndim)]
    integers = np.clip(np.round(weight / scale.reshape(shape)), -ROOM, ROOM) + zero
    return Rounded(
        integers=integers.astype(kind),
        scale=scale if each else scale.reshape(()),
        zero=zero,
        axis=axis if each else None,
    )


def _halved(rows: np.ndarray) -> np.ndarray:
    """Largest sum that two weights of a channel could have, wherever they lie."""
    return np.asarray(2 * np.abs(rows.reshape(len(rows), -1)).max(axis=1))


def _neighbours(rows: np.ndarray) -> np.ndarray:
    """Largest sum of two weights that lie side by side in each channel, in the file's order and with channels last."""
    orders = (rows, np.moveaxis(rows, 1, -1))
    flat = [order.reshape(len(order), -1) for order in orders]
    return np.asarray(np.max([np.abs(f[:, 1:] + f[:, :-1]).max(axis=1, initial=0.0) for f in flat], axis=0))
