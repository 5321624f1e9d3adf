"""Texts as samples: tables and lines read, labels matched, tokens made by the tokenizer that travels with a model."""

from __future__ import annotations

import numpy as np
import pytest

from lwcore.analysis.cost import cost
from lwcore.answers import feed, logits
from lwcore.domains import domain
from lwcore.errors import SampleError
from lwcore.model import Model
from lwcore.runtime import session
from lwcore.samples.builtin import load_set
from lwcore.samples.texts import LONGEST, read_texts
from lwcore.samples.tokens import texts_of
from lwcore.sources.builtin import load_builtin
from lwcore.store import Store
from tests.texts import LENGTH, classifier, texts

CLASSES = ("ham", "spam")


@pytest.mark.parametrize(
    "data",
    [
        'text,label\n"hello, friend",ham\nbuy now,spam\n',
        "label;text\nham;hello, friend\nspam;buy now\n",
        "\ufefftext\tlabel\nhello, friend\t0\nbuy now\t1\n",
        '{"text": "hello, friend", "label": "HAM"}\n\n{"label": 1, "text": "buy now"}\n',
    ],
)
def test_every_form_of_a_table_gives_the_same_texts_and_labels(data: str) -> None:
    """CSV, semicolons, TSV with a byte order mark, JSONL."""
    samples = read_texts(data.encode(), CLASSES, "mine")
    assert texts_of(samples) == ["hello, friend", "buy now"]
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1]


def test_lines_without_a_heading_are_unlabelled_texts() -> None:
    """One text a line."""
    samples = read_texts(b"first line\n\nsecond, line\n", CLASSES, "mine")
    assert texts_of(samples) == ["first line", "second, line"]
    assert samples.labels is None


def test_labels_that_are_no_class_are_said() -> None:
    """All strange: unlabelled; some: left out."""
    strange = read_texts(b"text,label\na b c,x\nd e f,y\n", CLASSES, "mine")
    assert strange.labels is None
    assert "x, y" in strange.notes[0]
    some = read_texts(b"text,label\na b c,ham\nd e f,y\n", CLASSES, "mine")
    assert len(some) == 1
    assert "Left out 1" in some.notes[0]


@pytest.mark.parametrize("data", [b"", b"\x00\x01binary", b"PK\x03\x04zip", b'{"text": 1\n', b"text,label\n,ham\n"])
def test_what_is_no_table_of_texts_is_a_sentence(data: bytes) -> None:
    """Expected, found."""
    with pytest.raises(SampleError, match="xpected"):
        read_texts(data, CLASSES, "mine")


def test_long_texts_are_cut_at_a_whole_letter() -> None:
    """Bytes are limited, letters stay whole."""
    samples = read_texts(("ä" * LONGEST).encode(), CLASSES, "mine")
    assert texts_of(samples) == ["ä" * (LONGEST // 2)]


def test_texts_survive_the_store(tmp_path) -> None:
    """The same fingerprint, texts and labels."""
    store, samples = Store(tmp_path), texts(5)
    again = store.samples(store.put_samples(samples))
    assert again.fingerprint == samples.fingerprint
    assert texts_of(again) == texts_of(samples)


def test_a_model_is_fed_tokens_masks_and_types_of_its_length() -> None:
    """Filled up, masked where filled up; a part is the part of the whole."""
    model, samples = classifier(), texts(6)
    batch = feed(model, samples)
    assert set(batch) == {"input_ids", "attention_mask", "token_type_ids"}
    assert all(array.shape == (6, LENGTH) and array.dtype == np.int64 for array in batch.values())
    assert ((batch["input_ids"] == 0) == (batch["attention_mask"] == 0)).all()
    np.testing.assert_array_equal(feed(model, samples, 2, 4)["input_ids"], batch["input_ids"][2:4])


def test_what_fills_a_text_up_changes_no_answer() -> None:
    """The mask hides it."""
    model, samples = classifier(), texts(4)
    runner, batch = session(model.data), feed(model, samples)
    longer = {name: np.pad(array, ((0, 0), (0, 9))) for name, array in batch.items()}
    np.testing.assert_allclose(runner.run(None, batch)[0], runner.run(None, longer)[0], atol=1e-5)


def test_people_are_shown_the_text() -> None:
    """As it was written."""
    model, samples = classifier(), texts(3)
    assert domain(model).show(samples, 2) == texts_of(samples)[2]


def test_a_model_without_its_tokenizer_says_so() -> None:
    """It cannot read."""
    model = classifier()
    with pytest.raises(SampleError, match="tokenizer"):
        logits(session(model.data), Model(data=model.data, card=model.card), texts(2))


def test_the_students_of_the_gallery_are_as_small_and_as_good_as_their_cards_say() -> None:
    """TinyBERT: 7.5 times smaller, 9 times fewer MACs than its teacher, within a point of it; measured, not read."""
    teacher, student = (load_builtin(f"email-{name}") for name in ("bert", "tinybert"))
    samples = load_set("email-test", student)
    right = float((logits(session(student.data), student, samples).argmax(1) == samples.labels).mean())
    said = {model.card.name: (model.card.accuracy or {})["top1"] for model in (teacher, student)}
    assert right == pytest.approx(said[student.card.name], abs=1e-3)  # another processor rounds otherwise
    assert right >= said[teacher.card.name] - 0.01
    assert cost(teacher).params >= 7.5 * cost(student).params
    assert cost(teacher).macs >= 9 * cost(student).macs


def test_no_test_text_is_in_the_other_sets() -> None:
    """Nothing that accuracy is measured on was seen in training."""
    model = load_builtin("email-tinybert")
    sets = {name: set(texts_of(load_set(f"email-{name}", model))) for name in ("test", "calibration", "train")}
    assert not sets["test"] & (sets["calibration"] | sets["train"])
    assert not sets["calibration"] & sets["train"]
