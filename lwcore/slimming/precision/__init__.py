"""Precision: the same network in fewer bits a number."""

from lwcore.slimming.precision.formats import reduce_precision
from lwcore.slimming.precision.mixed import NodeError, NodeErrors, node_errors

__all__ = ["NodeError", "NodeErrors", "node_errors", "reduce_precision"]
