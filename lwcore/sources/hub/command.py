"""The command `hub`: the models of torchvision, timm and Hugging Face as a list."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

from lwcore import units
from lwcore.sources.hub import Offer, search


def add_options(command: argparse.ArgumentParser) -> None:
    """What `hub` can be told."""
    command.add_argument("words", nargs="*", metavar="WORD", help="parts of the name, such as `timm resnet18`")


def answer(options: argparse.Namespace) -> tuple[Mapping[str, Any], str]:
    """The models whose names have all the words: as data, and as text."""
    found = search(" ".join(options.words))
    return {"models": [dataclasses.asdict(offer) for offer in found]}, "\n".join(map(_line, found))


def _line(offer: Offer) -> str:
    top1 = "" if offer.top1 is None else f"{units.percent(offer.top1)} top-1"
    params = "" if offer.params is None else units.count(offer.params)
    size = "" if offer.size_bytes is None else units.size(offer.size_bytes)
    return f"{offer.ref:60} {params:>8}  {size:>9}  {top1}".rstrip()
