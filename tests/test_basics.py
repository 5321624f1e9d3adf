"""The small things everything stands on: units, registries, settings, cards."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lwcore
from lwcore import units
from lwcore.errors import ModelError, UnknownName
from lwcore.model import Card
from lwcore.registry import Registry
from lwcore.settings import Settings
from lwcore.sources import read_card


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (1234567, "1.23 M"), (999999, "1.00 M"), (4089184256, "4.09 G")],
)
def test_counts_have_three_significant_digits(value: int, text: str) -> None:
    assert units.count(value) == text


def test_sizes_and_changes_read_as_people_write_them() -> None:
    assert units.size(524995) == "525 kB"
    assert units.size(18_600_000) == "18.6 MB"
    assert units.change(200, 100) == "−50 %"
    assert units.change(200, 200) == "±0 %"
    assert units.percent(0.8725) == "87.2 %"


@given(st.integers(0, 10**15))
def test_a_count_is_never_far_from_the_number(value: int) -> None:
    number, _, step = units.count(value).partition(" ")
    scale = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[step]
    assert float(number) * scale == pytest.approx(value, rel=0.006, abs=0.5)


def test_a_registry_refuses_a_second_entry_of_one_name() -> None:
    table: Registry[int] = Registry("thing")
    table.add("a", 1)
    with pytest.raises(ValueError, match="thing 'a' is registered twice: 1 and 2"):
        table.add("a", 2)


def test_an_unknown_name_lists_the_choices() -> None:
    table: Registry[int] = Registry("thing")
    table.add("a", 1)
    table.add("b", 2)
    with pytest.raises(UnknownName, match="thing: expected one of a, b; found 'c'"):
        table["c"]


def test_settings_read_the_environment_and_name_a_bad_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIMLAB_UPLOAD_MB", "5")
    assert Settings.from_environment().upload_mb == 5
    monkeypatch.setenv("SLIMLAB_UPLOAD_MB", "much")
    with pytest.raises(ValueError, match="SLIMLAB_UPLOAD_MB"):
        Settings.from_environment()


def test_a_card_survives_json() -> None:
    for card in lwcore.gallery().values():
        assert Card.from_json(json.loads(json.dumps(card.to_json()))) == card


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"input": {"size": "big"}}, "card.input"),
        ({"input": {"layout": "HWNC"}}, "layout: expected NCHW or NHWC"),
        ({"input": {"color": "rgb", "mean": [0.1, 0.2]}}, "mean: expected 3 numbers, found 2"),
        ({"input": {"std": [0, 1, 1]}}, "above zero"),
    ],
)
def test_a_bad_card_names_the_field(data: dict[str, object], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        Card.from_json(data)


def test_a_card_file_that_is_no_json_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "card.json"
    path.write_text("[1]")
    with pytest.raises(ModelError, match="expected named fields"):
        read_card(path)


def test_every_built_in_has_what_the_gallery_shows() -> None:
    cards = lwcore.gallery()
    families = {card.family for card in cards.values()}
    assert {"MobileNetV2", "ShuffleNetV2", "SqueezeNet", "EfficientNet", "ResNet-20"} <= families
    for name, card in cards.items():
        assert card.description, name
        assert card.licence, name
        model = lwcore.load(name)
        assert len(card.classes) in (0, 2, 8, 10, 1000), name
        assert lwcore.cost(model).params > 0


def test_the_articles_network_has_its_published_parameters() -> None:
    model = lwcore.load("article-cnn")
    assert lwcore.cost(model).params == 7_317_224
    assert model.card.random_weights


def test_an_unknown_model_lists_the_built_in_ones() -> None:
    with pytest.raises(ModelError, match="fashion-resnet20"):
        lwcore.load("resnet-2000")
