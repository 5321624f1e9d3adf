"""Rules of recurrent layers: the input width is consumed, the hidden width is one axis of units through all gates.

A hidden unit is a row of every gate in the input and recurrent weights, its biases and peepholes, and a column of the
recurrent weights. All directions of a layer share one `hidden_size`, so the same unit goes in each.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from lwcore.analysis.labels import Labelling
from lwcore.analysis.rules import freeze_inputs, freeze_others, join, rule

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@rule("LSTM", "GRU", "RNN")
def _recurrent(lab: Labelling, index: int, node: NodeProto) -> None:
    data, weight, recurrent = node.input[:3]
    if not lab.is_constant(weight) or not lab.is_constant(recurrent):
        freeze_inputs(lab, node, "its weights are computed, not stored")
        return
    freeze_others(lab, node, data, 2)
    if (inputs := lab.on(data, 2)) is not None:
        lab.consume(index, weight, 2, data, inputs)
    gates = _GATES[node.op_type]
    units = lab.fresh(lab.shape(recurrent)[2])
    lab.cut(weight, 1, np.tile(units, gates))
    lab.producers.append((index, weight, 1))
    lab.cut(recurrent, 1, np.tile(units, gates))
    lab.consume(index, recurrent, 2, node.output[0], units)
    # Bias, first states and peepholes: how often one of them holds every hidden unit along its last axis.
    for position, times in ((3, 2 * gates), (5, 1), (6, 1), (7, 3)):
        name = node.input[position] if position < len(node.input) else ""
        if name:
            join(lab, node, name, len(lab.shape(name)) - 1, len(lab.shape(name)), np.tile(units, times))
    for name in filter(None, node.output):
        lab.put(name, len(lab.shape(name)) - 1, units)
