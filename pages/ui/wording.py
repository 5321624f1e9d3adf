"""A recipe in a few words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lwcore.recipe import (
    Blocks,
    Budget,
    Channels,
    Connections,
    Distill,
    Heads,
    LowRank,
    Precision,
    Recipe,
    Step,
    Vocabulary,
)
from pages.ui.text import t


def title(recipe: Recipe) -> str:
    """All steps, in their order."""
    return ", ".join(word for step in recipe.steps for word in words(step)) or t("recipe.original")


def words(step: Step) -> list[str]:
    """One step: what it does, and how much; nothing for a step that does nothing."""
    return _WORDS[type(step)](step)


def _channels(step: Channels) -> list[str]:
    by_hand = [t("recipe.groups", n=len(step.groups))] if step.groups else []
    if step.budget:
        return [_budget(step.budget), *by_hand]
    return [t("recipe.channels", amount=_percent(step.amount)), *by_hand] if step.amount else by_hand


def _blocks(step: Blocks) -> list[str]:
    share = [t("recipe.blocks", amount=_percent(step.amount))] if step.amount else []
    return [*share, *([t("recipe.blocks.names", n=len(step.names))] if step.names else [])]


def _heads(step: Heads) -> list[str]:
    return [t("recipe.heads", amount=_percent(step.amount))] if step.amount else []


def _vocabulary(step: Vocabulary) -> list[str]:
    return [t("recipe.vocabulary", n=step.least)]


def _low_rank(step: LowRank) -> list[str]:
    if step.budget:
        return [t("recipe.low-rank.budget", budget=_budget(step.budget))]
    return [t("recipe.low-rank", amount=_percent(step.energy))]


def _connections(step: Connections) -> list[str]:
    return [t("recipe.connections", amount=_percent(step.amount))] if step.amount else []


def _distill(step: Distill) -> list[str]:
    name = "recipe.finetune" if step.labels >= 1 else "recipe.distill"
    much = t("recipe.minutes", n=f"{step.minutes:g}") if step.steps is None else t("recipe.steps", n=f"{step.steps:,}")
    return [t(name, much=much)]


def _precision(step: Precision) -> list[str]:
    name = t("recipe.palette", bits=step.bits) if step.format == "palette" else t(f"precision.{step.format}")
    kept = [t("recipe.keep", n=len(step.keep))] if step.keep else []
    return [name, *kept, *([t("recipe.drop", points=f"{step.drop:g}")] if step.drop is not None else [])]


def _budget(budget: Budget) -> str:
    return t(f"recipe.budget.{budget.of}", amount=_percent(1 - budget.keep))


def _percent(share: float) -> str:
    return f"{round(100 * share, 1):g}"


_WORDS: dict[type[Step], Callable[[Any], list[str]]] = {
    Channels: _channels,
    Blocks: _blocks,
    Heads: _heads,
    Vocabulary: _vocabulary,
    LowRank: _low_rank,
    Connections: _connections,
    Distill: _distill,
    Precision: _precision,
}
