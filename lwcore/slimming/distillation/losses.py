"""What a student is punished for: other answers than the teacher's, and other answers than the labels.

The divergence at a raised temperature, times its square, is that of Hinton, Vinyals and Dean (arXiv 1503.02531).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

_LEAST = 1e-12  # power of an output that is all zeros


def softened(found: torch.Tensor, said: np.ndarray, temperature: float) -> torch.Tensor:
    """Divergence of the student's class probabilities from the teacher's, both at a temperature, times its square.

    Args:
        found, said: class scores, shape (N, classes).
    """
    wanted = F.softmax(torch.from_numpy(said) / temperature, dim=1)
    return temperature**2 * F.kl_div(F.log_softmax(found / temperature, dim=1), wanted, reduction="batchmean")


def labelled(found: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
    """Cross-entropy with the labels."""
    return F.cross_entropy(found, torch.from_numpy(labels))


def compared(found: Sequence[torch.Tensor], said: Sequence[np.ndarray]) -> torch.Tensor:
    """Squared distance of outputs that are no classes, relative to the teacher's own power, mean over the outputs."""
    parts = []
    for ours, theirs in zip(found, said, strict=True):
        wanted = torch.from_numpy(theirs)
        parts.append((ours.reshape(wanted.shape) - wanted).square().mean() / wanted.square().mean().clamp(min=_LEAST))
    return torch.stack(parts).mean()
