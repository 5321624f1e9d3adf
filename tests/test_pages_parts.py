"""The parts of the dashboard that need no page: text, methods, goals, links, treemap, charts, report, scenarios."""

from __future__ import annotations

import contextlib
import json
import re
import string
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lwcore import report
from lwcore.analysis.cost import Cost
from lwcore.errors import RecipeError, SearchError
from lwcore.evaluation.result import ClassRow, Evaluation
from lwcore.model import Card, Model
from lwcore.recipe import STEPS, Blocks, Budget, Channels, Connections, Distill, LowRank, Precision, Recipe
from lwcore.scenarios import Attempt, Log, original_of, pareto
from pages.ui import charts, costline, frame, text, wording
from pages.ui.layers.treemap import squarify
from pages.ui.search import goals
from pages.ui.slim import causes, controls, methods
from pages.ui.workspaces import links

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [ROOT / "app.py", *sorted((ROOT / "pages").rglob("*.py"))]


def _keys_used() -> tuple[set[str], set[str]]:
    """Keys written out, and the fixed beginnings of keys that are put together."""
    whole, starts = set(), set()
    for path in SOURCES:
        for found in re.findall(r"""(?:\bt|known|_metric)\(\s*f?"([^"]+)""", path.read_text(encoding="utf-8")):
            (starts if "{" in found else whole).add(found.split("{")[0])
        choices = re.findall(r'(?:choice\(method, |named\()"([\w-]+)"', path.read_text(encoding="utf-8"))
        starts.update(f"{name}." for name in choices)
    return whole, starts


def _placeholders(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name}


def test_both_languages_say_the_same_things() -> None:
    """Same keys, same placeholders, no empty text."""
    en, zh = text.catalogue("en"), text.catalogue("zh")
    assert en.keys() == zh.keys()
    for key in en:
        assert _placeholders(en[key]) == _placeholders(zh[key]), key
        assert en[key].strip()
        assert zh[key].strip()


def test_chinese_is_chinese() -> None:
    """No sentence was left in English; names, units and terms may be."""
    for key, sentence in text.catalogue("zh").items():
        words = re.findall(r"[a-z]{3,}", re.sub(r":material/\w+:|\{\w+\}", "", text.catalogue("en")[key]))
        if len(words) > 3:
            assert re.search(r"[\u4e00-\u9fff]", sentence), key


def test_every_text_that_is_used_exists_and_every_text_is_used() -> None:
    """Keys in the code and keys in the catalogue are one set."""
    whole, starts = _keys_used()
    keys = set(text.catalogue("en"))
    quoted = {
        key
        for path in SOURCES
        for key in re.findall(r'"([a-z_]+\.[A-Za-z0-9_.\-]+)"', path.read_text(encoding="utf-8"))
    }
    assert whole <= keys, whole - keys
    indirect = (*(s for s in starts if s), "note.")
    unused = {k for k in keys if k not in whole | quoted and not k.startswith(indirect)}
    assert not unused


@pytest.mark.parametrize("name", list(frame.PAGES))
def test_every_page_has_its_texts_and_file(name: str) -> None:
    """A registered page has a title, a sentence and a script of at most 80 lines that no other page imports."""
    assert {f"page.{name}", f"page.{name}.help"} <= text.catalogue("en").keys()
    source = frame.PAGES[name].file.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 80
    assert not re.search(r"from pages\.(?!ui)|from pages import (?!ui)", source)


@given(st.text(max_size=40))
def test_escaped_text_holds_no_markdown(name: str) -> None:
    """Every sign that Markdown gives a meaning has a backslash before it."""
    assert not re.search(r"(?<!\\)(?:\\\\)*[*_`\[\]()<>!$:]", text.plain(name))


