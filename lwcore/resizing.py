"""The same network for inputs of another size: smaller pictures, fewer frames. Its weights stay as they are."""

from __future__ import annotations

import dataclasses

from lwcore.errors import LwcoreError, ModelError
from lwcore.graph import Graph
from lwcore.model import ClipSpec, InputSpec, Model
from lwcore.samples import SampleSet
from lwcore.sources.normalise import normalise

SHARES = (1.0, 0.75, 0.5)  # of a picture's edge
PARTS = (1, 2, 4)  # of a clip's frames
_EDGE, _FRAMES = 8, 2  # smallest edge in pixels, fewest frames
_GRID = 4  # edges are multiples of so many pixels
_POOLS = frozenset({"GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax"})


def may_resize(model: Model) -> bool:
    """Whether a network pools over whole pictures, so that another size may fit it; `resized` finds out."""
    graph = Graph.view(model)
    pools = any(n.op_type in _POOLS and len(graph.shapes.get(n.input[0], ())) >= 4 for n in graph.nodes)
    return pools and isinstance(model.card.input, InputSpec)


def settings(model: Model) -> list[InputSpec]:
    """Inputs worth trying, the model's own first: fewer frames (clips) and smaller pictures."""
    spec = model.card.pictures
    edges = [tuple(max(_EDGE, round(edge * share / _GRID) * _GRID) for edge in spec.size) for share in SHARES]
    edges[0] = spec.size
    frames = [spec.frames // part for part in PARTS] if isinstance(spec, ClipSpec) else [0]
    found = []
    for count in frames:
        for height, width in edges:
            resize = None if spec.resize is None else round(spec.resize * min(height, width) / min(spec.size))
            smaller = dataclasses.replace(spec, size=(height, width), resize=resize)
            if isinstance(smaller, ClipSpec):
                smaller = dataclasses.replace(smaller, frames=count)
            found.append(smaller)
    return [spec for spec in dict.fromkeys(found) if not isinstance(spec, ClipSpec) or spec.frames >= _FRAMES]


def resized(model: Model, spec: InputSpec) -> Model:
    """The model with another declared input; every shape in the file is worked out again.

    Raises:
        ModelError: the network holds sizes that do not go together with it.
    """
    own = model.card.pictures
    if spec == own:
        return model
    proto = Graph.of(model).proto()
    graph = Graph.view(model)
    dims = next(i for i in proto.graph.input if i.name == graph.inputs[0]).type.tensor_type.shape.dim
    first = 1 if spec.layout.endswith(("HWC",)) else 2
    sizes = (*((spec.frames,) if isinstance(spec, ClipSpec) else ()), *spec.size)
    for axis, size in enumerate(sizes, start=first):
        dims[axis].dim_value = size
    try:
        data, _ = normalise(proto)
        smaller = dataclasses.replace(model, data=data, card=dataclasses.replace(model.card, input=spec))
        fits = Graph.view(smaller).shape(graph.outputs[0]) == graph.shape(graph.outputs[0])
    except LwcoreError:
        fits = False
    if not fits:
        found = " × ".join(map(str, sizes))
        raise ModelError(f"Expected a network that takes inputs of {found}, found one that holds other sizes inside.")
    return smaller


def refitted(samples: SampleSet, spec: InputSpec) -> SampleSet:
    """Stored pictures or clips brought to another size and number of frames, as a whole (nothing is cropped again)."""
    from lwcore.samples.clips import fit_clips
    from lwcore.samples.pictures import fit_all

    plain = dataclasses.replace(spec, resize=None)
    fitted = fit_clips(samples.pixels, plain) if isinstance(plain, ClipSpec) else fit_all(samples.pixels, plain)
    return dataclasses.replace(samples, arrays={"pixels": fitted})
