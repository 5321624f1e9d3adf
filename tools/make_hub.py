"""Make `assets/hub.json`: the models of torchvision, timm and Hugging Face that can be loaded, with what is published.

    OMP_NUM_THREADS=1 python tools/make_hub.py

No network is needed: torchvision's numbers come from its weights' own meta data; timm's parameters are counted on
networks without memory (torch's meta device), and its accuracies are known where its file is torchvision's own. The
text models are those whose parameter counts their papers or model cards publish. The same versions give the same file.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lwcore.settings import ASSETS
from lwcore.sources.export import LARGEST
from lwcore.sources.hub import COLUMNS
from lwcore.sources.text.structures import STRUCTURES

# Repository at the hub → parameters as published, in millions (rounded as there), and the paper.
TEXTS: dict[str, tuple[float, str]] = {
    "google-bert/bert-base-uncased": (110, "arXiv:1810.04805"),
    "google-bert/bert-base-multilingual-cased": (179, "arXiv:1810.04805"),
    "google-bert/bert-base-chinese": (110, "arXiv:1810.04805"),
    "distilbert/distilbert-base-uncased": (66, "arXiv:1910.01108"),
    "distilbert/distilbert-base-uncased-finetuned-sst-2-english": (66, "arXiv:1910.01108"),
    "distilbert/distilbert-base-multilingual-cased": (134, "arXiv:1910.01108"),
    "huawei-noah/TinyBERT_General_4L_312D": (14.5, "arXiv:1909.10351"),
    "huawei-noah/TinyBERT_General_6L_768D": (67, "arXiv:1909.10351"),
    "google/mobilebert-uncased": (25.3, "arXiv:2004.02984"),
    "google/electra-small-discriminator": (14, "arXiv:2003.10555"),
    "microsoft/MiniLM-L12-H384-uncased": (33, "arXiv:2002.10957"),
    "sentence-transformers/all-MiniLM-L6-v2": (22.7, "arXiv:2002.10957"),
}


def torchvision_rows() -> Iterator[dict[str, Any]]:
    """torchvision's classifiers, with the file sizes and accuracies of its default weights."""
    from torchvision import models

    from lwcore.sources import zoo

    for name in zoo.names():
        weights = models.get_model_weights(name).DEFAULT
        data, scores = next(iter(weights.meta["_metrics"].items()))
        video = name in models.list_models(module=models.video)
        yield {
            "ref": f"torchvision:{name}",
            "task": "video-classification" if video else "image-classification",
            "params": weights.meta["num_params"],
            "macs": round(weights.meta["_ops"] * 1e9),
            "size_bytes": round(weights.meta["_file_size"] * 2**20),
            "top1": round(scores["acc@1"] / 100, 5),
            "data": data,
            "input": weights.transforms().crop_size[0],
            "licence": "BSD-3-Clause",
        }


def timm_rows() -> Iterator[dict[str, Any]]:
    """timm's classifiers whose weights lie at the hub as safetensors."""
    import timm

    published = _torchvision_accuracies()
    for name in timm.list_pretrained():
        cfg = timm.get_pretrained_cfg(name)
        if not cfg.hf_hub_id or cfg.custom_load or cfg.input_size[0] != 3 or cfg.num_classes < 1000:
            continue
        params = _timm_params(name.partition(".")[0], cfg.num_classes)
        if params is None or params > LARGEST:
            continue
        yield {
            "ref": f"timm:{name}",
            "task": "image-classification",
            "params": params,
            "macs": None,
            "size_bytes": 4 * params,
            "top1": published.get(_file(cfg.url)),
            "data": "ImageNet-1K" if cfg.num_classes == 1000 else f"{cfg.num_classes:,}",
            "input": cfg.input_size[1],
            "licence": cfg.license or "",
        }


@cache
def _timm_params(architecture: str, classes: int) -> int | None:
    import timm
    import torch

    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = timm.create_model(architecture, pretrained=False, num_classes=classes)
    except Exception as error:  # a few cannot be built without memory
        print(f"left out: {architecture} ({type(error).__name__}: {str(error)[:100]})", file=sys.stderr)
        return None
    return sum(parameter.numel() for parameter in network.parameters())


def _torchvision_accuracies() -> dict[str, float]:
    """File name → top-1 of every torchvision weight; timm's `.tv_in1k` models are these files."""
    from torchvision import models

    found = {}
    for name in models.list_models(module=models):
        for weights in models.get_model_weights(name):
            scores = weights.meta["_metrics"].get("ImageNet-1K", {})
            if "acc@1" in scores:
                found[_file(weights.url)] = round(scores["acc@1"] / 100, 5)
    return found


def _file(url: str) -> str:
    return Path(urlsplit(url or "").path).name or "none"


def text_rows() -> Iterator[dict[str, Any]]:
    """The curated list of text models."""
    for repository, (millions, paper) in TEXTS.items():
        yield {
            "ref": f"huggingface:{repository}",
            "task": "text-classification",
            "params": round(millions * 1e6),
            "macs": None,
            "size_bytes": round(4e6 * millions),
            "top1": None,
            "data": paper,
            "input": None,
            "licence": "",
        }


def structure_rows() -> Iterator[dict[str, Any]]:
    """Published text encoders whose structure can be had without weights."""
    for name, structure in STRUCTURES.items():
        yield {
            "ref": f"transformers:{name}",
            "task": "text-embedding",
            "params": structure.params,
            "macs": None,
            "size_bytes": 4 * structure.params,
            "top1": None,
            "data": structure.source,
            "input": None,
            "licence": "Apache-2.0",
        }


def main() -> None:
    """Write the file."""
    logging.disable(logging.WARNING)
    rows = [*torchvision_rows(), *timm_rows(), *text_rows(), *structure_rows()]
    lines = [json.dumps([row[column] for column in COLUMNS], separators=(",", ":")) for row in rows]
    text = '{"columns":' + json.dumps(COLUMNS) + ',"rows":[\n' + ",\n".join(lines) + "\n]}\n"
    (ASSETS / "hub.json").write_text(text, encoding="utf-8")
    print(f"{len(rows)} models, {len(text):,} bytes")


if __name__ == "__main__":
    main()