_SHARES = st.floats(0, 0.95).map(lambda share: round(share, 4))
_BUDGETS = st.builds(Budget, of=st.sampled_from(["macs", "params", "bytes", "latency"]), keep=st.floats(0.05, 0.95))
_STEPS = st.one_of(
    st.builds(
        Channels,
        amount=_SHARES,
        groups=st.dictionaries(st.sampled_from(["a", "b.c", "层"]), _SHARES),
        budget=st.none() | _BUDGETS,
        criterion=st.sampled_from(["l1", "l2", "random"]),
        align=st.sampled_from([1, 8]),
    ),
    st.builds(Blocks, amount=_SHARES, names=st.lists(st.sampled_from(["x", "y"]), max_size=2).map(tuple)),
    st.builds(LowRank, energy=st.floats(0.5, 1), budget=st.none() | _BUDGETS),
    st.builds(Connections, amount=_SHARES, scope=st.sampled_from(["global", "layer"])),
    st.builds(Distill, minutes=st.floats(0.1, 60), teacher=st.sampled_from(["", "other"]), int8=st.booleans()),
    st.builds(
        Precision,
        format=st.sampled_from(sorted({name for formats in methods.FAMILIES.values() for name in formats})),
        keep=st.lists(st.sampled_from(["x", "y"]), max_size=2).map(tuple),
        drop=st.none() | st.floats(0, 5),
        bits=st.integers(1, 8),
    ),
)
_RECIPES = st.builds(Recipe, steps=st.lists(_STEPS, max_size=6).map(tuple), seed=st.integers(0, 2**31 - 1))


def _without_idle(recipe: Recipe) -> Recipe:
    kept = tuple(s for s in recipe.steps if not methods.Method(name="", step=s).idle)
    return Recipe(seed=recipe.seed, steps=kept)


@given(_RECIPES)
def test_any_recipe_is_shown_whole(recipe: Recipe) -> None:
    """Recipe → methods → recipe loses nothing, whatever the order of the steps and however many of a kind."""
    listed = methods.from_recipe(recipe)
    assert methods.to_recipe(listed, recipe.seed) == _without_idle(recipe)
    assert len({m.name for m in listed}) == len(listed)
    assert {m.step.kind for m in listed} >= set(methods.ALWAYS)


@given(_RECIPES)
def test_a_recipe_survives_its_link(recipe: Recipe) -> None:
    """Recipe → link → recipe gives the same recipe."""
    assert links.from_link(links.to_link(recipe)) == recipe


@given(_RECIPES, st.sampled_from(methods.ORDER))
def test_a_method_that_is_added_and_taken_out_leaves_no_trace(recipe: Recipe, kind: str) -> None:
    """Adding puts one step more into the list; taking it out gives the list back."""
    listed = methods.from_recipe(recipe)
    more = methods.added(listed, kind)
    new = {m.name for m in more} - {m.name for m in listed}
    assert len(new) == 1
    assert methods.without(more, new.pop()) == listed


@given(_RECIPES)
def test_moving_keeps_every_step(recipe: Recipe) -> None:
    """Moving a step up and down again gives the list back; nothing is lost at the ends."""
    listed = methods.from_recipe(recipe)
    for method in listed:
        for by in (-1, 1):
            after = methods.moved(listed, method.name, by)
            assert sorted(after, key=lambda m: m.name) == sorted(listed, key=lambda m: m.name)
    active = [m.name for m in listed if not m.idle]
    for name in active[1:]:
        assert methods.moved(methods.moved(listed, name, -1), name, 1) == listed


def test_more_steps_than_a_page_can_show_are_refused() -> None:
    """The list never shows less than a recipe does."""
    with pytest.raises(RecipeError, match="12 steps"):
        methods.from_recipe(Recipe(steps=(Connections(),) * 13))


def test_every_step_has_words_and_controls() -> None:
    """A new kind of step cannot be forgotten on the page."""
    assert set(controls._DRAW) == set(STEPS) == set(methods.ORDER)
    for kind in STEPS:
        assert isinstance(wording.words(STEPS[kind]()), list)


