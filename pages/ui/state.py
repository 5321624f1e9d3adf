"""What a session knows, in one frozen value; widgets only edit it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import streamlit as st

from lwcore.recipe import Recipe
from lwcore.scenarios import Log
from pages.ui.search.goals import Goal, Search
from pages.ui.slim.methods import AT_REST, Methods
from pages.ui.turn import ask_again, once
from pages.ui.workspaces import keeping, who

_KEY = "slimlab"


@dataclass(frozen=True, kw_only=True)
class OwnSamples:
    """A sample set that this person uploaded, made for one model's input."""

    ref: str
    name: str
    n: int
    labelled: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """A job in flight: what it was asked, so that a stale answer is not taken for a new one, and it can be asked anew.

    Attributes:
        task, arguments: of the workers; a server that was started anew knows no jobs, but can do the same work again.
    """

    job: str
    task: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    model: str
    samples: str = ""
    recipe: Recipe | None = None
    question: str = ""


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What a share link promised: the figures of a recipe, measured on these samples."""

    model: str
    samples: str
    recipe: Recipe
    figures: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Session:
    """The truth of one browser tab.

    Attributes:
        owner: what this tab's workspace is called in the database and by the workers.
        model: built-in id or fingerprint; empty before anything is chosen.
        uploads: fingerprint → name of the models uploaded here.
        samples: model → chosen sample set (built-in id or fingerprint); empty text: none.
        own: model → sample sets uploaded for it.
        methods: the list of methods on Slim, for the present model.
        seed: of everything random in the recipe.
        loads: how often a recipe was put into the controls; a new number resets the table of groups.
        recipe: what the methods on Slim say.
        log: everything measured.
        measuring, other: jobs in flight; `other` by purpose.
        way: how Slim is used: `hand` for the methods, `find` for a goal.
        goal: what is typed under "Find it for me".
        search: the search that was begun last, until its panel is put away.
        failed: recipe and error of the last measurement, shown until the recipe changes.
        draft: fingerprint of an uploaded model that is still to be described.
        weights: what was read of an upload without a network, and its name, until its architecture is chosen.
        measured: what exact plans need, by model and calibration set, then by name: "sensitivity", "spectra", "order".
        harm: what int8 does to each operator, by model, samples and recipe.
        sizes: what other input sizes cost and lose, by model and samples.
        profiles: layer tables by model reference, as the worker returned them.
        layer: the layer picked on Layers, by name.
        shared: what the link that opened this page promised.
        drops: how many files were taken in; a new number empties the upload boxes.
    """

    owner: str
    model: str = ""
    uploads: Mapping[str, str] = field(default_factory=dict)
    samples: Mapping[str, str] = field(default_factory=dict)
    own: Mapping[str, tuple[OwnSamples, ...]] = field(default_factory=dict)
    methods: Methods = AT_REST
    seed: int = 0
    loads: int = 0
    recipe: Recipe = field(default_factory=Recipe)
    log: Log = field(default_factory=Log)
    measuring: Ticket | None = None
    other: Mapping[str, Ticket] = field(default_factory=dict)
    way: str = "hand"
    goal: Goal = field(default_factory=Goal)
    search: Search | None = None
    failed: tuple[Recipe, str] | None = None
    draft: str = ""
    weights: tuple[str, str] | None = None
    measured: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    harm: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    layer: str = ""
    shared: Shared | None = None
    drops: int = 0


@once
def session() -> Session:
    """This session's state."""
    if _KEY not in st.session_state:
        st.session_state[_KEY] = Session(owner=who.owner())
    return st.session_state[_KEY]  # type: ignore[no-any-return]


def update(**changes: Any) -> Session:
    """Put changed fields in place; an attempt is on the disk before anybody sees it."""
    before = session()
    if all(getattr(before, name) == value for name, value in changes.items()):
        return before
    if "log" in changes:
        changes["log"] = keeping.record(before.log, changes["log"])
    return become(replace(before, **changes))


def become(whole: Session) -> Session:
    """Put a whole session in place."""
    st.session_state[_KEY] = whole
    ask_again(session)
    return whole


def put(mapping: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of a mapping with one entry set, or taken out when the value is None."""
    rest = {k: v for k, v in mapping.items() if k != key}
    return rest if value is None else {**rest, key: value}
