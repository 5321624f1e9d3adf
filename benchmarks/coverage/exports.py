"""Exports, made once and cached: the raw file that an exporter writes, for a pruner to normalise itself."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from pathlib import Path

import onnx

from benchmarks.coverage.networks import Network
from lwcore.sources.export import OPSET


def export_file(folder: Path, name: str, exporter: str) -> Path:
    """Where the export of a network lies."""
    return folder / f"{name.replace(':', '-')}.{exporter}.onnx"


def export(name: str, exporter: str, path: Path) -> None:
    """Export a network by one of torch's two exporters."""
    import torch

    network = Network(name)
    module, sample = network.build(), torch.zeros(network.shape)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns at every shape that Python code looks at
        logging.disable(logging.WARNING)
        file = Path(folder) / "model.onnx"
        with contextlib.redirect_stdout(io.StringIO()):
            (_torchscript if exporter == "torchscript" else _dynamo)(module, sample, file)
        proto = onnx.load(file)  # reads tensors stored beside the file, if any
    for node in proto.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(proto.SerializeToString())
    part.replace(path)


def _torchscript(module: object, sample: object, file: Path) -> None:
    import torch

    torch.onnx.export(
        module,
        (sample,),
        file,
        dynamo=False,
        opset_version=OPSET,
        input_names=["input"],
        output_names=["logits"],
        dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
        training=torch.onnx.TrainingMode.PRESERVE,  # keeps batch norms
        do_constant_folding=False,
    )


def _dynamo(module: object, sample: object, file: Path) -> None:
    import torch

    torch.onnx.export(module, (sample,), file, dynamo=True, external_data=False, verbose=False)
