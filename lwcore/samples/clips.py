"""One clip: from a stranger's video file to the frames a model wants, the way `ClipSpec` describes them.

The kind of file is decided from its first bytes and told to FFmpeg, with a short list of decoders: left to itself,
FFmpeg also opens playlists, which are text that names other files and addresses. Decode in a worker only (the task
`ingest_samples`): memory faults in a decoder are the one thing that no check here can rule out.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from lwcore.errors import SampleError
from lwcore.model import ClipSpec
from lwcore.samples.pictures import fit, fit_all
from lwcore.settings import SETTINGS

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

_MP4, _MATROSKA, _GIF = "mp4", "matroska", "gif"  # FFmpeg's names of the readers
_OPTIONS = {"codec_whitelist": "h264,hevc,mpeg4,vp8,vp9,libvpx,libvpx-vp9,av1,libdav1d,gif", "enable_drefs": "0"}


def read_clip(data: bytes, spec: ClipSpec) -> np.ndarray:
    """Decode one clip: `spec.frames` frames evenly spread over its length, upright, at the model's size.

    A clip with fewer frames than that shows some of them more than once.

    Returns:
        uint8, shape (T, H, W, C).

    Raises:
        SampleError: not a video of a known format, too long, too large, or damaged.
    """
    import av  # late: libraries of 60 MB that only clips need

    kind = _kind(data)
    options = _OPTIONS if kind == _MP4 else {"codec_whitelist": _OPTIONS["codec_whitelist"]}
    try:
        with av.open(io.BytesIO(data), "r", format=kind, options=options) as container:
            total = _count(container)
        with av.open(io.BytesIO(data), "r", format=kind, options=options) as container:
            return _taken(_decoded(container), spread(total, spec.frames), spec)
    except SampleError:
        raise
    except Exception as error:  # decoders raise whatever they like on damaged data
        raise SampleError(
            f"expected an MP4, WebM or GIF clip, found one that cannot be read ({_short(error)})"
        ) from None


def spread(total: int, frames: int) -> list[int]:
    """Which of `total` frames to take: the middle of each of `frames` equal parts."""
    return [(2 * i + 1) * total // (2 * frames) for i in range(frames)]


def fit_clips(pixels: np.ndarray, spec: ClipSpec) -> np.ndarray:
    """Stored clips, shape (N, T, H, W, C), brought to a model's frames, colour and size."""
    chosen = pixels[:, spread(pixels.shape[1], spec.frames)] if pixels.shape[1] != spec.frames else pixels
    flat = fit_all(chosen.reshape(-1, *chosen.shape[2:]), spec)
    return flat.reshape(len(pixels), spec.frames, *flat.shape[1:])


def _kind(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return _MP4
    if data.startswith(b"\x1aE\xdf\xa3"):
        return _MATROSKA
    if data.startswith((b"GIF87a", b"GIF89a")):
        return _GIF
    raise SampleError("expected an MP4, WebM or GIF clip, found another kind of file")


def _short(error: Exception) -> str:
    return str(getattr(error, "strerror", "") or error or type(error).__name__)[:80]


def _count(container: InputContainer) -> int:
    """Frames of the clip, by its packets: headers may be silent or lie. Its length is checked on the way."""
    if not container.streams.video:
        raise SampleError("expected a clip with pictures, found none in the file")
    stream = container.streams.video[0]
    size = (stream.codec_context.width, stream.codec_context.height)
    if max(size) > SETTINGS.clip_edge:
        raise SampleError(f"expected at most {SETTINGS.clip_edge} pixels an edge, found {size[0]} × {size[1]}")
    total, end = 0, 0.0
    for packet in container.demux(stream):
        total += packet.size > 0
        if packet.pts is not None and packet.time_base is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if total > SETTINGS.clip_frames:
            raise SampleError(f"expected at most {SETTINGS.clip_frames} frames, found more; cut the clip")
        if end > SETTINGS.clip_seconds:
            raise SampleError(f"expected at most {SETTINGS.clip_seconds} seconds, found more; cut the clip")
    if not total:
        raise SampleError("expected a clip with pictures, found none in the file")
    return total


def _decoded(container: InputContainer) -> Iterator[VideoFrame]:
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1  # every thread of a decoder holds frames of its own
    yield from container.decode(stream)


def _taken(frames: Iterator[VideoFrame], wanted: list[int], spec: ClipSpec) -> np.ndarray:
    """The frames wanted; a clip that ends early holds its last one."""
    taken: list[np.ndarray] = []
    for index, frame in enumerate(frames):
        due = wanted[len(taken) :]
        if index == due[0]:
            taken += [_picture(frame, spec)] * due.count(index)
        if len(taken) == spec.frames:
            break
    if not taken:
        raise SampleError("expected a clip whose frames can be decoded, found none")
    return np.stack(taken + taken[-1:] * (spec.frames - len(taken)))


def _picture(frame: VideoFrame, spec: ClipSpec) -> np.ndarray:
    if max(frame.width, frame.height) > SETTINGS.clip_edge:  # a stream may change its size on the way
        raise SampleError(f"expected at most {SETTINGS.clip_edge} pixels an edge, found more")
    upright = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)
    return fit(Image.fromarray(np.ascontiguousarray(upright)), spec)
