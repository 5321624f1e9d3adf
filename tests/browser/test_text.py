"""A walk with a text model: slimmed, the texts whose answer changed, and what to take home, tokenizer included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

from tests.browser.walk import download, go, settled, slide, visit

pytestmark = pytest.mark.browser
LONG = 600_000  # milliseconds; a busy machine measures slowly, and nothing here asserts on speed
TEXTS = Path(__file__).resolve().parents[2] / "pages/ui/texts"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_text_model_is_slimmed_read_and_taken_home(page: Any, language: str) -> None:
    """Both languages ask for the same, so the second one is answered from the store."""
    words = json.loads((TEXTS / f"{language}.json").read_text(encoding="utf-8"))
    visit(page, f"/slim?model=email-tinybert&lang={language}")
    slide(page, "channels-amount", 16)
    page.get_by_text(words["result.measured.title"].strip("#* "), exact=True).wait_for(timeout=LONG)
    settled(page)
    page.locator(".st-key-slim-tab").get_by_text(words["tab.changed"], exact=True).click()
    settled(page)
    assert page.get_by_test_id("stException").count() == 0
    go(page, words["page.take-home"])
    page.locator(".st-key-take-onnx").wait_for(timeout=LONG)
    settled(page)
    assert page.get_by_test_id("stException").count() == 0
    tokenizer = Tokenizer.from_buffer(download(page, "take-tokenizer-json"))
    runner = onnxruntime.InferenceSession(download(page, "take-onnx"))
    found = tokenizer.encode("Dear friend, you have won a prize!")
    arrays = {"input_ids": found.ids, "attention_mask": found.attention_mask, "token_type_ids": found.type_ids}
    feed = {i.name: np.array([arrays[i.name]], np.int64) for i in runner.get_inputs()}
    assert runner.run(None, feed)[0].shape == (1, 2)
