"""Sample sets: real inputs that a model is calibrated on and measured with."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lwcore.model import Model


@dataclass(frozen=True, kw_only=True)
class SampleSet:
    """Real inputs in the form in which they are kept, and their labels where they are known.

    Attributes:
        name: for people.
        arrays: what `lwcore.domains` makes a model's inputs of, samples along the first axis: `pixels` (uint8, shape
            (N, H, W, C), C 3 or 1; clips (N, T, H, W, C)), or a model's inputs by name.
        labels: int64, shape (N,), indexes into the model's classes; None when the samples are unlabelled (the measure
            is then agreement with the original model).
        names: one display name a sample.
        notes: what was left out or guessed while reading, in plain words.
    """

    name: str
    arrays: Mapping[str, np.ndarray]
    labels: np.ndarray | None = None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    @property
    def pixels(self) -> np.ndarray:
        """The pictures or clips."""
        return self.arrays["pixels"]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over arrays and labels."""
        digest = hashlib.sha256()
        for name, array in sorted(self.arrays.items()):
            digest.update(f"{name}{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()

    def key(self, model: Model) -> tuple[str, str, str]:
        """What a model makes of these samples depends on: its bytes, its preprocessing, the samples."""
        return model.fingerprint, model.reading, self.fingerprint

    def pick(self, places: np.ndarray | slice) -> SampleSet:
        """The samples at these indexes, with their labels and names."""
        every = np.arange(len(self))[places]
        return dataclasses.replace(
            self,
            arrays={name: array[places] for name, array in self.arrays.items()},
            labels=None if self.labels is None else self.labels[places],
            names=tuple(self.names[i] for i in every if i < len(self.names)),
        )

    def take(self, count: int) -> SampleSet:
        """The first `count` samples (all of them when there are fewer)."""
        return self.pick(slice(count))

    def unlabelled(self) -> SampleSet:
        """The same samples without labels and names."""
        return dataclasses.replace(self, labels=None, names=())
