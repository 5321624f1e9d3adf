"""Slimming models that read texts: heads, vocabulary, int8 tables; batch and length stay free, the tokenizer stays."""

from __future__ import annotations

import numpy as np
import pytest

from lwcore.analysis.cost import cost
from lwcore.analysis.coupling import couple_heads
from lwcore.answers import feed, logits
from lwcore.errors import EvaluationError, SlimError
from lwcore.evaluation import evaluate
from lwcore.evaluation.lengths import by_length
from lwcore.graph import Graph
from lwcore.model import Model
from lwcore.recipe import Blocks, Channels, Connections, Heads, LowRank, Precision, Recipe, Step, Vocabulary
from lwcore.runtime import session
from lwcore.samples.texts import read_texts
from lwcore.samples.tokens import tokenizer
from lwcore.slimming import apply, plan
from lwcore.slimming.heads import attentions
from lwcore.slimming.rewrite import cut
from tests import tiny
from tests.texts import LENGTH, TOKENIZER, classifier, texts


def _answers(model: Model, samples=None) -> np.ndarray:
    return logits(session(model.data), model, texts() if samples is None else samples)


@pytest.mark.parametrize(
    "step",
    [
        Heads(amount=0.5),
        Channels(amount=0.4, align=1),
        Blocks(amount=0.5),
        LowRank(energy=0.8),
        Connections(amount=0.5),
        Vocabulary(),
        Precision(format="fp16"),
        Precision(format="int8-dynamic"),
        Precision(format="int8-static", variant="u8u8"),
        Precision(format="int8-weights"),
        Precision(format="int4-weights"),
        Precision(format="int4-matmul"),
    ],
    ids=lambda step: getattr(step, "format", step.kind),
)
def test_every_step_leaves_batch_and_length_free_and_the_tokenizer_there(step: Step) -> None:
    """The slimmed file runs at other lengths, and a plan of its structure is exact."""
    model, recipe = classifier(), Recipe(steps=(step,))
    slim = apply(model, recipe, samples=texts())
    graph, runner = Graph.view(slim.model), session(slim.model.data)
    assert graph.free["input_ids"] == {0: "batch", 1: "sequence"}
    assert TOKENIZER in slim.model.files
    for batch, length in ((1, 5), (3, 33)):
        found = runner.run(None, {name: np.ones((batch, length), np.int64) for name in graph.inputs})[0]
        assert found.shape == (batch, 2)
        assert np.isfinite(found).all()
    planned = plan(model, recipe)
    if not planned.estimated:
        assert planned.after.macs == slim.after.macs
        assert planned.after.params == slim.after.params or isinstance(step, Precision)  # it may store scalars too


def test_embedding_heads_width_and_mlp_can_all_shrink() -> None:
    """Groups of channels: the stream, every attention's two widths, every MLP, the pooler."""
    from lwcore.analysis.coupling import couple

    sizes = sorted(group.channels for group in couple(classifier()).groups)
    assert sizes == [8, 8, 8, 8, 32, 32, 64, 64]


def test_cutting_heads_is_leaving_out_what_they_write() -> None:
    """The law: a cut model answers as the original whose output projection does not read those heads."""
    model = classifier()
    dense, coupling = Graph.of(model), couple_heads(model)
    first, second = attentions(model)
    gone = [int(first.units[1]), int(second.units[3]), int(second.units[0])]
    keep = np.ones(coupling.units, dtype=bool)
    keep[gone] = False
    slim = cut(dense, coupling, keep)
    for layer in (first, second):
        weight = dense.constants[layer.reader.constant].copy()
        np.moveaxis(weight, layer.reader.axis, 0)[~keep[layer.reader.ids]] = 0
        dense.set_constant(layer.reader.constant, weight)
    batch = feed(model, texts(8))
    one, other = (session(graph.serialize()).run(None, batch)[0] for graph in (slim, dense))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_every_attention_keeps_a_head() -> None:
    """However much is asked for."""
    slim = apply(classifier(), Recipe(steps=(Heads(amount=0.95),)), samples=texts())
    assert slim.after.macs < slim.before.macs
    assert len(attentions(slim.model)) == 0  # one head a layer is no choice any more


def test_heads_of_a_model_without_attention_are_a_note() -> None:
    """Nothing is changed."""
    model = tiny.tiny_model()
    slim = apply(model, Recipe(steps=(Heads(amount=0.5),)), samples=tiny.tiny_samples())
    assert slim.model.data == model.data
    assert "no attention" in slim.notes[0]


def test_a_trimmed_vocabulary_gives_the_same_answers() -> None:
    """Tokens that no text has are gone from table and tokenizer, and the others mean what they meant."""
    model, samples = classifier(), texts()
    slim = apply(model, Recipe(steps=(Vocabulary(),)), samples=samples)
    np.testing.assert_allclose(_answers(slim.model, samples), _answers(model, samples), atol=1e-6)
    words = tokenizer(slim.model.files[TOKENIZER], LENGTH)
    assert words.token_to_id("report") is None
    assert words.token_to_id("hello") is not None
    assert slim.after.params < slim.before.params
    other = read_texts(b"a report is due", (), "other")
    assert np.isfinite(_answers(slim.model, other)).all()  # spelled with letters now


def test_a_vocabulary_is_a_text_models() -> None:
    """Others are told so."""
    model = tiny.tiny_model()
    with pytest.raises(SlimError, match="reads texts"):
        apply(model, Recipe(steps=(Vocabulary(),)), samples=tiny.tiny_samples())


def test_int8_holds_the_embedding_table_too() -> None:
    """Parameters are the same, the table takes a quarter."""
    model = classifier()
    slim = apply(model, Recipe(steps=(Precision(format="int8-weights"),)), samples=texts())
    assert cost(slim.model).params == cost(model).params
    assert cost(slim.model).weight_bytes < 0.4 * cost(model).weight_bytes
    assert float((_answers(slim.model).argmax(1) == _answers(model).argmax(1)).mean()) > 0.9


def test_evaluation_tells_which_texts_changed_their_answer() -> None:
    """By index, so that they can be shown."""
    model = classifier()
    slim = apply(model, Recipe(steps=(Channels(amount=0.8, align=1, compensate="none", criterion="l2"),)))
    found = evaluate(slim.model, texts(), against=model, latency=False)
    assert found.changed_total == sum(
        a != b for a, b in zip(*(_answers(m).argmax(1) for m in (model, slim.model)), strict=True)
    )


def test_costs_by_length_grow_with_it() -> None:
    """At the card's own length they are the model's; lengths beyond its positions are left out."""
    model = classifier()
    rows = by_length(model, model, lengths=(8, LENGTH, 500))
    assert [row.length for row in rows] == [8, LENGTH]
    assert rows[1].macs == cost(model).macs > rows[0].macs == rows[0].reference_macs
    with pytest.raises(EvaluationError, match="any length"):
        by_length(tiny.tiny_model())
