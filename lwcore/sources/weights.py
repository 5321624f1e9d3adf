"""`read_weights`: a file of weights (safetensors, or PyTorch's .pt/.pth) → arrays by name; nothing in it is executed.

Both readers are our own and know numpy only, so the file's own code, if it has any, is never looked at as code. 16-bit
floating-point numbers are widened to float32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np

from lwcore.errors import ModelError
from lwcore.sources.checkpoint import is_checkpoint, read_checkpoint, widened

State = Mapping[str, np.ndarray]

HEADER_BYTES = 1_000_000
TENSORS = 20_000
LARGEST_DIMENSION = 2**31 - 1
_SAFE = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def is_weights(data: bytes) -> bool:
    """Whether a file, by its content, holds weights without a network."""
    return is_safetensors(data) or is_checkpoint(data)


def read_weights(data: bytes) -> dict[str, np.ndarray]:
    """Read a file of weights.

    Args:
        data: the file, from anywhere.

    Returns:
        Name → array, in the order of the file; floating-point numbers as float32 or float64.

    Raises:
        ModelError: it is no such file, damaged, too large a claim, or its numbers are not finite.
    """
    if is_safetensors(data):
        state = _read_safetensors(data)
    elif is_checkpoint(data):
        state = read_checkpoint(data)
    else:
        raise ModelError(
            "Expected weights as .safetensors or as a PyTorch checkpoint (.pt, .pth), found another kind of file. "
            'Save them with safetensors.torch.save_file(model.state_dict(), "weights.safetensors").'
        )
    for name, array in state.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ModelError(
                f"Expected finite weights, found infinity or not-a-number in {name[:80]!r}. The training has "
                "probably diverged; bring an earlier checkpoint."
            )
    return state


# -- safetensors -----------------------------------------------------------------------------------------------------


def is_safetensors(data: bytes) -> bool:
    """Whether a file, by its content, is safetensors; such a file does not keep the order of its tensors."""
    size = int.from_bytes(data[:8], "little")
    return 2 <= size <= len(data) - 8 and data[8:9] == b"{" and b'"data_offsets"' in data[8 : 8 + min(size, 8192)]


def _read_safetensors(data: bytes) -> dict[str, np.ndarray]:
    size = int.from_bytes(data[:8], "little")
    if size > HEADER_BYTES:
        raise ModelError(f"Expected a safetensors header of at most {HEADER_BYTES:,} bytes, found {size:,}.")
    try:
        header = json.loads(data[8 : 8 + size], object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise _damaged("its header is not JSON") from None
    if not isinstance(header, dict):
        raise _damaged("its header is not a table")
    header.pop("__metadata__", None)
    if len(header) > TENSORS:
        raise ModelError(f"Expected at most {TENSORS:,} tensors, found {len(header):,}.")
    body = memoryview(data)[8 + size :]
    return {name: _tensor(name, about, body) for name, about in header.items()}


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise _damaged("a name stands in its header twice")
    return table


def _tensor(name: str, about: object, body: memoryview) -> np.ndarray:
    try:
        kind, shape, (start, stop) = about["dtype"], about["shape"], about["data_offsets"]  # type: ignore[index]
        dimensions = [int(d) for d in shape]
        first, last = int(start), int(stop)
    except (TypeError, KeyError, ValueError):
        raise _damaged(f"tensor {name[:80]!r} is not described") from None
    if kind not in _SAFE:
        raise ModelError(f"Expected tensors of {', '.join(_SAFE)}, found {str(kind)[:20]!r} in {name[:80]!r}.")
    if any(not 0 <= d <= LARGEST_DIMENSION for d in dimensions):
        raise _damaged(f"tensor {name[:80]!r} has an impossible shape")
    count = math.prod(dimensions)
    dtype = np.dtype(_SAFE[kind]).newbyteorder("<")
    if not 0 <= first <= last <= len(body) or last - first != count * dtype.itemsize:
        raise _damaged(f"tensor {name[:80]!r} does not fit its bytes")
    array = np.frombuffer(body[first:last], dtype).reshape(dimensions)
    return widened(array, bfloat=kind == "BF16")


def _damaged(why: str) -> ModelError:
    return ModelError(f"Expected a whole safetensors file, found a damaged one: {why}. Save or download it again.")
