"""The list of models that hubs offer, made ahead by `tools/make_hub.py`: size and published accuracy, no network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from lwcore.settings import ASSETS

COLUMNS = ("ref", "task", "params", "macs", "size_bytes", "top1", "data", "input", "licence")


@dataclass(frozen=True, slots=True)
class Offer:
    """One model of a hub.

    Attributes:
        ref: what `lwcore.load` takes, `FAMILY:NAME`.
        task: the kind of data.
        params: number of parameters (of text models as published, rounded); None where nobody has counted them.
        macs: multiply–accumulates of one sample, where published.
        size_bytes: of the download, about.
        top1: accuracy as published by the hub, where it publishes one.
        data: what it was measured on, the number of its classes, or the paper.
        input: edge of the picture in pixels.
        licence: as the hub states it.
    """

    ref: str
    task: str
    params: int | None
    macs: int | None
    size_bytes: int | None
    top1: float | None
    data: str
    input: int | None
    licence: str

    @property
    def family(self) -> str:
        """The hub: torchvision, timm or huggingface."""
        return self.ref.partition(":")[0]

    @property
    def name(self) -> str:
        """The name at the hub."""
        return self.ref.partition(":")[2]


@lru_cache(maxsize=1)
def offers() -> tuple[Offer, ...]:
    """All models of the list, in its order."""
    table = json.loads((ASSETS / "hub.json").read_text(encoding="utf-8"))
    return tuple(Offer(**dict(zip(table["columns"], row, strict=True))) for row in table["rows"])


def search(words: str, families: Sequence[str] = ()) -> tuple[Offer, ...]:
    """The models whose reference has all the words in it, in any order and case; all of them without words.

    Args:
        words: parts of names, apart by spaces.
        families: only these hubs, all when empty.
    """
    parts = words.lower().split()
    return tuple(
        offer
        for offer in offers()
        if (not families or offer.family in families) and all(part in offer.ref.lower() for part in parts)
    )


@lru_cache(maxsize=1)
def structures() -> tuple[str, ...]:
    """The architectures that a file of weights can be fitted to: the list without the names of weights."""
    return tuple(dict.fromkeys(o.ref.partition(".")[0] for o in offers() if o.family != "huggingface"))
