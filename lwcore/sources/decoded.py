"""`Decoded`: what a stranger's file of weights says, once a confined worker has read it, for another to build from.

Reading such a file takes seconds and is where a fault would be used, so it runs under the limits of an upload; building
and exporting the network takes minutes and needs torch. Between the two go plain arrays and texts, never the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from lwcore.errors import ModelError
from lwcore.store import Store

_ABOUT, _TENSOR, _FILE = "about", "tensor.", "file."
_FOLDER = "decoded"  # of the store; the worker that reads may add to it


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Tensors by name in the order of the file, and what lies beside them.

    Attributes:
        ordered: whether that order is the one in which the network has its tensors.
        files: texts beside the weights, by name: a configuration, a tokenizer.
    """

    state: Mapping[str, np.ndarray]
    ordered: bool = False
    files: Mapping[str, bytes] = field(default_factory=dict)


def put(store: Store, decoded: Decoded) -> str:
    """Keep what was read from an upload; returns its fingerprint."""
    about = {"names": list(decoded.state), "ordered": decoded.ordered, "files": list(decoded.files)}
    arrays = {_ABOUT: np.frombuffer(json.dumps(about).encode(), np.uint8)}
    arrays |= {f"{_TENSOR}{i}": array for i, array in enumerate(decoded.state.values())}
    arrays |= {f"{_FILE}{i}": np.frombuffer(data, np.uint8) for i, data in enumerate(decoded.files.values())}
    key = _key(arrays)
    store.put_arrays(key, arrays, _FOLDER)
    return key


def _key(arrays: Mapping[str, np.ndarray]) -> str:
    """The content gives the name, so that no other file can be put in its place by a job that may add files."""
    total = hashlib.sha256(_FOLDER.encode())
    for name, array in sorted(arrays.items()):
        total.update(f"{name} {array.dtype} {array.shape};".encode())
        total.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def get(store: Store, key: str) -> Decoded:
    """What `put` kept; raises `ModelError` when it is gone from the store."""
    arrays = store.arrays(key, _FOLDER)
    if arrays is not None and _key(arrays) != key:
        store.drop_arrays(key, _FOLDER)
        arrays = None
    if arrays is None:
        raise ModelError("What was read from the uploaded file is not in the store any more. Upload it again.")
    about = json.loads(arrays[_ABOUT].tobytes())
    return Decoded(
        state={str(name): arrays[f"{_TENSOR}{i}"] for i, name in enumerate(about["names"])},
        ordered=bool(about["ordered"]),
        files={str(name): arrays[f"{_FILE}{i}"].tobytes() for i, name in enumerate(about["files"])},
    )


@contextmanager
def used(store: Store, key: str, again: bool) -> Iterator[Decoded]:
    """What `put` kept, removed once it was used: tensors in full precision, of no use beside the model built from them.

    Args:
        again: whether it is wanted once more where it is refused, say to be tried with another architecture.
    """
    found = get(store, key)
    try:
        yield found
    except ModelError:
        if not again:
            store.drop_arrays(key, _FOLDER)
        raise
    store.drop_arrays(key, _FOLDER)
