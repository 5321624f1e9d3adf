"""Static int8: SlimLab beside onnxruntime's defaults and NNCF, on the same calibration pictures, measured the same way.

    python benchmarks/int8.py [--models NAME …] [--tools slimlab onnxruntime nncf] [--calibration 200] [--test 2000]

The five Fashion-MNIST models are measured by top-1 on test images, the two ImageNet models by agreement with float32 on
the shipped photos (there are few; their error of the outputs says more). Latency is one run of one picture against the
float32 file, in turns (10th percentiles, which other work on the machine disturbs least).
Ends with the points lost by each tool.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import onnx
from onnx import numpy_helper

import lwcore
from lwcore import runtime
from lwcore.answers import feed, logits
from lwcore.model import Model
from lwcore.recipe import Precision
from lwcore.samples import SampleSet
from lwcore.slimming.precision import reduce_precision
from lwcore.slimming.precision.static import output_error, split
from lwcore.timing import take_turns

MODELS = (
    *(f"fashion-{name}" for name in ("mobilenetv2", "shufflenetv2", "squeezenet", "efficientnet", "resnet20")),
    "imagenet-efficientnet-lite0",
    "imagenet-squeezenet1_1",
)
SECONDS = 3.0  # of timing for each pair of files


@dataclass(frozen=True)
class Row:
    """One tool on one model. Shares 0–1; `weights` and `file` are bytes against float32, `latency` a ratio."""

    model: str
    tool: str
    labelled: bool
    float32: float
    int8: float
    error: float
    weights: float
    file: float
    latency: float


def slimlab(model: Model, samples: SampleSet) -> bytes:
    """What `ranges: auto` gives."""
    step = Precision(format="int8-static", ranges="auto", samples=len(samples))
    return reduce_precision(model, step, samples)[0].data


def ort(model: Model, samples: SampleSet) -> bytes:
    """`quantize_static` as it comes, behind its own preparation of the graph, which its documentation asks for."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = _feeds(model, samples)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    with tempfile.TemporaryDirectory() as folder:
        before, ready, after = (Path(folder) / name for name in ("before.onnx", "ready.onnx", "after.onnx"))
        before.write_bytes(model.data)
        quant_pre_process(before, ready)
        quantize_static(ready, after, Reader())
        return after.read_bytes()


def nncf(model: Model, samples: SampleSet) -> bytes:
    """`nncf.quantize` as it comes."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    feeds = list(_feeds(model, samples))
    made = nncf.quantize(onnx.load_model_from_string(model.data), nncf.Dataset(feeds), subset_size=len(feeds))
    return bytes(made.SerializeToString())


TOOLS: dict[str, Callable[[Model, SampleSet], bytes]] = {"slimlab": slimlab, "onnxruntime": ort, "nncf": nncf}


def _feeds(model: Model, samples: SampleSet) -> Iterator[dict[str, np.ndarray]]:
    for index in range(len(samples)):
        yield feed(model, samples, index, index + 1)


def measured(name: str, tool: str, calibration: int, count: int) -> Row:
    """Quantize and measure."""
    model = lwcore.load(name)
    known = lwcore.load_samples(model.card.calibration or "photos", model)
    used, _ = split(known, Precision(format="int8-static", samples=calibration), 0)
    test = lwcore.load_samples("fashion-test" if name.startswith("fashion") else "photos", model, limit=count)
    data = TOOLS[tool](model, used)
    runners = [runtime.session(part, threads=1) for part in (model.data, data)]
    before, after = (logits(runner, model, test) for runner in runners)
    labels = test.labels if name.startswith("fashion") else before.argmax(axis=1)
    picture = feed(model, test, 0, 1)
    turns = take_turns([lambda r=runner: runtime.run(r, picture) for runner in runners], SECONDS)  # type: ignore[misc]
    return Row(
        model=name,
        tool=tool,
        labelled=name.startswith("fashion"),
        float32=float((before.argmax(axis=1) == labels).mean()),
        int8=float((after.argmax(axis=1) == labels).mean()),
        error=output_error(after, before),
        weights=weight_share(onnx.load_model_from_string(data)),
        file=len(data) / model.size_bytes,
        latency=turns[1].low_ms / turns[0].low_ms,
    )


def weight_share(proto: onnx.ModelProto) -> float:
    """Bytes of the weights of convolutions and linear layers, scales and zero points included, against float32."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    made_by = {output: node for node in proto.graph.node for output in node.output}
    stored, values, seen = 0, 0, set()
    for node in proto.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[1] in seen:
            continue
        seen.add(node.input[1])
        source = made_by.get(node.input[1])
        names = list(source.input) if source is not None else [node.input[1]]
        parts = [arrays[name] for name in names if name in arrays]
        if not parts:
            continue
        stored += sum(part.nbytes for part in parts)
        values += parts[0].size
    return stored / (4 * values)


def _table(rows: list[Row]) -> None:
    print("| model | tool | float32 | int8 | points lost | error of outputs | weights | file | latency |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        lost = 100 * (row.float32 - row.int8)
        print(
            f"| {row.model} | {row.tool} | {100 * row.float32:.2f} | {100 * row.int8:.2f} | {lost:+.2f} | "
            f"{row.error:.4f} | {row.weights:.4f} | {row.file:.3f} | {row.latency:.2f} |"
        )
    print(
        "\nTop-1 in per cent (fashion), agreement with float32 on the shipped photos (imagenet); bytes against float32."
    )
    for tool in TOOLS:
        mine = [row for row in rows if row.tool == tool and row.labelled]
        if mine:
            lost = [100 * (row.float32 - row.int8) for row in mine]
            error = fmean(row.error for row in rows if row.tool == tool)
            print(f"{tool:12} points lost: mean {fmean(lost):.2f}, worst {max(lost):.2f}; error of outputs {error:.4f}")
    errors = {tool: [row.error for row in rows if row.tool == tool] for tool in TOOLS}
    peers = [fmean(errors[tool]) for tool in ("onnxruntime", "nncf") if len(errors[tool]) == len(errors["slimlab"])]
    if peers:
        print(f"error of outputs, the better peer ÷ SlimLab: {min(peers) / fmean(errors['slimlab']):.2f}")


def main() -> None:
    """Measure, and print each row as it is known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--tools", nargs="+", default=list(TOOLS), choices=list(TOOLS))
    parser.add_argument("--calibration", type=int, default=200)
    parser.add_argument("--test", type=int, default=2000)
    chosen = parser.parse_args()
    rows = []
    for name in chosen.models:
        for tool in chosen.tools:
            rows.append(measured(name, tool, chosen.calibration, chosen.test))
            print(json.dumps(asdict(rows[-1])), flush=True)
    _table(rows)


if __name__ == "__main__":
    main()
