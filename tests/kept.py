"""What the tests of workspaces share: attempts by number, and what must hold of a home whose server was killed."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

from lwcore.analysis.cost import Cost
from lwcore.evaluation.result import Changed, ClassRow, Confused, Evaluation
from lwcore.model import Card, Model
from lwcore.recipe import Channels, Recipe
from lwcore.scenarios import Attempt
from lwcore.settings import SETTINGS, Settings
from lwcore.store import Store
from lwcore.workspaces import Workspaces

COST = Cost(params=1000, macs=2000, weight_bytes=4000, size_bytes=5000)


def settings(home: Path | str, **changes: object) -> Settings:
    return replace(SETTINGS, home=str(home), **changes)  # type: ignore[arg-type]


def attempt(seed: int, model: str = "m", samples: str = "s") -> Attempt:
    """One with a recipe of its own, and something in every field."""
    evaluation = Evaluation(
        n=10,
        top1=0.1 + seed / 7,
        per_class=(ClassRow(name="ä", n=3, before=None, after=0.5),),
        confusion=((1, 2), (3, 4)),
        confused=(Confused(label="a", answer="b", count=2),),
        changed=(
            Changed(index=1, name="x", label=None, before="a", after="b", before_confidence=0.4, after_confidence=0.6),
        ),
        notes=("A note.",),
    )
    return Attempt(
        model=model,
        samples=samples,
        recipe=Recipe(steps=(Channels(amount=0.25),), seed=seed),
        slimmed=f"{seed:064x}",
        before=COST,
        after=COST,
        evaluation=evaluation,
        seconds=0.5,
        notes=("Another.",),
        causes=({"code": "c", "words": "w", "values": {"v": 1.5}},),
    )


def model(name: str, size: int = 2000) -> Model:
    return Model(data=name.encode() * size, card=Card(name=name))


def check(home: Path | str, workspace: str, acknowledged: list[list[str]]) -> int:
    """Whatever was acknowledged is there, and whatever is there is whole; returns the number of attempts."""
    database = Path(home) / "workspaces.db"
    with sqlite3.connect(database) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    raw.close()
    store = Store(home)
    for path in store.home.glob("*/*/*"):
        if path.parent.parent.name != "pins" and not path.name.startswith(".part-"):
            assert store.raw(path.parent.parent.name, path.name) is not None, f"{path} is damaged"
    kept = Workspaces(store, settings(home))
    try:
        found = kept.attempts(workspace)
        assert [a.number for a in found] == list(range(len(found)))
        for a in found:
            assert a == replace(attempt(a.recipe.seed), number=a.number)
        owned = {file.key for file in kept.owned(workspace)}
        assert all(store.model(key) for key in owned)
        assert owned <= store._pinned()
        said = {kind: {value for k, value in acknowledged if k == kind} for kind, _ in acknowledged}
        assert {int(seed) for seed in said.get("attempt", ())} <= {a.recipe.seed for a in found}
        assert said.get("own", set()) <= owned
        assert max(map(int, said.get("state", {"0"}))) <= int(kept.state(workspace).get("choices", "0"))
        return len(found)
    finally:
        kept.close()
