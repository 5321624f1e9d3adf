"""One linear layer as two thinner ones: which ways there are, what each rank keeps, and the nodes that compute it.

A weight W that maps a patch to its outputs is written as U V of rank r. Which axes of the kernel the first factor takes
is the *form*: none of them (1×1, then k×k), all (k×k, then 1×1), or some (k×1, then 1×k; for videos k×1×1, then 1×k×k).
V and U come from the singular values of W Σ^½ with Σ the covariance of what the layer reads, so that rank is spent on
what the layer's outputs are made of. Sources: Zhang et al. (TPAMI 2016), Jaderberg et al. (BMVC 2014), Tran et al.
(CVPR 2018: R(2+1)D), SVD-LLM (ICLR 2025: truncation-aware whitening).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, helper

from lwcore.graph import Graph, with_attributes, with_input
from lwcore.slimming.refit.linear import Linear

Form = tuple[int, ...]  # kernel axes of the first factor
ALIGN = 8  # processors compute in blocks of so many channels
_RANKS = 24  # at most so many ranks are looked at in each form
_JITTER = 1e-7  # share of the mean variance added to a covariance, so that it has a square root


@dataclass(frozen=True)
class Shares:
    """What one more rank costs.

    Attributes:
        macs, params: of both factors together.
        most: the largest rank at which both are below those of the whole layer.
    """

    macs: int
    params: int
    most: int


@dataclass(frozen=True)
class Factors:
    """Both factors at full rank, the most useful rank first: V of shape (R, first width), U of (second height, R)."""

    first: np.ndarray
    second: np.ndarray
    energies: np.ndarray


def forms(layer: Linear) -> list[Form]:
    """The ways in which a layer can be split; none for grouped convolutions."""
    every = tuple(range(len(layer.kernel)))
    long = tuple(axis for axis in every if layer.kernel[axis] > 1)
    if layer.groups > 1:
        return []
    if not long:
        return [every]
    some = [long[:1], long[1:]] if len(long) > 1 else []
    return [(), every, *some]


def shares(graph: Graph, layer: Linear, form: Form) -> Shares:
    """The price of each rank of a form."""
    own, rest = _taps(layer, form), math.prod(layer.kernel) // _taps(layer, form)
    batch = graph.shape(layer.result)[0]
    between = batch * math.prod(_between(graph, layer, form)) if layer.kernel else layer.total
    macs = between * layer.inputs * own + layer.total * layer.outputs * rest
    params = layer.inputs * own + layer.outputs * rest
    whole = layer.outputs * layer.width
    most = min((whole * layer.total - 1) // macs, (whole - 1) // params)
    return Shares(macs, params, min(most, layer.inputs * own, layer.outputs * rest))


def ranks(most: int) -> list[int]:
    """Ranks worth looking at: whole blocks where there are at least two of them."""
    step = ALIGN * max(1, -(-most // (ALIGN * _RANKS))) if most >= 2 * ALIGN else 1
    return list(range(step, most + 1, step))


def factorise(layer: Linear, form: Form, weight: np.ndarray, covariance: np.ndarray | None) -> Factors:
    """Both factors at full rank.

    Args:
        weight: shape (outputs, width).
        covariance: of the patches, shape (width, width); None to take all inputs for equally strong and unrelated.
    """
    matrix = _arranged(layer, form, weight)
    spread = np.eye(matrix.shape[1]) if covariance is None else _root(_own(layer, form, covariance))
    left = matrix @ spread
    if left.shape[0] <= left.shape[1]:
        energies, up = np.linalg.eigh(left @ left.T)
        up, energies = up[:, ::-1], np.maximum(energies[::-1], 0)
    else:
        energies, turned = np.linalg.eigh(left.T @ left)
        energies = np.maximum(energies[::-1], 0)
        up = left @ turned[:, ::-1] / np.sqrt(np.maximum(energies, 1e-12 * max(float(energies[0]), 1e-30)))
    return Factors(up.T @ matrix, up, energies)


def from_outputs(weight: np.ndarray, outputs: np.ndarray) -> Factors:
    """Both factors of the form that takes all kernel axes, from the covariance of the layer's outputs alone."""
    energies, up = np.linalg.eigh(outputs)
    return Factors(up[:, ::-1].T @ weight, up[:, ::-1], np.maximum(energies[::-1], 0))


def kept(
    layer: Linear, form: Form, factors: Factors, weight: np.ndarray, covariance: np.ndarray | None, at: Sequence[int]
) -> list[float]:
    """Share of the outputs' variance that the layer keeps at each rank, its second factor fitted to that rank."""
    if covariance is None or len(form) == len(layer.kernel):  # nothing is shared between the second factor's taps
        total = max(float(factors.energies.sum()), 1e-30)
        return [float(factors.energies[:rank].sum()) / total for rank in at]
    most = max(at)
    taps = math.prod(layer.kernel) // _taps(layer, form)
    seen = _seen(layer, form, factors.first[:most])  # (most, taps, width)
    flat = seen.reshape(most * taps, layer.width)
    spread = flat @ covariance
    inner, cross = spread @ flat.T, weight @ spread.T
    total = max(float(np.einsum("od,dk,ok->", weight, covariance, weight, optimize=True)), 1e-30)
    inner += _JITTER * max(float(np.trace(inner)) / len(inner), 1e-30) * np.eye(len(inner))
    found = []
    for rank in at:
        size = rank * taps
        solved = np.linalg.solve(inner[:size, :size], cross[:, :size].T)
        found.append(min(1.0, float((cross[:, :size].T * solved).sum()) / total))
    return found


