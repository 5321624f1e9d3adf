"""The controls of Slim as plain data: slider positions → `Recipe`, and a recipe back to slider positions."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lwcore.errors import RecipeError
from lwcore.recipe import Budget, Channels, Connections, Precision, Recipe, Step

PRECISIONS = ("fp32", "fp16", "int8-dynamic", "int8-static")
GOALS = ("same", "macs", "params")
COMPENSATIONS = ("sequential", "one-shot", "none")
ALIGNMENTS = ("blocks", "single")
RANGES = ("minmax", "entropy", "percentile")
SCOPES = ("global", "layer")
_LINK_BYTES = 65_536  # a recipe of a thousand groups is smaller; more is no recipe


@dataclass(frozen=True, kw_only=True)
class Form:
    """One field a control; shares in whole per cent, because that is what sliders move in."""

    amount: int = 0
    goal: str = "same"
    precision: str = "fp32"
    criterion: str = "gram"
    compensate: str = "sequential"
    align: str = "blocks"
    connections: int = 0
    scope: str = "global"
    ranges: str = "minmax"
    calibration: int = 200
    seed: int = 0

    def recipe(self, overrides: Mapping[str, float] | None = None) -> Recipe:
        """The recipe that these positions mean; raises `RecipeError` for positions that no control has."""
        steps: list[dict[str, Any]] = []
        if self.amount or overrides:
            steps.append(self._channels(dict(overrides or {})))
        if self.connections:
            steps.append({"kind": "connections", "amount": self.connections / 100, "scope": self.scope})
        if self.precision != "fp32":
            steps.append(
                {"kind": "precision", "format": self.precision, "ranges": self.ranges, "samples": self.calibration}
            )
        return Recipe.from_json({"seed": self.seed, "steps": steps})

    def _channels(self, overrides: dict[str, float]) -> dict[str, Any]:
        by_budget = self.goal != "same" and self.amount > 0
        return {
            "kind": "channels",
            "amount": 0.0 if by_budget else self.amount / 100,
            "groups": overrides,
            "budget": {"of": self.goal, "keep": 1 - self.amount / 100} if by_budget else None,
            "criterion": self.criterion,
            "compensate": self.compensate,
            "align": 1 if self.align == "single" else Channels().align,
        }


def from_recipe(recipe: Recipe) -> tuple[Form, dict[str, float]]:
    """Slider positions and group overrides of a recipe.

    Raises:
        RecipeError: the sliders cannot show it (two steps of a kind, or another order).
    """
    values: dict[str, Any] = {"seed": recipe.seed}
    overrides: dict[str, float] = {}
    for step in recipe.steps:
        values |= _positions(step)
        if isinstance(step, Channels):
            overrides = dict(step.groups)
    form = Form(**values)
    if form.recipe(overrides) != recipe:
        raise RecipeError(
            "Expected a recipe with at most one step each of channels, connections and precision, in "
            "this order and in whole per cent; run this one with python -m lwcore slim --recipe."
        )
    return form, overrides


def _positions(step: Step) -> dict[str, Any]:
    if isinstance(step, Channels):
        budget = step.budget or Budget(keep=1 - step.amount)
        return {
            "amount": round(100 * (1 - budget.keep)),
            "goal": step.budget.of if step.budget else "same",
            "criterion": step.criterion,
            "compensate": step.compensate,
            "align": "single" if step.align == 1 else "blocks",
        }
    if isinstance(step, Connections):
        return {"connections": round(100 * step.amount), "scope": step.scope}
    assert isinstance(step, Precision)
    return {"precision": step.format, "ranges": step.ranges, "calibration": step.samples}


NAMES = tuple(f.name for f in fields(Form))


def to_link(recipe: Recipe) -> str:
    """A recipe as a short text for a URL: base64url(zlib(JSON))."""
    return base64.urlsafe_b64encode(zlib.compress(recipe.dumps().encode(), 9)).decode().rstrip("=")


def from_link(text: str) -> Recipe:
    """Read what `to_link` wrote; raises `RecipeError` when the link is damaged."""
    try:
        packed = base64.urlsafe_b64decode(text[:_LINK_BYTES] + "=" * (-len(text[:_LINK_BYTES]) % 4))
        unpacker = zlib.decompressobj()
        body = unpacker.decompress(packed, _LINK_BYTES)
        complete = unpacker.eof
    except (binascii.Error, ValueError, zlib.error) as error:
        raise RecipeError(f"The recipe in this link is damaged ({error}). Ask for the link again.") from None
    if not complete:
        raise RecipeError("The recipe in this link is cut off. Ask for the link again.")
    return Recipe.loads(body)
