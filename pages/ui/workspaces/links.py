"""A recipe, or the figures that came of one, as a short text for a URL, and back."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from typing import Any

from lwcore.errors import RecipeError
from lwcore.recipe import Recipe

_LINK_BYTES = 65_536  # a recipe of a thousand groups is smaller; more is no recipe


def to_link(recipe: Recipe) -> str:
    """A recipe as base64url(zlib(JSON))."""
    return _packed(recipe.dumps())


def from_link(text: str) -> Recipe:
    """Read what `to_link` wrote; raises `RecipeError` when the link is damaged."""
    return Recipe.loads(_unpacked(text))


def pack(value: Any) -> str:
    """Any JSON in the same form."""
    return _packed(json.dumps(value, separators=(",", ":"), sort_keys=True))


def unpack(text: str) -> Any:
    """Read what `pack` wrote; raises `RecipeError` when the link is damaged."""
    try:
        return json.loads(_unpacked(text))
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"The figures in this link are damaged ({error}). Ask for the link again.") from None


def _packed(text: str) -> str:
    return base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")


def _unpacked(text: str) -> bytes:
    try:
        packed = base64.urlsafe_b64decode(text[:_LINK_BYTES] + "=" * (-len(text[:_LINK_BYTES]) % 4))
        unpacker = zlib.decompressobj()
        body = unpacker.decompress(packed, _LINK_BYTES)
        complete = unpacker.eof
    except (binascii.Error, ValueError, zlib.error) as error:
        raise RecipeError(f"The recipe in this link is damaged ({error}). Ask for the link again.") from None
    if not complete:
        raise RecipeError("The recipe in this link is cut off. Ask for the link again.")
    return body