def split(graph: Graph, layer: Linear, form: Form, first: np.ndarray, second: np.ndarray) -> list[NodeProto]:
    """The two nodes that take the layer's place; their constants and shapes are written into the graph.

    Args:
        first: V, shape (rank, first width).
        second: U, shape (second height, rank).
    """
    node, rank = layer.node, len(first)
    kind = graph.constants[layer.weight].dtype
    names = [graph.fresh(f"{layer.weight}.{part}") for part in ("first", "second")]
    middle = graph.fresh(f"{layer.result}.rank")
    down, up = _stored(layer, form, first, second)
    for name, array in zip(names, (down, up), strict=True):
        graph.set_constant(name, array.astype(kind))
    shape = list(graph.shape(layer.result))
    shape[layer.axis] = rank
    if layer.kernel:
        shape[2:] = _between(graph, layer, form)
    graph.shapes[middle], graph.types[middle] = tuple(shape), graph.types[layer.result]
    if layer.result in graph.free:
        graph.free[middle] = graph.free[layer.result]
    title = _free_name(graph, f"{node.name}.first")
    if layer.kernel:
        head = with_attributes(
            helper.make_node("Conv", [layer.data, names[0]], [middle], title), **_geometry(layer, form, True)
        )
        tail = with_attributes(with_input(with_input(node, 0, middle), 1, names[1]), **_geometry(layer, form, False))
        return [head, _without(tail, "auto_pad")]
    inputs = [names[0], layer.data] if layer.axis == -2 else [layer.data, names[0]]
    places = (1, 0) if layer.axis == -2 else (0, 1)
    head = helper.make_node("MatMul", inputs, [middle], title)
    return [head, with_input(with_input(node, places[0], middle), places[1], names[1])]


def _stored(layer: Linear, form: Form, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rank = len(first)
    if not layer.kernel:
        down = first if layer.axis == -2 else first.T
        up = second / layer.factor
        return down, up.T if layer.flipped else up
    own = [k if axis in form else 1 for axis, k in enumerate(layer.kernel)]
    rest = [1 if axis in form else k for axis, k in enumerate(layer.kernel)]
    return first.reshape(rank, layer.inputs, *own), np.moveaxis(second.reshape(layer.outputs, *rest, rank), -1, 1)


def _geometry(layer: Linear, form: Form, first: bool) -> dict[str, list[int]]:
    mine = [(axis in form) == first for axis in range(len(layer.kernel))]
    pads = [pair if own else (0, 0) for own, pair in zip(mine, layer.pads, strict=True)]
    return {
        "kernel_shape": [k if own else 1 for own, k in zip(mine, layer.kernel, strict=True)],
        "strides": [s if own else 1 for own, s in zip(mine, layer.strides, strict=True)],
        "dilations": [d if own else 1 for own, d in zip(mine, layer.dilations, strict=True)],
        "pads": [before for before, _ in pads] + [after for _, after in pads],
    }


def _without(node: NodeProto, name: str) -> NodeProto:
    for position, attribute in enumerate(node.attribute):
        if attribute.name == name:
            del node.attribute[position]
            break
    return node


def _free_name(graph: Graph, stem: str) -> str:
    taken = {node.name for node in graph.nodes}
    return next(name for n in range(len(taken) + 1) if (name := f"{stem}_{n}" if n else stem) not in taken)


def _between(graph: Graph, layer: Linear, form: Form) -> list[int]:
    """Size of the picture between the factors."""
    before, after = graph.shape(layer.data)[2:], graph.shape(layer.result)[2:]
    return [after[axis] if axis in form else before[axis] for axis in range(len(layer.kernel))]


def _taps(layer: Linear, form: Form) -> int:
    return math.prod(layer.kernel[axis] for axis in form)


def _arranged(layer: Linear, form: Form, weight: np.ndarray) -> np.ndarray:
    """The weight as (outputs · second's taps, inputs · first's taps)."""
    rest = [axis for axis in range(len(layer.kernel)) if axis not in form]
    full = weight.reshape(layer.outputs, layer.inputs, *layer.kernel)
    order = [0, *(2 + axis for axis in rest), 1, *(2 + axis for axis in form)]
    return full.transpose(order).reshape(-1, layer.inputs * _taps(layer, form))


def _places(layer: Linear, form: Form) -> np.ndarray:
    """Where in the patch the first factor looks from each tap of the second: shape (taps, first width)."""
    rest = [axis for axis in range(len(layer.kernel)) if axis not in form]
    index = np.arange(layer.width).reshape(layer.inputs, *layer.kernel)
    order = [*(1 + axis for axis in rest), 0, *(1 + axis for axis in form)]
    return index.transpose(order).reshape(-1, layer.inputs * _taps(layer, form))


def _own(layer: Linear, form: Form, covariance: np.ndarray) -> np.ndarray:
    """Covariance of what the first factor looks at, the mean over the second's taps."""
    blocks = [covariance[np.ix_(places, places)] for places in _places(layer, form)]
    return np.asarray(sum(blocks) / len(blocks))


def _seen(layer: Linear, form: Form, first: np.ndarray) -> np.ndarray:
    """The first factor as it acts on the whole patch from each tap of the second: (rank, taps, width)."""
    places = _places(layer, form)
    seen = np.zeros((len(first), len(places), layer.width))
    for tap, where in enumerate(places):
        seen[:, tap, where] = first
    return seen


def _root(covariance: np.ndarray) -> np.ndarray:
    """A square root L with L Lᵀ = Σ, lifted as little as rounding allows."""
    power = max(float(np.trace(covariance)) / len(covariance), 1e-30)
    for lift in (_JITTER * 10.0**n for n in range(8)):
        try:
            return np.asarray(np.linalg.cholesky(covariance + lift * power * np.eye(len(covariance))))
        except np.linalg.LinAlgError:
            continue  # fewer samples than inputs, summed in single precision
    return float(np.sqrt(power)) * np.eye(len(covariance))
