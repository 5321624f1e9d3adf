"""The remembered answers of an original, so that comparing with it again costs no second run."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np

from lwcore import runtime
from lwcore.answers import outputs
from lwcore.errors import EvaluationError
from lwcore.model import Model
from lwcore.samples import SampleSet


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Answers of an original model on a sample set.

    Attributes:
        model: fingerprint of the original.
        samples: fingerprint of the sample set.
        outputs: what `lwcore.answers.outputs` gives.
    """

    model: str
    samples: str
    outputs: tuple[np.ndarray, ...]

    @property
    def logits(self) -> np.ndarray:
        """Of a classifier, float32, shape (N, classes): its scores as it gives them, logits or probabilities."""
        return self.outputs[0]

    def fits(self, model: Model, samples: SampleSet) -> bool:
        """Whether these are the answers of this model on these samples."""
        return self.model == model.fingerprint and self.samples == samples.fingerprint

    def to_bytes(self) -> bytes:
        """An `.npz` file without pickles; `from_bytes` reads it back."""
        buffer = io.BytesIO()
        about = {"model": np.array(self.model), "samples": np.array(self.samples)}
        named = {f"output.{i}": array for i, array in enumerate(self.outputs)}
        np.savez(buffer, allow_pickle=False, **named, **about)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Reference:
        """Read what `to_bytes` wrote; raises `EvaluationError` when the data is damaged."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                found = tuple(file[f"output.{i}"] for i in range(len(file.files) - 2))
                return cls(model=str(file["model"]), samples=str(file["samples"]), outputs=found)
        except Exception as error:  # zip, header and array parsers each raise their own kinds
            raise EvaluationError(f"Expected remembered answers of a model, found damaged data ({error}).") from None


def reference(model: Model, samples: SampleSet, threads: int | None = None) -> Reference:
    """Run an original once over a sample set and keep its answers."""
    runner = runtime.session(model.data, threads)
    found = tuple(outputs(runner, model, samples))
    return Reference(model=model.fingerprint, samples=samples.fingerprint, outputs=found)
