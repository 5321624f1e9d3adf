"""What is to be slimmed and measured, packed once for every worker; and how answers are scored on its two halves.

The samples are split in two: the *choice* half steers the search, the *held-out* half only says yes or no to the best
so far. Whatever is picked as the best of many noisy measurements looks better than it is, and only samples that took no
part in picking say how good it really is.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from lwcore.domains import domain
from lwcore.errors import SearchError
from lwcore.model import Card, Model
from lwcore.recipe import Blocks
from lwcore.samples import SampleSet
from lwcore.searching.space import BLOCKS
from lwcore.similarity import likeness
from lwcore.store import digest

if TYPE_CHECKING:
    from lwcore.slimming.lowrank.spectra import Layers

HELD = 400_000_000  # bytes of a model whose statistics are held in memory: they take about as much
SPLIT_FROM = 400  # samples; with fewer, either half would be too few to tell a point


@dataclass(frozen=True, kw_only=True)
class Score:
    """Answers on one half: samples, share right (or as the original answers; or their similarity), the original's."""

    n: int
    quality: float
    reference: float

    @property
    def drop(self) -> float:
        """Points lost against the original."""
        return 100 * (self.reference - self.quality)

    def plus(self, other: Score | None) -> Score:
        """Both halves together."""
        if other is None:
            return self
        n = self.n + other.n
        shares = [
            (a * self.n + b * other.n) / n
            for a, b in ((self.quality, other.quality), (self.reference, other.reference))
        ]
        return Score(n=n, quality=shares[0], reference=shares[1])


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is to be slimmed and measured.

    Attributes:
        model: the original.
        samples: those of the choice half first; `split` of them.
        calibration: what `apply` may look at.
        answers: what the original says of `samples` (`said`).
        split: how many samples choose; all of them where there are too few to keep some apart.
    """

    model: Model
    samples: SampleSet
    calibration: SampleSet
    answers: np.ndarray
    split: int

    @cached_property
    def key(self) -> str:
        """Fingerprint of everything that a trial depends on beside its recipe."""
        card = json.dumps(self.model.card.to_json(), sort_keys=True)
        parts = (self.model.fingerprint, card, self.samples.fingerprint, self.calibration.fingerprint, str(self.split))
        return digest(*(part.encode() for part in parts))

    @cached_property
    def layers(self) -> Layers | None:
        """What every low-rank step on the original rests on, measured once; None where it is too much to hold."""
        from lwcore.slimming.lowrank.spectra import measure_layers

        return measure_layers(self.model, self.calibration) if self.model.size_bytes <= HELD else None

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The blocks that any choice drops from the original, the least missed first, measured once."""
        from lwcore.slimming.blocks import count_of, dropping_order

        return dropping_order(self.model, self.calibration, count_of(self.model, Blocks(amount=max(BLOCKS))))

    def score(self, answers: np.ndarray) -> tuple[Score, Score | None]:
        """A model's answers on the choice half, and on the held-out half where there is one."""
        whole = len(self.samples)
        held_out = self._score(answers, self.split, whole) if self.split < whole else None
        return self._score(answers, 0, self.split), held_out

    def _score(self, answers: np.ndarray, start: int, stop: int) -> Score:
        before, after = self.answers[start:stop], answers[start:stop]
        if before.ndim == 2:
            return Score(n=stop - start, quality=likeness(after, before).value, reference=1.0)
        labels = self.samples.labels
        right = before if labels is None else labels[start:stop]
        return Score(n=stop - start, quality=float((after == right).mean()), reference=float((before == right).mean()))

    def to_bytes(self) -> bytes:
        """One file of plain arrays, without pickles; `from_bytes` reads it back."""
        about = {
            "card": self.model.card.to_json(),
            "names": [self.samples.name, self.calibration.name],
            "split": self.split,
        }
        arrays = {
            "model": np.frombuffer(self.model.data, np.uint8),
            "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
            "answers": self.answers,
            **{f"file.{name}": np.frombuffer(data, np.uint8) for name, data in self.model.files.items()},
        }
        for part, samples in (("samples", self.samples), ("calibration", self.calibration)):
            arrays |= {f"{part}.array.{name}": array for name, array in samples.arrays.items()}
            if samples.labels is not None:
                arrays[f"{part}.labels"] = samples.labels
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Problem:
        """Read what `to_bytes` wrote."""
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(arrays["about"].tobytes())
        samples, calibration = (
            SampleSet(name=name, arrays=_under(arrays, f"{part}.array."), labels=arrays.get(f"{part}.labels"))
            for name, part in zip(about["names"], ("samples", "calibration"), strict=True)
        )
        return cls(
            model=Model(
                data=arrays["model"].tobytes(),
                card=Card.from_json(about["card"]),
                files={name: array.tobytes() for name, array in _under(arrays, "file.").items()},
            ),
            samples=samples,
            calibration=calibration,
            answers=arrays["answers"],
            split=about["split"],
        )


def _under(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def said(model: Model, outputs: Sequence[np.ndarray]) -> np.ndarray:
    """What scores are made of: a classifier's answers, shape (N,), or all outputs of any other model, (N, width)."""
    from lwcore.evaluation.accuracy import answers

    return answers(outputs[0]) if domain(model).classes else np.concatenate(outputs, axis=1)


def pose(model: Model, samples: SampleSet, calibration: SampleSet, outputs: Sequence[np.ndarray], seed: int) -> Problem:
    """Split the samples by the seed, the same share of each class in both halves, and note the original's answers.

    Args:
        outputs: of the original on the samples, as `lwcore.answers.outputs` gives them.

    Raises:
        SearchError: there are no samples.
    """
    from lwcore.evaluation.accuracy import check_labels

    if not len(samples):
        raise SearchError(f"Expected samples to measure on, found none in {samples.name!r}.")
    found = said(model, outputs)
    if domain(model).classes:
        check_labels(samples, outputs[0].shape[1])
    order = np.random.default_rng(seed).permutation(len(samples))
    split = len(samples)
    if split >= SPLIT_FROM:
        kinds = samples.labels if samples.labels is not None else found if found.ndim == 1 else np.zeros(len(found))
        order = order[np.argsort(kinds[order], kind="stable")]  # by class, drawn by lot within it
        order = np.concatenate([order[::2], order[1::2]])
        split = (split + 1) // 2
    mixed = replace(samples.pick(order), names=())
    return Problem(model=model, samples=mixed, calibration=calibration, answers=found[order], split=split)
