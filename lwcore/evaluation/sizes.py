"""What a file weighs: bytes after gzip, parameters that are not zero."""

from __future__ import annotations

import zlib

import numpy as np

from lwcore.analysis.cost import node_parameters
from lwcore.analysis.stored import stored
from lwcore.graph import Graph
from lwcore.model import Model

GZIP_LEVEL = 6  # what `gzip` and most web servers use when nothing else is said


def gzip_bytes(data: bytes) -> int:
    """Length of `data` after gzip -6; zlib lets other threads run meanwhile."""
    packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31)  # 31: gzip header, as in a .gz file
    return len(packer.compress(data)) + len(packer.flush())


def nonzeros(model: Model) -> int:
    """Parameters that are not zero; of a quantized weight, those that differ from its zero point."""
    graph = Graph.view(model)
    counts: dict[str, int] = {}
    for node in graph.nodes:
        for name in node_parameters(graph, node):
            if name in counts:
                continue
            if name in node.input:
                counts[name] = stored(graph, node, list(node.input).index(name)).nonzeros()
            else:  # read inside the body of an If or Loop
                counts[name] = int(np.count_nonzero(graph.constants[name]))
    return sum(counts.values())
