"""Recipes are data: they survive JSON, and a fault is named by its dotted path."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lwcore.errors import RecipeError
from lwcore.recipe import Budget, Channels, Connections, Distill, Precision, Recipe
from lwcore.slimming.pruning.criteria import CRITERIA

shares = st.floats(0, 0.95)
budgets = st.none() | st.builds(Budget, of=st.sampled_from(["macs", "params"]), keep=st.floats(0.01, 1))
steps = (
    st.builds(
        Channels,
        amount=shares,
        groups=st.dictionaries(st.text(max_size=9), shares, max_size=3),
        budget=budgets,
        criterion=st.sampled_from(list(CRITERIA)),
        compensate=st.sampled_from(["none", "one-shot", "sequential"]),
        align=st.integers(1, 64),
    )
    | st.builds(Connections, amount=shares, scope=st.sampled_from(["global", "layer"]))
    | st.builds(Distill, minutes=st.floats(0.1, 600), steps=st.none() | st.integers(1, 99), teacher=st.text(max_size=9))
    | st.builds(
        Precision, format=st.sampled_from(["fp16", "int8-dynamic", "int8-static"]), samples=st.integers(1, 2000)
    )
)


@given(st.builds(Recipe, steps=st.lists(steps, max_size=4).map(tuple), seed=st.integers(0, 2**31 - 1)))
def test_a_recipe_survives_json(recipe: Recipe) -> None:
    assert Recipe.loads(recipe.dumps()) == recipe


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"steps": [{"kind": "channels", "amount": 1.4}]}, r"steps\[0\]\.amount: expected 0–0.95, found 1.4"),
        ({"steps": [{"kind": "channels", "amount": float("nan")}]}, r"steps\[0\]\.amount: expected a number"),
        ({"steps": [{"kind": "shrink"}]}, r"steps\[0\]\.kind: expected one of channels, blocks"),
        ({"steps": [{"kind": "channels", "amonut": 0.3}]}, r"steps\[0\]\.amonut: .*unknown field"),
        ({"steps": [{"kind": "channels", "budget": {"keep": 0}}]}, r"steps\[0\]\.budget\.keep"),
        ({"steps": [{"kind": "channels", "criterion": "worst"}]}, r"steps\[0\]\.criterion: expected one of l2"),
        ({"steps": [{"kind": "channels", "groups": {"a": 2}}]}, r"steps\[0\]\.groups\.a"),
        ({"steps": [{"kind": "distill", "minutes": 0}]}, r"steps\[0\]\.minutes: expected a number above 0"),
        ({"steps": [{"kind": "distill", "int8": 1}]}, r"steps\[0\]\.int8: expected true or false"),
        ({"steps": [{"kind": "precision", "samples": True}]}, r"steps\[0\]\.samples: expected a whole number"),
        ({"steps": {}}, "steps: expected a list"),
        ({"version": 9}, "version: expected 1, found 9"),
        ([], "recipe: expected named fields"),
    ],
)
def test_a_fault_is_named_by_its_path(data: object, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        Recipe.from_json(data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=12,
    )
)
def test_any_json_is_read_or_refused(data: object) -> None:
    with contextlib.suppress(RecipeError):
        assert isinstance(Recipe.from_json(data), Recipe)


def test_text_that_is_no_json_is_refused() -> None:
    with pytest.raises(RecipeError, match="expected JSON text"):
        Recipe.loads(b"\x80\x04steps")
