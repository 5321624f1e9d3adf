"""Sample sets: real inputs that a model is calibrated on and measured with."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from lwcore.model import Card, InputSpec, Model


@dataclass(frozen=True, kw_only=True)
class SampleSet:
    """Pictures, already resized to the model's input, and their labels where they are known.

    Attributes:
        name: for people.
        pixels: uint8, shape (N, H, W, C) with C 3 or 1.
        labels: int64, shape (N,), indexes into the model's classes; None when the pictures are unlabelled (the measure
            is then agreement with the original model).
        names: one display name a picture.
        notes: what was left out or guessed while reading, in plain words.
    """

    name: str
    pixels: np.ndarray
    labels: np.ndarray | None = None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over pixels and labels."""
        digest = hashlib.sha256(str(self.pixels.shape).encode())
        digest.update(np.ascontiguousarray(self.pixels).data)
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()

    def key(self, model: Model) -> tuple[str, str, str]:
        """What a model makes of these samples depends on: its bytes, its preprocessing, the samples."""
        return model.fingerprint, repr(model.card.input), self.fingerprint

    def inputs(self, spec: InputSpec, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Samples `start:stop` as the model reads them: float32, (n, C, H, W) or (n, H, W, C) by `spec.layout`."""
        scaled: np.ndarray = self.pixels[start:stop].astype(np.float32) / 255.0
        scaled = (scaled - np.asarray(spec.mean, np.float32)) / np.asarray(spec.std, np.float32)
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)) if spec.layout == "NCHW" else scaled

    def take(self, count: int) -> SampleSet:
        """The first `count` samples (all of them when there are fewer)."""
        labels = None if self.labels is None else self.labels[:count]
        return dataclasses.replace(self, pixels=self.pixels[:count], labels=labels, names=self.names[:count])


def load_samples(ref: str | Path, target: Model | Card | InputSpec, limit: int | None = None) -> SampleSet:
    """Load a sample set for a model.

    Args:
        ref: a built-in set (`fashion-test`, `fashion-calibration`, `photos`), or the path of a folder or zip with one
            folder of pictures a class (labelled) or loose pictures (unlabelled).
        target: the model (or its card, or its input) that will read the pictures.
        limit: at most so many samples; all when None.

    Raises:
        SampleError: nothing of that name, or nothing in it that can be read.
    """
    from lwcore.samples import builtin  # builds on SampleSet, which stands here

    return builtin.load(ref, target, limit)
