"""Names that a stranger chose, on the pages: never a formula in a table that is saved, never HTML or Markdown."""

from __future__ import annotations

import dataclasses

import onnx
import pytest
from streamlit.testing.v1 import AppTest

from lwcore.model import Model
from lwcore.sources.builtin import load_builtin
from pages.ui import charts, service
from pages.ui.text import cell, uncelled
from tests.test_pages import MODEL, InstantJobs, at, opened

FORMULA = '=HYPERLINK("http://evil.example","x")'
HTML = "<script>alert(1)</script>"


class NamedJobs(InstantJobs):
    """Workers whose answers carry a model's own names, as the real ones do."""

    def profile(self, model: str) -> dict:
        found = super().profile(model)
        return {**found, "layers": [{**found["layers"][0], "name": FORMULA}, {**found["layers"][1], "name": HTML}]}


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> NamedJobs:
    made = NamedJobs()
    monkeypatch.setattr(service, "jobs", lambda: made)
    return made


def hostile() -> str:
    """A built-in model whose layers and classes have such names; its reference."""
    original = load_builtin(MODEL)
    proto = onnx.load_model_from_string(original.data)
    for i, node in enumerate(proto.graph.node):
        node.name = f"{(FORMULA, HTML, '@SUM(1)', '-1+1')[i % 4]}{i}"
    classes = (FORMULA, HTML, *(f"+{i}" for i in range(len(original.card.classes) - 2)))
    card = dataclasses.replace(original.card, name=HTML, classes=classes)
    return service.store().put_model(Model(data=proto.SerializeToString(), card=card))


def texts(app: AppTest) -> list[str]:
    """Every text in every table of a page: cells and column names."""
    found = []
    for table in (*app.dataframe, *app.get("arrow_data_frame")):
        frame = table.value
        found += [str(name) for name in frame.columns]
        found += [str(v) for name in frame.columns for v in frame[name] if isinstance(v, str)]
    return found


@pytest.mark.parametrize("page", ["layers", "slim"])
def test_no_table_holds_a_formula(jobs: NamedJobs, page: str) -> None:
    """A layer called like a formula is shown with an apostrophe before it, which a spreadsheet takes for text."""
    app = opened(model=hostile())
    app.session_state["channels-advanced"] = True  # the fold that holds the table of groups
    app = at(app, page)
    assert not app.exception
    found = texts(app)
    assert any(HTML in text for text in found)
    assert any(text.startswith("'" + FORMULA) for text in found)
    assert not [text for text in found if text.startswith(("=", "+", "-", "@"))]


def test_the_data_of_a_chart_holds_no_formula() -> None:
    """A reader can look at it as a table and save that."""
    row = {"type": "Conv", "share": 0.1, "text": "1", "params": 5, "kept": False, "value": 1.0}
    rows = [{**row, "name": name, "short": name} for name in (FORMULA, HTML)]
    specs = (
        charts.bars(rows, value="params", title="", types=["Conv"], chosen=""),
        charts.treemap(rows, value="params", types=["Conv"], chosen=""),
        charts.node_errors(rows, x="", kept="kept", int8="int8"),
        charts.confusion([[1, 2], [3, 4]], [FORMULA, HTML], x="", y=""),
    )
    for spec in specs:
        values = [str(value) for line in spec["data"]["values"] for value in line.values()]
        assert any("HYPERLINK" in value for value in values)
        assert not [value for value in values if value.startswith(("=", "+", "-", "@"))]


def test_a_name_is_left_alone_unless_a_spreadsheet_would_run_it() -> None:
    """What begins like a formula gets an apostrophe; all else is as it was."""
    for name in ("conv1", "a=b", "", "1-2", "层", "'x"):
        assert cell(name) == uncelled(cell(name)) == name
    for name in ("=1", "+1", "-1", "@x", "\t=1", "\r=1", "＝1"):
        assert cell(name) == "'" + name
        assert uncelled(cell(name)) == name
