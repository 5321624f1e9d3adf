"""Read Fashion-MNIST from the Debian package ``dataset-fashion-mnist`` (idx files, gzipped)."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

DATA = Path("/usr/share/datasets/fashion-mnist")  # where the Debian package puts it
MEAN, STD = 0.2860, 0.3530  # of the training images' pixels, scaled to 0..1
CLASSES = [
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
]  # fmt: skip


def read_idx(path: Path) -> np.ndarray:
    """One gzipped idx file of bytes as a uint8 array, its dimensions from the header."""
    raw = gzip.decompress(path.read_bytes())
    if raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path.name}: expected an idx file of bytes, found header {raw[:4]!r}")
    shape = np.frombuffer(raw, ">i4", raw[3], 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def load(split: str, data: Path = DATA) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) and labels (N,), both uint8; ``split`` is "train" or "test"."""
    prefix = {"train": "train", "test": "t10k"}[split]
    images = read_idx(data / f"{prefix}-images-idx3-ubyte.gz")
    return images, read_idx(data / f"{prefix}-labels-idx1-ubyte.gz")
