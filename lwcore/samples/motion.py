"""Made clips: a Fashion-MNIST picture moves, its class is the kind of motion (after Moving MNIST, arXiv 1502.04681).

Clips are drawn from pictures that ship anyway whenever they are asked for: the same seed gives the same clips, and no
bytes of video need a place in the repository.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

FRAMES, EDGE = 8, 32
CLASSES = (
    "moves left", "moves right", "moves up", "moves down",
    "turns", "comes closer", "goes away", "stands still",
)  # fmt: skip
_DRIFT = {0: (0, -1), 1: (0, 1), 2: (-1, 0), 3: (1, 0)}  # class → (down, right)
_TURN, _CLOSER, _AWAY = 4, 5, 6
_PIXELS, _RADIANS, _GROWTH = (0.2, 1.2), (0.02, 0.15), (0.01, 0.07)  # slowest and fastest, per frame
_SHAKE = 0.6  # pixels of camera shake, standard deviation: what is slow has to be told from it
_NOISE = 36.0  # grey levels


@dataclass(frozen=True, kw_only=True)
class _Path:
    """Where the pictures are: offset in pixels (n, FRAMES, 2), angle and logarithm of the scale (n, FRAMES)."""

    offset: np.ndarray
    angle: np.ndarray
    growth: np.ndarray


def make_clips(images: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Clips of pictures in motion: drifting, turning, growing or shrinking, with camera shake and noise.

    Args:
        images: uint8, shape (N, H, W), one picture a clip.
        labels: shape (N,), indexes into `CLASSES`, the motion of each clip.
        seed: of everything random.

    Returns:
        uint8, shape (N, FRAMES, EDGE, EDGE, 1).
    """
    rng = np.random.default_rng(seed)
    return _render(images, _path(labels, rng), rng)[..., None]


def balanced_labels(count: int, seed: int) -> np.ndarray:
    """`count` shuffled motions, every class as often as the others; int64, shape (count,)."""
    labels: np.ndarray = np.random.default_rng(seed).permutation(np.arange(count) % len(CLASSES))
    return labels


def _path(labels: np.ndarray, rng: np.random.Generator) -> _Path:
    n = len(labels)
    time = np.arange(FRAMES) - (FRAMES - 1) / 2
    speed = rng.uniform(*_PIXELS, n)
    direction = np.array([_DRIFT.get(int(k), (0, 0)) for k in labels], float).reshape(n, 2)
    turn = rng.uniform(*_RADIANS, n) * rng.choice((-1, 1), n) * (labels == _TURN)
    growth = rng.uniform(*_GROWTH, n) * ((labels == _CLOSER) * 1.0 - (labels == _AWAY))
    start = rng.uniform(-2.5, 2.5, (n, 1, 2))
    shake = rng.normal(0, _SHAKE, (n, FRAMES, 2))
    tilt, size = rng.uniform(-0.3, 0.3, (n, 1)), np.log(rng.uniform(0.65, 0.95, (n, 1)))
    return _Path(
        offset=start + shake + (speed[:, None] * direction)[:, None, :] * time[None, :, None],
        angle=tilt + turn[:, None] * time,
        growth=size + growth[:, None] * time,
    )


def _render(images: np.ndarray, path: _Path, rng: np.random.Generator) -> np.ndarray:
    """The pictures along their paths, bilinear, on black, with noise; uint8 (N, FRAMES, EDGE, EDGE)."""
    frames = np.empty((len(images), FRAMES, EDGE, EDGE), np.uint8)
    matrices = _matrices(path, images.shape[1:]).tolist()
    for clip, picture, steps in zip(frames, images, matrices, strict=True):
        framed = Image.fromarray(np.pad(picture, 1))  # so that its edges blend into the black around it
        for t, matrix in enumerate(steps):
            clip[t] = np.asarray(
                framed.transform((EDGE, EDGE), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
            )
    contrast = rng.uniform(0.6, 1.0, (len(images), 1, 1, 1)).astype(np.float32)
    for clip, factor in zip(frames, contrast, strict=True):
        noise = np.abs(rng.standard_normal(clip.shape, np.float32)) * np.float32(_NOISE)
        clip[...] = np.minimum(clip * factor + noise, 255)
    return frames


def _matrices(path: _Path, size: tuple[int, ...]) -> np.ndarray:
    """From a point (right, down) of a frame to the point of the picture seen there, as Pillow wants it."""
    zoom, (down, right) = np.exp(-path.growth), (EDGE / 2 + path.offset[..., axis] for axis in (0, 1))
    cos, sin = zoom * np.cos(path.angle), zoom * np.sin(path.angle)
    across = size[1] / 2 + 1 - cos * right + sin * down
    along = size[0] / 2 + 1 - sin * right - cos * down
    return np.stack([cos, -sin, across, sin, cos, along], axis=-1)
