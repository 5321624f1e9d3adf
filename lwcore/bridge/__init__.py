"""ONNX graph → torch module: what torchinfo reads, FlopCounterMode checks and training will run through.

One rule an operator, in one registry; `to_torch` puts the modules in a tree that follows the node names and runs them
in graph order. Importing this package imports torch, so nothing that the web process loads imports it.
"""

from lwcore.bridge import (
    contractions,
    elementwise,
    indexing,
    normalisation,
    pooling,
    quantized,
    recurrent,
    reductions,
    resize,
    shaping,
)
from lwcore.bridge.network import Network, Step, to_torch
from lwcore.bridge.node import RULES, NodeView, Rule

__all__ = [
    "RULES",
    "Network",
    "NodeView",
    "Rule",
    "Step",
    "contractions",
    "elementwise",
    "indexing",
    "normalisation",
    "pooling",
    "quantized",
    "recurrent",
    "reductions",
    "resize",
    "shaping",
    "to_torch",
]
