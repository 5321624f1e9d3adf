"""Evaluation: the numbers are those of a direct count, the intervals those of the literature, JSON loses nothing."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math

import numpy as np
import pytest

import lwcore
from lwcore import runtime
from lwcore.answers import feed
from lwcore.errors import EvaluationError
from lwcore.evaluation import Evaluation, evaluate, reference
from lwcore.evaluation.accuracy import answers, confidences
from lwcore.evaluation.statistics import mcnemar, paired_difference, wilson
from lwcore.timing import take_turns
from tests.tiny import CLASSES, tiny_model, tiny_samples


def direct_answers(model, samples):
    output = runtime.run(runtime.session(model.data, 1), feed(model, samples))[0]
    return output.argmax(axis=1)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (8, 10, 0.4902, 0.9433), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_gives_the_published_intervals(hits, n, low, high):
    found = wilson(hits, n)
    assert found.value == hits / n
    assert found.low == pytest.approx(low, abs=1e-4)
    assert found.high == pytest.approx(high, abs=1e-4)


def test_paired_difference_turns_its_sign_with_the_models():
    one, two = paired_difference(30, 12, 500), paired_difference(12, 30, 500)
    assert one.value == pytest.approx(18 / 500)
    assert (one.low, one.high) == pytest.approx((-two.high, -two.low))
    assert one.low < one.value < one.high


@pytest.mark.parametrize(("gained", "lost", "p"), [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 2 / 32), (1, 9, 22 / 1024)])
def test_mcnemar_is_the_exact_binomial_test(gained, lost, p):
    assert mcnemar(gained, lost) == pytest.approx(p)
    assert mcnemar(lost, gained) == pytest.approx(p)


def test_mcnemar_stands_thousands_of_discordant_pairs():
    assert 0.0 <= mcnemar(3000, 3500) < 1e-8


def test_evaluation_equals_a_direct_count():
    model, other, samples = tiny_model(), tiny_model(seed=5), tiny_samples()
    found, before = direct_answers(other, samples), direct_answers(model, samples)
    report = evaluate(other, samples, against=model, latency=False)
    assert report.n == len(samples)
    assert report.top1 == pytest.approx((found == samples.labels).mean())
    assert report.reference_top1 == pytest.approx((before == samples.labels).mean())
    assert report.difference == pytest.approx(report.top1 - report.reference_top1)
    assert report.agreement == pytest.approx((found == before).mean())
    assert report.top1_low <= report.top1 <= report.top1_high
    assert report.difference_low <= report.difference <= report.difference_high
    assert report.changed_total == (found != before).sum() == len(report.changed)
    assert [c.after for c in report.changed] == [CLASSES[i] for i in found[found != before]]
    assert all(0 < c.after_confidence <= 1 for c in report.changed)


def test_confusion_and_classes_add_up_to_the_samples():
    model, samples = tiny_model(), tiny_samples()
    report = evaluate(model, samples, latency=False)
    table = np.array(report.confusion)
    assert table.sum() == report.n == sum(row.n for row in report.per_class)
    assert np.trace(table) / report.n == pytest.approx(report.top1)
    assert sum(row.n * row.after for row in report.per_class) / report.n == pytest.approx(report.top1)
    assert sum(pair.count for pair in report.confused) == report.n - np.trace(table)


def test_a_model_agrees_with_itself_and_the_difference_is_noise():
    model, samples = tiny_model(), tiny_samples()
    report = evaluate(model, samples, against=model, latency=False)
    assert report.agreement == 1.0
    assert report.difference == 0.0
    assert report.p_value == 1.0
    assert report.changed == ()


def test_without_labels_agreement_is_the_measure():
    model, samples = tiny_model(), tiny_samples(labelled=False)
    report = evaluate(tiny_model(seed=2), samples, against=model, latency=False)
    assert report.top1 is None
    assert report.p_value is None
    assert 0 <= report.agreement <= 1


def test_a_fixed_batch_gives_the_answers_of_a_free_one():
    samples = tiny_samples(50)
    free = evaluate(tiny_model(), samples, latency=False)
    fixed = evaluate(tiny_model(batch=8), samples)
    assert fixed.confusion == free.confusion
    assert fixed.latency_batch == 8


def test_remembered_answers_give_the_same_evaluation():
    model, other, samples = tiny_model(), tiny_model(seed=5), tiny_samples()
    known = reference(model, samples)
    assert known.fits(model, samples)
    assert not known.fits(other, samples)
    fresh = evaluate(other, samples, against=model, latency=False)
    again = evaluate(other, samples, against=model, latency=False, reference=known)
    assert dataclasses.replace(again, seconds=0.0) == dataclasses.replace(fresh, seconds=0.0)


def test_remembered_answers_of_another_model_are_not_used():
    model, other, samples = tiny_model(), tiny_model(seed=5), tiny_samples()
    report = evaluate(model, samples, against=model, latency=False, reference=reference(other, samples))
    assert report.agreement == 1.0


def test_sizes_are_those_of_the_file():
    model, samples = tiny_model(), tiny_samples(4)
    report = evaluate(model, samples, against=model, latency=False)
    cost = lwcore.cost(model)
    assert (report.size_bytes, report.params, report.macs) == (len(model.data), cost.params, cost.macs)
    assert report.nonzeros == report.params
    assert report.gzip_bytes == pytest.approx(len(gzip.compress(model.data, 6)), abs=16)
    assert (report.reference_size_bytes, report.reference_gzip_bytes) == (report.size_bytes, report.gzip_bytes)


def test_latency_is_ordered_and_states_its_threads():
    report = evaluate(tiny_model(), tiny_samples(4), against=tiny_model(), threads=1)
    assert 0 < report.latency_low_ms <= report.latency_ms <= report.latency_high_ms
    assert 0 < report.reference_latency_low_ms <= report.reference_latency_ms <= report.reference_latency_high_ms
    assert report.threads == 1


def test_turns_are_taken_by_all():
    counts = [0, 0]

    def run(index):
        counts[index] += 1

    found = take_turns([lambda: run(0), lambda: run(1)], seconds=0.01)
    assert counts[0] == counts[1] >= 6
    assert found[0].rounds == counts[0] - 1


def test_json_loses_nothing():
    report = evaluate(tiny_model(), tiny_samples(), against=tiny_model(seed=3))
    text = json.dumps(report.to_json(), allow_nan=False)
    assert Evaluation.from_json(json.loads(text)) == report


@pytest.mark.parametrize("data", [{}, {"n": 3, "strange": 1}, {"n": 1, "changed": [{"index": 0}]}])
def test_other_json_is_refused(data):
    with pytest.raises(EvaluationError):
        Evaluation.from_json(data)


def test_labels_beyond_the_classes_are_refused():
    samples = dataclasses.replace(tiny_samples(), labels=np.full(60, 7))
    with pytest.raises(EvaluationError, match=r"labels 0–2.*found 7"):
        evaluate(tiny_model(), samples, latency=False)


def test_no_samples_are_refused():
    with pytest.raises(EvaluationError, match="at least one sample"):
        evaluate(tiny_model(), tiny_samples(3).take(0))


def test_answers_that_are_no_numbers_are_wrong():
    logits = np.array([[1.0, 2.0], [math.nan, 3.0], [3.0, 1.0]], np.float32)
    assert answers(logits).tolist() == [1, -1, 0]


def test_confidences_take_a_softmax_unless_the_model_did():
    logits = np.array([[0.0, math.log(3)]], np.float32)
    assert confidences(logits)[0] == pytest.approx(0.75)
    assert confidences(np.array([[0.25, 0.75]], np.float32))[0] == pytest.approx(0.75)


def test_progress_rises_to_one():
    told = []
    evaluate(
        tiny_model(),
        tiny_samples(300),
        against=tiny_model(),
        latency=False,
        progress=lambda share, message: told.append(share),
    )
    assert told == sorted(told)
    assert told[-1] == 1.0
