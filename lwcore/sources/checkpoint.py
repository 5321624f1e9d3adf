"""`read_checkpoint`: PyTorch's .pt and .pth files, read without unpickling.

Such a file is a pickle beside raw bytes; `lwcore.sources.pickled` says what the pickle describes. Formats: the zip file
of torch ≥ 1.6 and the stream before it (torch/serialization.py).
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np

from lwcore.errors import ModelError
from lwcore.sources.pickled import DTYPES, Name, Place, Storage, Unknown, damaged, decode

MAGIC = 0x1950A86A20F9469CFC6C  # first value of the stream format
_INSIDE = ("state_dict", "model_state_dict", "model", "module", "net", "network", "state_dict_ema", "model_ema", "ema")
SNIPPET = 'Save its weights instead: torch.save(model.state_dict(), "weights.pt"), or export the model as ONNX'


def is_checkpoint(data: bytes) -> bool:
    """Whether a file, by its content, is a PyTorch checkpoint of either format; TorchScript and .pt2 are not."""
    if data[:4] == b"PK\x03\x04":
        names = _members(data)
        script = any(n.endswith(("constants.pkl", "archive_format", ".json")) or "/code/" in n for n in names)
        return not script and any(n.endswith("/data.pkl") for n in names)
    return len(data) > 20 and data[0] == 0x80 and data[2:14] == b"\x8a\x0a" + MAGIC.to_bytes(10, "little")


def read_checkpoint(data: bytes) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint's state dict by name; raises `ModelError` for what holds none or is damaged."""
    try:
        tree, numbers = (_zipped if data[:2] == b"PK" else _stream)(data)
    except ModelError:
        raise
    except Exception as error:  # a damaged file can break the decoding anywhere
        raise damaged(f"{type(error).__name__} while reading it") from None
    found = _state(tree)
    total = sum(math.prod(place.shape) for place in found.values())
    if total > 2 * len(data):  # more numbers than bytes: strides of zero that would be written out
        raise damaged("its tensors are larger than the file")
    return {name: _array(name, place, numbers) for name, place in found.items()}


def _state(tree: object) -> dict[str, Place]:
    """The state dict in what was saved: itself, or under one of the usual names."""
    if isinstance(tree, dict):
        for inner in (tree, *(tree[key] for key in _INSIDE if isinstance(tree.get(key), dict))):
            found = {str(name): place for name, place in inner.items() if isinstance(place, Place)}
            if found:
                return found
    made = f" of the class {tree.maker.name!r}" if isinstance(tree, Unknown) and isinstance(tree.maker, Name) else ""
    what = f"a whole Python object{made}" if isinstance(tree, Unknown) else "a file without tensors"
    raise ModelError(f"Expected a PyTorch checkpoint with a state dict, found {what}. {SNIPPET}.")


# -- the two formats -------------------------------------------------------------------------------------------------

Numbers = Callable[[Storage], np.ndarray]


def _members(data: bytes) -> list[str]:
    if data.count(b"PK\x01\x02") > 30_000:  # its directory is not worth unpacking to tell what it is
        return []
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return []


def _zipped(data: bytes) -> tuple[object, Numbers]:
    archive = zipfile.ZipFile(io.BytesIO(data))
    entries = {info.filename: info for info in archive.infolist()}
    if any(info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 for info in entries.values()):
        raise ModelError("Expected a checkpoint as torch.save writes it, found a compressed one. Save it again.")
    main = next(name for name in entries if name.endswith("/data.pkl"))
    folder = main.removesuffix("data.pkl")
    if entries.get(f"{folder}byteorder") and archive.read(f"{folder}byteorder") != b"little":
        raise ModelError("Expected a little-endian checkpoint, found another byte order. Save it on a usual computer.")

    if sum(info.file_size for info in entries.values()) > 2 * len(data):
        raise damaged("its parts are larger than the file")

    @cache
    def numbers(storage: Storage) -> np.ndarray:
        return np.frombuffer(archive.read(f"{folder}data/{storage.key}"), DTYPES[storage.kind])

    return decode(io.BytesIO(archive.read(main))), numbers


def _stream(data: bytes) -> tuple[object, Numbers]:
    stream = io.BytesIO(data)
    if decode(stream) != MAGIC or decode(stream) != 1001:
        raise damaged("its first words are not those of torch.save")
    decode(stream)  # sizes of C types on the computer that wrote it
    storages: dict[str, Storage] = {}
    tree = decode(stream, storages)
    arrays: dict[str, np.ndarray] = {}
    keys = decode(stream)
    for key in keys if isinstance(keys, list) else []:
        count = int.from_bytes(stream.read(8), "little", signed=True)
        dtype = np.dtype(DTYPES[storages[str(key)].kind])
        body = stream.read(max(0, count) * dtype.itemsize)
        arrays[str(key)] = np.frombuffer(body, dtype, count)
    return tree, lambda storage: arrays[storage.key]


def _array(name: str, place: Place, numbers: Numbers) -> np.ndarray:
    try:
        flat = numbers(place.storage)
    except (KeyError, ValueError, EOFError, OSError, NotImplementedError, zipfile.BadZipFile, zlib.error):
        raise damaged(f"the numbers of {name[:80]!r} are missing") from None
    last = place.offset + sum((s - 1) * step for s, step in zip(place.shape, place.strides, strict=True))
    if min((place.offset, *place.shape, *place.strides)) < 0 or (0 not in place.shape and last >= len(flat)):
        raise damaged(f"{name[:80]!r} reaches beyond its numbers")
    if 0 in place.shape:
        return np.zeros(place.shape, flat.dtype)
    size = flat.dtype.itemsize
    view = np.lib.stride_tricks.as_strided(
        flat[place.offset :], place.shape, [step * size for step in place.strides], writeable=False
    )
    return np.ascontiguousarray(widened(view, bfloat=place.storage.kind == "BFloat16Storage")).reshape(place.shape)


def widened(array: np.ndarray, bfloat: bool = False) -> np.ndarray:
    """Half precision as float32; `bfloat` says that the 16 bits are a bfloat16."""
    if bfloat:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32) if array.dtype == np.float16 else array
