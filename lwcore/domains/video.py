"""Clips: MP4, WebM and GIF files and zips of them, kept as the frames that the model reads; people see a film strip."""

from __future__ import annotations

import numpy as np

from lwcore.domains import Domain
from lwcore.domains.image import scaled
from lwcore.errors import SampleError
from lwcore.graph import Graph
from lwcore.model import ClipSpec, Model
from lwcore.progress import Progress
from lwcore.runtime import Feed
from lwcore.samples import SampleSet
from lwcore.samples.archive import CLIPS, read_folder, read_zip
from lwcore.samples.clips import read_clip

_STRIP = 8  # frames of a film strip, at most
_GAP = 2  # white pixels between them


def _spec(model: Model) -> ClipSpec:
    spec = model.card.input
    assert isinstance(spec, ClipSpec)  # the registry is asked by the card's task, which decides its class
    return spec


def _feed(samples: SampleSet, model: Model, start: int, stop: int) -> Feed:
    spec = _spec(model)
    array = scaled(samples.pixels[start:stop], spec)
    if spec.layout == "NCTHW":
        array = np.ascontiguousarray(array.transpose(0, 4, 1, 2, 3))
    return {Graph.view(model).inputs[0]: array}


def _read(data: bytes, model: Model, name: str, progress: Progress) -> SampleSet:
    if data.startswith(b"PK"):
        return read_zip(data, model.card, name, progress)
    try:
        clip = read_clip(data, _spec(model))
    except SampleError as error:
        raise SampleError(f"The clip cannot be used: {error}.") from None
    return SampleSet(name=name or "Your clip", arrays={"pixels": clip[None]}, names=(name or "clip",))


def film_strip(clip: np.ndarray) -> np.ndarray:
    """Frames side by side: uint8 (T, H, W, C) → (H, width, C), evenly spread frames of a long clip."""
    frames = clip[np.linspace(0, len(clip) - 1, min(_STRIP, len(clip))).round().astype(int)]
    wide = np.pad(frames, ((0, 0), (0, 0), (0, _GAP), (0, 0)), constant_values=255)
    return np.concatenate(list(wide), axis=1)[:, :-_GAP]


DOMAIN = Domain(
    task="video-classification",
    accepts=("zip", *CLIPS.endings),
    read=_read,
    read_folder=lambda folder, model: read_folder(folder, model.card),
    feed=_feed,
    show=lambda samples, index: film_strip(samples.pixels[index]),
)
