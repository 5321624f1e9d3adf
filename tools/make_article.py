"""Write the article's sample network as a structure with random weights (``assets/models/article-cnn.onnx``).

29 MB of noise are not worth shipping, so the large initializers keep their dimensions and lose their data;
whoever loads the file fills them as :func:`materialise` does (seed in the card, He-normal, in the order of the
file).
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import onnx
import torch
from networks import ArticleCNN, parameter_count
from onnx import numpy_helper
from onnx_export import to_onnx, write

TARGET = Path(__file__).resolve().parents[1] / "assets" / "models" / "article-cnn"
KERNEL = 2  # tensors of at least so many dimensions lose their data


def hollow(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose kernels have dims but no data."""
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    for tensor in copy.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) >= KERNEL:
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
    return copy


def materialise(proto: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """A copy whose data-less float initializers hold seeded He-normal values."""
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    rng = np.random.default_rng(seed)
    for tensor in copy.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and not tensor.raw_data and not tensor.float_data:
            dims = tuple(tensor.dims)
            values = rng.standard_normal(dims) * math.sqrt(2 / math.prod(dims[1:]))
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    return copy


def card(parameters: int, seed: int, classes: int) -> dict[str, object]:
    """The model card."""
    return {
        "name": "Article's sample network · random weights",
        "family": "Plain CNN",
        "task": "image-classification",
        "description": "Six 3×3 convolutions with batch norm and ReLU, 3→32→64→128→256→512→1024 channels. "
        "Structure only, for the study of parameters and FLOPs: its weights are random, its answers mean nothing.",
        "input": {
            "size": [224, 224],
            "layout": "NCHW",
            "color": "rgb",
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "resize": 256,
            "interpolation": "bilinear",
        },
        "classes": "imagenet" if classes == 1000 else [f"class {i}" for i in range(classes)],
        "data": None,
        "licence": "MIT",
        "source": "structure described in the article; no trained weights exist",
        "accuracy": None,
        "parameters": parameters,
        "script": f"tools/make_article.py --seed {seed}",
        "random_weights": True,
        "weights": {"random_seed": seed},
        "sample_sets": ["photos"],
        "calibration": None,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--classes", type=int, default=1000)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    model = ArticleCNN(args.classes)
    proto = hollow(to_onnx(model, (3, 224, 224), optimize=False))
    write(TARGET.with_suffix(".onnx"), proto.SerializeToString(deterministic=True))
    count = parameter_count(model)
    text = json.dumps(card(count, args.seed, args.classes), indent=2, ensure_ascii=False)
    write(TARGET.with_suffix(".json"), f"{text}\n".encode())
    onnx.checker.check_model(materialise(proto, args.seed), full_check=True)
    print(f"article-cnn: {count:,} parameters, file {TARGET.with_suffix('.onnx').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