@given(
    st.builds(
        goals.Goal,
        limits=st.lists(st.sampled_from(goals.LIMITS), min_size=1, unique=True).map(
            lambda chosen: tuple(name for name in goals.LIMITS if name in chosen)
        ),
        drop=st.floats(0, 50),
        size_kb=st.floats(1, 1e5),
        macs_percent=st.floats(1, 100),
        speedup=st.floats(1, 20),
        device_ms=st.none() | st.floats(0.01, 1e4),
        prefer=st.sampled_from(goals.PREFER),
        seconds=st.sampled_from(goals.SECONDS),
        seed=st.integers(0, 1000),
    )
)
def test_a_goal_survives_json_and_is_a_target(goal: goals.Goal) -> None:
    """Goal → JSON → goal is the same, and the target holds exactly the chosen limits."""
    assert goals.from_json(json.loads(json.dumps(asdict(goal)))) == goal
    target = goal.target()
    asked = {"drop": "drop", "size": "size_bytes", "macs": "macs", "speedup": "speedup", "device": "device"}
    for limit, name in asked.items():
        assert (target[name] is not None) == (limit in goal.limits)


def test_every_cause_speaks_both_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each code that the library gives has a text in each language, with the placeholders that its values fill."""
    source = (ROOT / "lwcore/evaluation/causes.py").read_text(encoding="utf-8")
    found = re.findall(r'Cause\(code="([\w-]+)", words=words, values=\{(.*?)\}\)', source)
    assert {f"cause.{code}" for code, _ in found} == {k for k in text.catalogue("en") if k.startswith("cause.")}
    for language in text.LANGUAGES:
        monkeypatch.setattr(text, "language", lambda chosen=language: chosen)
        for code, names in found:
            values = dict.fromkeys(re.findall(r'"(\w+)":', names), 0.5)
            assert "{" not in causes.sentence({"code": code, "words": "", "values": values})
    assert causes.sentence({"code": "new", "words": "As {it} is.", "values": {}}) == "As {it} is."


def test_a_goal_without_a_limit_is_an_error_in_words() -> None:
    """At least one limit must be chosen."""
    with pytest.raises(SearchError):
        goals.Goal(limits=()).target()


@given(st.text(max_size=200))
def test_a_damaged_link_is_an_error_in_words(link: str) -> None:
    """Whatever stands in the link, the answer is a recipe or a RecipeError."""
    with contextlib.suppress(RecipeError):
        assert isinstance(links.from_link(link), Recipe)


def test_a_link_cannot_unpack_without_end() -> None:
    """A small link that would unpack to megabytes is refused."""
    import base64
    import zlib

    bomb = base64.urlsafe_b64encode(zlib.compress(b"[" * 50_000_000)).decode()
    with pytest.raises(RecipeError):
        links.from_link(bomb)


def test_nothing_set_is_the_empty_recipe() -> None:
    """All methods at rest mean the original."""
    assert methods.to_recipe(methods.AT_REST, 0) == Recipe()


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=60))
def test_treemap_areas_are_in_proportion_and_fill(values: list[float]) -> None:
    """Areas are the values' shares; the boxes lie inside and cover the whole."""
    boxes = squarify(values, 640, 400)
    total = sum(values)
    for value, (x, y, w, h) in zip(values, boxes, strict=True):
        assert w * h == pytest.approx(640 * 400 * value / total, rel=1e-6)
        assert x >= -1e-6
        assert x + w <= 640 + 1e-6
        assert y >= -1e-6
        assert y + h <= 400 + 1e-6


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1)), min_size=1, max_size=30))
def test_nothing_beats_the_pareto_front(points: list[tuple[float, float]]) -> None:
    """No point is cheaper-or-equal and better than one on the front; every other point is matched by one there."""
    front = pareto(points)
    for i in front:
        assert not any(x <= points[i][0] and y > points[i][1] for x, y in points)
    for x, y in points:
        assert any(points[i][0] <= x and points[i][1] >= y for i in front)


def _attempt(amount: float = 0.3, name: str = "Bag") -> Attempt:
    steps = (Channels(amount=amount),) if amount else ()
    size = round(1000 * (1 - amount))
    cost = Cost(params=100, macs=1000, weight_bytes=400, size_bytes=1000)
    return Attempt(
        model="m",
        samples="s",
        recipe=Recipe(steps=steps),
        slimmed="f",
        before=cost,
        after=cost,
        notes=("<script>alert(1)</script>",),
        evaluation=Evaluation(
            n=100,
            top1=0.8,
            top1_low=0.7,
            top1_high=0.9,
            reference_top1=0.9,
            agreement=0.85,
            size_bytes=size,
            gzip_bytes=size,
            reference_gzip_bytes=900,
            params=70,
            nonzeros=60,
            macs=600,
            latency_ms=1.0,
            reference_latency_ms=2.0,
            per_class=(ClassRow(name=name, n=10, before=0.9, after=0.8),),
        ),
    )


