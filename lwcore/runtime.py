"""onnxruntime sessions: made from bytes (never from a path), with thread counts set on purpose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from lwcore.errors import ModelError
from lwcore.settings import SETTINGS

if TYPE_CHECKING:
    import onnxruntime
    from threadpoolctl import ThreadpoolController

Feed = dict[str, np.ndarray]  # a batch: the name of an input → its values, samples along the first axis
SHARED_MB = 128  # of a file whose session is kept for the next who asks for it
BATCH = 64  # large enough to amortise a call, small enough that activations stay in the cache of a small machine


def session(
    data: bytes,
    threads: int | None = None,
    optimise: bool = True,
    profile: str | None = None,
    frugal: bool = False,
) -> onnxruntime.InferenceSession:
    """An onnxruntime CPU session.

    Args:
        data: a serialized ONNX model.
        threads: intra-op threads; `SETTINGS.threads` when None.
        optimise: False keeps the graph as written (needed when every inner tensor is asked for).
        profile: write the time of every operator to a file with this beginning of a path.
        frugal: look at shapes as soon as they are known and give memory back at once, rather than run fast.

    Raises:
        ModelError: onnxruntime refuses the graph.
    """
    import onnxruntime as ort  # late: a second of import that reading a recipe or listing models does not need

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or SETTINGS.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Spinning threads starve the other processes of a small machine for no gain at these model sizes.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if frugal:
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED  # puts Shape first
        options.enable_cpu_mem_arena = False
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Shape operators run as soon as they can, so that what they look at can be freed.
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a foreign parser raises whatever it likes, UnicodeDecodeError included
        raise ModelError(
            f"Expected a model that onnxruntime can run; it refused this one: {_first_line(error)}"
        ) from None


def shared_session(data: bytes, threads: int | None = None) -> onnxruntime.InferenceSession:
    """A session of these bytes, kept for the next who asks: a file that is judged, checked and measured is read once.

    Raises:
        ModelError: onnxruntime refuses the graph.
    """
    threads = threads or SETTINGS.threads
    return _shared(data, threads) if len(data) <= SHARED_MB << 20 else session(data, threads)


@lru_cache(maxsize=1)
def blas() -> ThreadpoolController:
    """The libraries behind numpy and scipy, whose threads can be set; looked for once, which takes milliseconds."""
    import scipy.linalg  # noqa: F401  (it brings a library of its own, which must be there to be found)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def forget() -> None:
    """Let go of the shared sessions, whose working memory may be what something large is about to need."""
    _shared.cache_clear()


@lru_cache(maxsize=2)
def _shared(data: bytes, threads: int) -> onnxruntime.InferenceSession:
    return session(data, threads)


def run(
    runner: onnxruntime.InferenceSession, feed: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None
) -> list[np.ndarray]:
    """Run one batch; raises `ModelError` when the run fails."""
    try:
        return list(runner.run(list(outputs) if outputs else None, dict(feed)))
    except Exception as error:
        shapes = ", ".join(str(array.shape) for array in feed.values())
        raise ModelError(f"The model could not be run on input of shape {shapes}: {_first_line(error)}") from None


def count(feed: Mapping[str, np.ndarray]) -> int:
    """How many samples a batch holds, by the first axis of its first array."""
    first = next(iter(feed.values()))
    return len(first) if first.ndim else 1


def batch_size(runner: onnxruntime.InferenceSession, wanted: int = BATCH) -> int:
    """`wanted`, or the model's own batch size when its file fixes one."""
    first = runner.get_inputs()[0].shape[0]
    return first if isinstance(first, int) and first > 0 else wanted


def batches(count: int, size: int) -> Iterator[tuple[int, int]]:
    """Start and stop of every batch of `size` in `count` samples; the last one may be shorter."""
    for start in range(0, count, size):
        yield start, min(count, start + size)


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:300]
