"""The samples as a student sees them: pictures moved a little and mirrored by chance, anything else as it is."""

from __future__ import annotations

import dataclasses

import numpy as np

from lwcore.samples import SampleSet

VIEWS = 8  # of a set of pictures; then they come again, and with them what the teacher said about them
VIEW_BYTES = 1 << 28  # of pixels in all views
SHIFT = 1 / 14  # of the picture's side


def count(samples: SampleSet) -> int:
    """How many different views of a set there are."""
    if not are_pictures(samples):
        return 1
    return max(1, min(VIEWS, VIEW_BYTES // max(1, samples.pixels.nbytes)))


def are_pictures(samples: SampleSet) -> bool:
    """Whether the samples can be moved and mirrored (clips cannot: the direction may be what is asked)."""
    return set(samples.arrays) == {"pixels"} and samples.pixels.ndim == 4


def moved(samples: SampleSet, seed: int, view: int, flips: bool) -> SampleSet:
    """The set with every picture shifted, and half of them mirrored where `flips`; other samples unchanged."""
    if not are_pictures(samples):
        return samples
    draw = np.random.default_rng([seed, view])
    pixels = samples.pixels
    n, height, width = pixels.shape[:3]
    reach = (round(SHIFT * height), round(SHIFT * width))
    padded = np.pad(pixels, ((0, 0), (reach[0],) * 2, (reach[1],) * 2, (0, 0)), mode="edge")
    rows = np.arange(height) + draw.integers(0, 2 * reach[0] + 1, (n, 1))
    columns = np.arange(width)[None]
    if flips:
        columns = np.where(draw.random((n, 1)) < 0.5, columns[:, ::-1], columns)
    columns = columns + draw.integers(0, 2 * reach[1] + 1, (n, 1))
    taken = padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return dataclasses.replace(samples, arrays={"pixels": np.asarray(taken)})


def mirrored(samples: SampleSet) -> SampleSet:
    """Every picture mirrored."""
    return dataclasses.replace(samples, arrays={"pixels": samples.pixels[:, :, ::-1]})
