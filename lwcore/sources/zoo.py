"""torchvision's classification models: built or downloaded once, exported to ONNX once, then read from the cache.

The export keeps batch norm as it is, so that parameters equal torchvision's published `num_params`. The TorchScript
exporter is used on purpose: for these models it takes a tenth of the time of the newer one (ResNet-18 2 s instead of
20 s, Swin-T 34 s instead of 106 s on two cores) and names layers after their modules.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import json
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from lwcore.errors import ModelError
from lwcore.model import Card, InputSpec, Model
from lwcore.settings import SETTINGS
from lwcore.sources.normalise import normalise

if TYPE_CHECKING:
    from torch import nn

FORMAT = 1  # raise it when the export changes: files in the cache are made anew
OPSET = 17  # the newest that the TorchScript exporter writes for all of them
LARGEST = 480_000_000  # parameters; beyond it a float32 file does not fit into the 2 GB of an ONNX file
SEED = 0


def load_torchvision(name: str, pretrained: bool) -> Model:
    """Load a torchvision classification model.

    Args:
        name: torchvision's name, such as "resnet18".
        pretrained: with torchvision's default weights (downloaded through torchvision, kept in torch's cache), or with
            random ones from a fixed seed.

    Raises:
        ModelError: no such model, no network for its weights, or a model too large or of another kind.
    """
    weights = _weights(name)
    path = _cache_file(name, weights, pretrained)
    if not path.is_file():
        _write(path, _export(name, weights, pretrained))
    return Model(data=path.read_bytes(), card=_card(name, weights, pretrained))


def names() -> list[str]:
    """The classification models that can be loaded."""
    from torchvision import models

    return [
        n
        for n in models.list_models(module=models)
        if models.get_model_weights(n).DEFAULT.meta["num_params"] <= LARGEST
    ]


def _weights(name: str) -> Any:
    """torchvision's default weights for a name, which also tell size, classes and preprocessing."""
    from torchvision import models

    if name not in models.list_models(module=models):
        if name in models.list_models():
            raise ModelError(
                f"Expected a torchvision model that classifies pictures, found {name!r}, which is for "
                "video, detection or segmentation; these cannot be loaded yet."
            )
        near = difflib.get_close_matches(name, models.list_models(module=models), 3) or ["resnet18", "mobilenet_v2"]
        raise ModelError(f"Expected the name of a torchvision model, found {name!r}. Did you mean {' or '.join(near)}?")
    weights = models.get_model_weights(name).DEFAULT
    if weights.meta["num_params"] > LARGEST:
        raise ModelError(
            f"Expected a model of at most {LARGEST:,} parameters, found {name} with "
            f"{weights.meta['num_params']:,}: it does not fit into one ONNX file of 2 GB."
        )
    return weights


def _cache_file(name: str, weights: Any, pretrained: bool) -> Path:
    import torch
    import torchvision

    made_with = json.dumps([FORMAT, OPSET, SEED, torch.__version__, torchvision.__version__, onnx.__version__])
    kind = weights.name.lower() if pretrained else "none"
    return Path(SETTINGS.home) / "zoo" / f"{name}-{kind}-{hashlib.sha256(made_with.encode()).hexdigest()[:12]}.onnx"


def _export(name: str, weights: Any, pretrained: bool) -> bytes:
    import torch

    network = _pretrained(name, weights) if pretrained else _random(name)
    size = input_spec(weights).size
    with warnings.catch_warnings(), _quiet("torch.onnx"), tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        warnings.simplefilter("ignore")  # the tracer warns at every shape that Python code looks at
        torch.onnx.export(
            network.eval(),
            (torch.zeros(1, 3, *size),),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
        proto = onnx.load_model_from_string(file.read_bytes())
    _own_initializers(proto.graph)
    for node in proto.graph.node:
        node.doc_string = ""
    data, _ = normalise(proto)
    return data


def _random(name: str) -> nn.Module:
    import torch
    from torchvision import models

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GoogLeNet and Inception announce a change of their initialisation
        torch.manual_seed(SEED)
        network: nn.Module = models.get_model(name, weights=None)
    return network


def _pretrained(name: str, weights: Any) -> nn.Module:
    import torch
    from torchvision import models

    file = Path(weights.url).name
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        with _no_pickle():
            network: nn.Module = models.get_model(name, weights=weights, progress=False)
    except OSError as error:  # urllib's errors are OSErrors
        raise ModelError(
            f"The weights of {name} could not be downloaded ({error}). Connect to the internet, or put "
            f"{file} from {weights.url} into {folder}, or use torchvision:{name}:none for the structure "
            "with random weights."
        ) from None
    except Exception as error:  # whatever a damaged or foreign file makes torch.load raise
        raise ModelError(
            f"Expected the weights of {name} in {folder / file}, found a file that cannot be read safely "
            f"({str(error)[:120]}). Remove it, so that it is downloaded again."
        ) from None
    return network


@contextlib.contextmanager
def _no_pickle() -> Iterator[None]:
    """Let torch.load read tensors only; torch.hub asks for full unpickling, and this variable overrules it."""
    variable = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


@contextlib.contextmanager
def _quiet(logger: str) -> Iterator[None]:
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


def input_spec(weights: Any) -> InputSpec:
    """Size and preprocessing as the weights' own transforms have them."""
    transforms = weights.transforms()
    side = int(transforms.crop_size[0])
    return InputSpec(
        size=(side, side),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        resize=int(transforms.resize_size[0]),
        interpolation="bicubic" if transforms.interpolation.value == "bicubic" else "bilinear",
    )


def _card(name: str, weights: Any, pretrained: bool) -> Card:
    import torchvision

    known = Card(
        name=name,
        family=name,
        input=input_spec(weights),
        classes=tuple(weights.meta["categories"]),
        licence="BSD-3-Clause",
        source=f"torchvision {torchvision.__version__}",
        sample_sets=("photos",),
    )
    if not pretrained:
        return dataclasses.replace(
            known,
            name=f"{name} · random weights",
            random_weights=True,
            description="Structure only: its weights are random, its answers mean nothing.",
        )
    top1 = weights.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100
    return dataclasses.replace(
        known,
        source=f"{known.source}, {weights.name}",
        data="ImageNet-1K",
        description=re.sub(r"\s+", " ", weights.meta.get("_docs", "")).strip(),
        accuracy={"top1": top1, "set": "ImageNet-1K validation", "by": "torchvision"},
    )


def _write(path: Path, data: bytes) -> None:
    """Write so that a reader sees a whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
        part.write(data)
    Path(part.name).replace(path)
