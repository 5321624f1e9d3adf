"""`to_onnx`: a torch network → a normalised ONNX file; the one export of the named architectures.

The export keeps batch norm as it is, so that parameters equal the published numbers. The TorchScript exporter is used
on purpose: for these models it takes a tenth of the time of the newer one (ResNet-18 2 s instead of 20 s, Swin-T 34 s
instead of 106 s on two cores) and names layers after their modules.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from lwcore.sources.normalise import normalise

if TYPE_CHECKING:
    import torch
    from torch import nn

FORMAT = 1  # raise it when the export changes: files in the cache are made anew
OPSET = 17  # the newest that the TorchScript exporter writes for all of them
LARGEST = 480_000_000  # parameters; beyond it a float32 file does not fit into the 2 GB of an ONNX file
SEED = 0


def made_with(*packages: str, also: Sequence[Any] = ()) -> str:
    """A short digest of everything an export depends on, for its name in the cache."""
    facts = [FORMAT, OPSET, SEED, *also, *(version(name) for name in ("torch", "onnx", *packages))]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]


def to_onnx(network: nn.Module, shape: Sequence[int]) -> bytes:
    """Export a network.

    Args:
        network: with one floating-point input; it is put into its inference mode.
        shape: of one sample, without the batch: (C, H, W) or (C, T, H, W).

    Returns:
        The file, with a free batch axis.
    """
    import torch

    axes = {"input": {0: "batch"}, "logits": {0: "batch"}}
    data, _ = normalise(traced(network, {"input": torch.zeros(1, *shape)}, ["logits"], axes))
    return data


def traced(
    network: nn.Module,
    example: Mapping[str, torch.Tensor],
    outputs: Sequence[str],
    axes: Mapping[str, Mapping[int, str]],
) -> onnx.ModelProto:
    """A network as torch's exporter writes it, each parameter an initializer of its own.

    Args:
        network: put into its inference mode; it reads its inputs by position.
        example: inputs in that order, by the names that the file gives them.
        outputs: names of the results.
        axes: input or output → axis → name of its size, where that is free.
    """
    import torch

    with warnings.catch_warnings(), quiet("torch.onnx"), tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        warnings.simplefilter("ignore")  # the tracer warns at every shape that Python code looks at
        torch.onnx.export(
            network.eval(),
            tuple(example.values()),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(example),
            output_names=list(outputs),
            dynamic_axes=axes,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
        proto = onnx.load_model_from_string(file.read_bytes())
    _own_initializers(proto.graph)
    for node in proto.graph.node:
        node.doc_string = ""
    return proto


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """Random weights drawn inside are the same every time, and the random state outside stays as it was."""
    import torch

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some networks announce changes of their initialisation
        torch.manual_seed(SEED)
        yield


@contextlib.contextmanager
def quiet(logger: str) -> Iterator[None]:
    """Keep a foreign library's warnings to itself."""
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _own_initializers(graph: onnx.GraphProto) -> None:
    """Give every parameter its own initializer again.

    The exporter stores parameters of equal value once and writes an Identity for the others (all fresh batch norms of
    one width, for instance); they are different parameters all the same.
    """
    tensors = {t.name: t for t in graph.initializer}
    copies = [n for n in graph.node if n.op_type == "Identity" and n.input[0] in tensors]
    for node in copies:
        twin = graph.initializer.add()
        twin.CopyFrom(tensors[node.input[0]])
        twin.name = node.output[0]
        tensors[twin.name] = twin
        graph.node.remove(node)
