"""The choices of a session as texts for its workspace, and back; jobs in flight go along, to be found again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lwcore.errors import LwcoreError
from lwcore.recipe import Recipe
from pages.ui.search import goals
from pages.ui.search.goals import Search
from pages.ui.slim import methods
from pages.ui.slim.methods import Method, Methods

if TYPE_CHECKING:
    from pages.ui.state import Session

_PLAIN = ("model", "seed", "way", "layer", "draft")
_WAYS = ("hand", "find")


def to_parts(s: Session) -> dict[str, str]:
    """Part → text; a part is written only when its own text has changed."""
    found = s.search
    jobs = {name: _ticket(ticket) for name, ticket in s.other.items() if ticket.task}
    search = None if found is None else {**vars(found), "goal": asdict(found.goal), "began": found.began.to_json()}
    parts = {
        "choices": choices(s),
        "jobs": {"measuring": s.measuring and _ticket(s.measuring), "other": jobs},
        "search": search,
    }
    return {name: json.dumps(body, sort_keys=True) for name, body in parts.items()}


def choices(s: Session) -> dict[str, Any]:
    """What a person set; also what an exported workspace carries."""
    return {
        **{name: getattr(s, name) for name in _PLAIN},
        "samples": dict(s.samples),
        "methods": [{"name": m.name, "on": m.on, "step": _step(m)} for m in s.methods],
        "recipe": s.recipe.to_json(),
        "goal": asdict(s.goal),
    }


def _step(method: Method) -> dict[str, Any]:
    found: dict[str, Any] = Recipe(steps=(method.step,)).to_json()["steps"][0]
    return found


def _ticket(ticket: Any) -> dict[str, Any]:
    return {**vars(ticket), "arguments": dict(ticket.arguments), "recipe": ticket.recipe and ticket.recipe.to_json()}


def read_choices(data: Any) -> dict[str, Any]:
    """Fields of a session from what `choices` made; a value that is none of ours is left out, and so at rest."""
    if not isinstance(data, Mapping):
        return {}
    found: dict[str, Any] = {name: data[name] for name in ("model", "layer", "draft") if _is_text(data.get(name))}
    if data.get("way") in _WAYS:
        found["way"] = data["way"]
    if isinstance(data.get("samples"), Mapping):
        found["samples"] = {k: v for k, v in data["samples"].items() if _is_text(v)}
    try:
        recipe = Recipe.from_json(data["recipe"])
        found |= {"methods": _methods(data["methods"]), "recipe": recipe, "seed": recipe.seed}
        found["goal"] = goals.from_json(data["goal"])
    except (KeyError, TypeError, ValueError, AttributeError, LwcoreError):
        return found  # written by another release: what could be read so far counts
    return found


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 500


def _methods(listed: Any) -> Methods:
    steps = Recipe.from_json({"steps": [item["step"] for item in listed]}).steps
    names = [str(item["name"]) for item in listed]
    if len(names) != len(set(names)) or not 0 < len(names) <= 2 * methods.MOST_STEPS:
        raise ValueError("methods")
    return tuple(
        Method(name=name, step=step, on=bool(item["on"])) for name, step, item in zip(names, steps, listed, strict=True)
    )


def read_search(data: Any) -> Search | None:
    """A search from what `to_parts` made of it; None when there was none."""
    if not isinstance(data, Mapping):
        return None
    fields = {**data, "goal": goals.from_json(data["goal"]), "began": Recipe.from_json(data["began"])}
    return Search(**fields)
