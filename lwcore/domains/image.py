"""Pictures: files and zips of them, kept at the model's size, scaled as its `InputSpec` says."""

from __future__ import annotations

import numpy as np

from lwcore.domains import Domain
from lwcore.graph import Graph
from lwcore.model import InputSpec, Model
from lwcore.progress import Progress
from lwcore.runtime import Feed
from lwcore.samples import SampleSet
from lwcore.samples.archive import read_folder, read_zip


def scaled(pixels: np.ndarray, spec: InputSpec) -> np.ndarray:
    """Values 0–255 as the model reads them: float32, colours last as they came."""
    floats: np.ndarray = pixels.astype(np.float32) / 255.0
    return np.asarray((floats - np.asarray(spec.mean, np.float32)) / np.asarray(spec.std, np.float32))


def _feed(samples: SampleSet, model: Model, start: int, stop: int) -> Feed:
    spec = model.card.pictures
    array = scaled(samples.pixels[start:stop], spec)
    if spec.layout == "NCHW":
        array = np.ascontiguousarray(array.transpose(0, 3, 1, 2))
    return {Graph.view(model).inputs[0]: array}


def _read(data: bytes, model: Model, name: str, progress: Progress) -> SampleSet:
    return read_zip(data, model.card, name=name or "Your pictures", progress=progress)


def _show(samples: SampleSet, index: int) -> np.ndarray:
    return np.asarray(samples.pixels[index])


DOMAIN = Domain(
    task="image-classification",
    accepts=("zip", "jpg", "jpeg", "png", "webp", "bmp", "gif"),
    read=_read,
    read_folder=lambda folder, model: read_folder(folder, model.card),
    feed=_feed,
    show=_show,
)
