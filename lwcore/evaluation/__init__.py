"""Measuring on the exact bytes: accuracy, agreement, the paired test, latency in turns, sizes."""

from lwcore.evaluation.measure import evaluate
from lwcore.evaluation.remembered import Reference, reference
from lwcore.evaluation.result import Changed, ClassRow, Confused, Evaluation, OutputRow

__all__ = ["Changed", "ClassRow", "Confused", "Evaluation", "OutputRow", "Reference", "evaluate", "reference"]
