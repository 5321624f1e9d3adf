"""Variants of static int8: the integer types of activations and weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Integer types of static int8: activations, weights, and whether weights use 7 bits only."""

    activations: str
    weights: str
    reduced: bool = False


VARIANTS: Mapping[str, Variant] = {
    "u8s8": Variant(activations="uint8", weights="int8"),
    "u8s8-reduced": Variant(activations="uint8", weights="int8", reduced=True),
    "u8u8": Variant(activations="uint8", weights="uint8"),
    "s8s8": Variant(activations="int8", weights="int8"),
}
