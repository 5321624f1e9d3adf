"""What is remembered of an original, so that comparing with it again costs no second run and no second packing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lwcore import runtime
from lwcore.answers import outputs
from lwcore.evaluation.sizes import gzip_bytes
from lwcore.model import Model
from lwcore.samples import SampleSet


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Answers of an original model on a sample set.

    Attributes:
        model: fingerprint of the original.
        samples: fingerprint of the sample set.
        outputs: what `lwcore.answers.outputs` gives.
        gzip_bytes: length of the original's file after gzip -6.
    """

    model: str
    samples: str
    outputs: tuple[np.ndarray, ...]
    gzip_bytes: int

    @property
    def logits(self) -> np.ndarray:
        """Of a classifier, float32, shape (N, classes): its scores as it gives them, logits or probabilities."""
        return self.outputs[0]

    def fits(self, model: Model, samples: SampleSet) -> bool:
        """Whether these are the answers of this model on these samples."""
        return self.model == model.fingerprint and self.samples == samples.fingerprint


def reference(model: Model, samples: SampleSet, threads: int | None = None) -> Reference:
    """Run an original once over a sample set and keep its answers; pack its file once."""
    runner = runtime.shared_session(model.data, threads)
    found = tuple(outputs(runner, model, samples))
    packed = gzip_bytes(model.data)
    return Reference(model=model.fingerprint, samples=samples.fingerprint, outputs=found, gzip_bytes=packed)
