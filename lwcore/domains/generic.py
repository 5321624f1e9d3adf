"""Arrays of any kind: an `.npz` with one array an input; outputs are compared as numbers."""

from __future__ import annotations

import io
import zipfile

import numpy as np
from onnx import helper

from lwcore.domains import Domain
from lwcore.errors import SampleError
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.progress import Progress
from lwcore.runtime import Feed
from lwcore.samples import SampleSet
from lwcore.samples.numbers import sample_shape, stacked
from lwcore.settings import SETTINGS

_ROWS, _COLUMNS = 12, 8  # of an array shown as numbers


def _feed(samples: SampleSet, model: Model, start: int, stop: int) -> Feed:
    graph = Graph.view(model)
    arrays = samples.arrays
    return {n: arrays[n][start:stop] if stacked(graph, n) else arrays[n][start] for n in graph.inputs}


def _read(data: bytes, model: Model, name: str, progress: Progress) -> SampleSet:
    """Read an `.npz` (or one `.npy` for a model with one input), samples along the first axis; never a pickle."""
    graph = Graph.view(model)
    arrays = _named(_loaded(data), graph)
    counts = {len(array) for array in arrays.values()}
    if len(counts) != 1 or not min(counts):
        raise SampleError(f"Expected the same number of samples in every array, found {sorted(counts)}.")
    found = {n: _checked(graph, n, arrays[n]) for n in graph.inputs}
    return SampleSet(name=name or "Your arrays", arrays=found)


def _loaded(data: bytes) -> dict[str, np.ndarray]:
    if data.startswith(b"PK"):
        with _zip(data) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > SETTINGS.archive_mb * 1_000_000 or len(archive.infolist()) > SETTINGS.archive_files:
                raise SampleError(f"Expected arrays of at most {SETTINGS.archive_mb} MB, found {size // 1_000_000} MB.")
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        return {"": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except Exception as error:  # zip, header and array parsers each raise their own kinds
        raise SampleError(f"Expected an .npz file of plain arrays, found one that cannot be read ({error}).") from None


def _zip(data: bytes) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise SampleError(f"Expected an .npz file of plain arrays, found one that is damaged ({error}).") from None


def _named(arrays: dict[str, np.ndarray], graph: Graph) -> dict[str, np.ndarray]:
    if len(graph.inputs) == 1 and len(arrays) == 1:
        return dict(zip(graph.inputs, arrays.values(), strict=True))
    missing = [name for name in graph.inputs if name not in arrays]
    if missing:
        raise SampleError(
            f"Expected one array an input ({', '.join(graph.inputs)[:200]}), found {', '.join(arrays)[:200] or 'none'}."
        )
    return arrays


def _checked(graph: Graph, name: str, array: np.ndarray) -> np.ndarray:
    wanted, kind = sample_shape(graph, name), helper.tensor_dtype_to_np_dtype(graph.types[name])
    if array.shape[1:] != wanted:
        raise SampleError(
            f"Array {name[:60]!r}: expected samples of shape {wanted}, found {array.shape[1:]}. The samples lie along "
            "the first axis."
        )
    floats = np.issubdtype(kind, np.floating)
    if not np.can_cast(array.dtype, kind, "same_kind") and not (floats and np.issubdtype(array.dtype, np.number)):
        raise SampleError(f"Array {name[:60]!r}: expected values of type {kind}, found {array.dtype}.")
    if floats and not np.isfinite(array).all():
        raise SampleError(f"Array {name[:60]!r}: expected finite numbers, found others.")
    return array.astype(kind)


def _show(samples: SampleSet, index: int) -> str:
    """Every input's shape and its first numbers."""
    parts = []
    for name, array in samples.arrays.items():
        flat = np.atleast_2d(array[index].reshape(-1, array.shape[-1]) if array.ndim > 1 else array[index])
        rows = "\n".join("  ".join(f"{v:g}" for v in row[:_COLUMNS]) for row in flat[:_ROWS])
        parts.append(f"{name} {array.shape[1:]}\n{rows}")
    return "\n\n".join(parts)


DOMAIN = Domain(
    task="generic",
    accepts=("npz", "npy"),
    read=_read,
    feed=_feed,
    show=_show,
    classes=False,
    alone=True,
)