def test_a_log_only_grows_and_holds_nothing_twice() -> None:
    """Adding returns a new log; the same attempt again changes nothing; numbers are places."""
    log = Log().add(_attempt(0.3)).add(_attempt(0.5))
    assert log.add(_attempt(0.3)) == log
    assert [a.number for a in log.attempts] == [0, 1]
    assert log.find("m", "s", _attempt(0.5).recipe) == log.attempts[1]
    assert log.find("m", "other", _attempt(0.5).recipe) is None


def test_the_original_is_known_from_any_attempt() -> None:
    """Its accuracy, time and size are those measured beside the slimmed model."""
    first = original_of(_attempt())
    assert first.is_original
    assert first.quality == pytest.approx(0.9)
    assert first.evaluation.latency_ms == 2.0
    assert first.evaluation.size_bytes == 1000


def test_the_report_is_one_safe_file() -> None:
    """A stranger's names are text in it, it asks nobody for anything, and its recipe can be read back."""
    evil = '"><img src=x onerror=alert(1)>'
    model = Model(data=b"x", card=Card(name=evil, licence=evil))
    made = [_attempt(0.3, evil), _attempt(0.5)]
    page = report.build(model, model, made[0], made)
    assert "<img" not in page
    assert "<script>alert" not in page
    assert not re.search(r"""(?:src|href)\s*=""", page.replace("&quot;", "").replace("img src=x", ""))
    embedded = re.search(r'id="slimlab-recipe">(.*?)</script>', page)
    assert embedded
    assert Recipe.loads(embedded.group(1)) == made[0].recipe


def test_the_report_speaks_both_languages() -> None:
    """Every word of the report is in the catalogue."""
    for language in text.LANGUAGES:
        keys = {k.removeprefix("report.") for k in text.catalogue(language) if k.startswith("report.")}
        assert keys == set(report.WORDS)


def test_the_cost_line_escapes() -> None:
    """Whatever gets into a cell is text."""
    assert "<b>" not in costline.html((costline.Cell(label="<b>", before="<b>", after="<b>", change="<b>"),))


def test_charts_are_plain_data_with_one_look() -> None:
    """Every specification is JSON and carries the one configuration."""
    row = {"name": "a", "type": "Conv", "short": "a", "shape": "1", "text": "t", "params": 3, "macs": 5}
    specs = [
        charts.bars([row], value="params", title="x", types=["Conv"], chosen=""),
        charts.treemap([row], value="macs", types=["Conv"], chosen="a"),
        charts.histogram([1, 2], [0.0, 0.5, 1.0], x="x", y="y"),
        charts.by_class([{"name": "a", "before": 0.9, "after": 0.8}], x="x", before="b", after="a"),
        charts.confusion([[1, 0], [0, 1]], ["a", "b"], x="x", y="y"),
        charts.curve(
            [{"who": "a", "seconds": 1, "loss": 2}], "loss", names="a", span=9, x="x", y="y", form="g", height=9
        ),
        charts.node_errors([{"name": "a", "value": 0.1, "kept": True, "text": "t"}], x="x", kept="k", int8="i"),
    ]
    for spec in specs:
        assert json.loads(json.dumps(spec)) == spec
        assert spec["config"] == specs[0]["config"]


@pytest.mark.parametrize("key", [key for key in text.catalogue("en") if key.startswith("note.")])
def test_a_sentence_of_the_library_finds_its_translation(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A note as lwcore writes it, its numbers filled in, comes out in Chinese with the same numbers."""
    monkeypatch.setattr(text, "language", lambda: "zh")
    values = {name: f"v{i}" for i, name in enumerate(sorted(_placeholders(text.catalogue("en")[key])))}
    translated = text.note(text.catalogue("en")[key].format(**values))
    assert translated == text.catalogue("zh")[key].format(**values)
