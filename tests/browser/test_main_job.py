"""The whole main job in chromium: choose, look, slim, measure, compare, take home; and bringing an own file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.browser.walk import download, go, settled, slide, visit

pytestmark = pytest.mark.browser
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
LONG = 120_000  # milliseconds; a busy machine measures slowly, and nothing here asserts on speed


def _accuracies(page: Any) -> str:
    return str(page.locator(".sl-line > div").nth(3).inner_text())


def test_choose_look_slim_measure_compare_take_home(page: Any) -> None:
    """A person gets from the gallery to a smaller file that runs, and sees what it costs on the way."""
    visit(page, "/")
    page.locator(".st-key-open-fashion-mobilenetv2 button").click()
    page.locator(".st-key-layer-detail").wait_for(timeout=LONG)
    settled(page)
    before = page.locator(".st-key-layer-detail").inner_text()
    chart = page.locator("[data-testid=stVegaLiteChart]").first
    box = chart.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.93, box["y"] + box["height"] * 0.93)
    settled(page)
    page.wait_for_timeout(1500)
    assert page.locator(".st-key-layer-detail").inner_text() != before, "a click in the chart picks the layer"

    go(page, "Slim")
    page.get_by_text("The original, measured").wait_for(timeout=LONG)
    slide(page, "channels-amount", 6)
    page.get_by_text("Measured", exact=True).wait_for(timeout=LONG)
    first = _accuracies(page)
    assert "→" in first
    slide(page, "channels-amount", 6)
    page.get_by_text("Measured", exact=True).wait_for(timeout=LONG)
    page.wait_for_timeout(500)
    assert _accuracies(page) != first, "another slider position has another measured accuracy"

    go(page, "Compare")
    page.get_by_text("Return to this attempt").wait_for()
    page.locator(".st-key-return button").click()
    page.get_by_text("Measured", exact=True).wait_for(timeout=LONG)

    go(page, "Take home")
    data = download(page, "take-onnx")
    runner = onnxruntime.InferenceSession(data)
    out = runner.run(None, {runner.get_inputs()[0].name: np.zeros((1, 1, 28, 28), np.float32)})[0]
    assert out.shape == (1, 10)
    original = (Path(__file__).resolve().parents[2] / "assets/models/fashion-mobilenetv2.onnx").stat().st_size
    assert len(data) < 0.6 * original
    assert json.loads(download(page, "take-recipe"))["steps"][0]["kind"] == "channels"
    report = download(page, "take-report").decode()
    assert "slimlab-recipe" in report
    assert "http" not in report.replace("http-equiv", "").replace("http://www.w3.org", "")


@pytest.mark.parametrize("path", ["start", "layers", "slim", "compare", "take-home"])
def test_a_cold_deep_link_has_its_frame(page: Any, path: str) -> None:
    """Every page opened first by its own address has navigation, language and cost line, and no error."""
    visit(page, f"/{path}?lang=zh")
    page.get_by_test_id("stTopNavLink").filter(has_text="瘦身").first.wait_for()
    page.locator(".sl-line").wait_for()
    assert page.locator("[data-testid=stException]").count() == 0
    assert page.get_by_role("dialog").count() == 0


def test_an_own_onnx_file_is_read_described_and_slimmed(page: Any) -> None:
    """A real file that nobody here wrote goes in, and its layers come out."""
    visit(page, "/")
    page.locator(".st-key-bring input[type=file]").set_input_files(str(LIGHT / "light_squeezenet.onnx"))
    page.get_by_role("button", name="Use this model").wait_for(timeout=LONG)
    page.get_by_role("button", name="Use this model").click()
    page.locator(".st-key-layer-detail").wait_for(timeout=LONG)
    go(page, "Slim")
    slide(page, "channels-amount", 6)
    told = page.get_by_text("Estimate, not measured yet").or_(page.get_by_text("Measured", exact=True))
    told.first.wait_for(timeout=LONG)
    assert "→" in page.locator(".sl-line > div").first.inner_text()


def test_a_bad_file_gets_one_plain_sentence(page: Any) -> None:
    """Something that is no model is refused in words, and the page goes on working."""
    visit(page, "/")
    bad = {"name": "model.onnx", "mimeType": "application/octet-stream", "buffer": b"\x80\x04\x95 this is a pickle."}
    page.locator(".st-key-bring input[type=file]").set_input_files(bad)
    alert = page.locator("[data-testid=stAlert]")
    alert.wait_for(timeout=LONG)
    assert "Traceback" not in alert.inner_text()
    page.locator(".st-key-open-fashion-mobilenetv2 button").wait_for()
