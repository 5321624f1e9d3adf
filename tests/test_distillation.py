"""Training: weights go back into the same graph, and what was learnt is never lost."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch

import lwcore
from lwcore import runtime
from lwcore.answers import feed, logits
from lwcore.errors import SlimError
from lwcore.graph import Graph
from lwcore.model import Card, Model
from lwcore.recipe import Connections, Distill, Precision, Recipe
from lwcore.samples import SampleSet
from lwcore.slimming.distillation import training, views
from lwcore.slimming.distillation.course import Course
from lwcore.slimming.distillation.inner import find_layers, pair_up
from lwcore.slimming.distillation.lessons import Lessons, Taught
from lwcore.slimming.distillation.rounding import Rounding, int8_form
from lwcore.slimming.distillation.student import Student, check_trainable
from lwcore.slimming.distillation.teach import NO_LABELS, teach
from lwcore.slimming.precision.write import Quantizer
from tests.test_attention import Net
from tests.tiny import tiny_model, tiny_samples

FEW = Distill(steps=3)


@pytest.fixture(autouse=True)
def _few_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LOOKS", 4)


def spoilt(model: Model, by: float = 0.6, seed: int = 3) -> Model:
    """The model with other weights, as hard slimming leaves them."""
    graph, rng = Graph.of(model), np.random.default_rng(seed)
    for name, array in graph.constants.items():
        if array.dtype == np.float32 and array.ndim > 1:
            noise = rng.standard_normal(array.shape).astype(np.float32)
            graph.set_constant(name, array + by * array.std() * noise)
    return dataclasses.replace(model, data=graph.serialize())


def asked(model: Model, samples: SampleSet) -> np.ndarray:
    return logits(runtime.session(model.data), model, samples)


def trained(student: Student, samples: SampleSet, steps: int = 3) -> None:
    """A few large steps, whatever for."""
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    for _ in range(steps):
        student.mode(True)
        loss = student.answer(feed(student.origin, samples))[0].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        student.keep_zeros()
    student.mode(False)


# -- weights there and back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny", "tiny with batch norm", "fashion-mobilenetv2", "fashion-shufflenetv2"])
def test_a_trained_network_evaluates_as_onnxruntime_runs_its_file(name: str) -> None:
    """Within 1e-4, batch norms folded (and put back) or not; and training has changed it."""
    model = lwcore.load(name) if name.startswith("fashion") else tiny_model(norm="norm" in name)
    samples = lwcore.load_samples("fashion-test", model, limit=32) if "fashion" in name else tiny_samples(32)
    student = Student(model, feed(model, samples))
    before = asked(model, samples)
    with torch.inference_mode():
        np.testing.assert_allclose(student.answer(feed(model, samples))[0].reshape(32, -1), before, atol=1e-4)
    trained(student, samples)
    with torch.inference_mode():
        found = student.answer(feed(model, samples))[0].reshape(32, -1).numpy()
    np.testing.assert_allclose(found, asked(student.model(), samples), atol=1e-4)
    assert np.abs(found - before).max() > 0.01


def test_nothing_but_weights_changes() -> None:
    """Names, shapes and operators of the graph are those of before."""
    model = tiny_model(norm=True)
    student = Student(model, feed(model, tiny_samples(32)))
    trained(student, tiny_samples(32))
    before, after = Graph.view(model), Graph.view(student.model())
    assert [n.SerializeToString() for n in before.nodes] == [n.SerializeToString() for n in after.nodes]
    assert {n: a.shape for n, a in before.constants.items()} == {n: a.shape for n, a in after.constants.items()}


def test_connections_that_were_removed_stay_removed() -> None:
    """Every zero of the slimmed model is a zero of the trained one."""
    model = tiny_model()
    recipe = Recipe(steps=(Connections(amount=0.5), FEW))
    sparse = lwcore.apply(model, Recipe(steps=recipe.steps[:1])).model
    student = Student(sparse, feed(model, tiny_samples(32)))
    trained(student, tiny_samples(32))
    for name, array in Graph.view(sparse).constants.items():
        if array.ndim > 1:
            assert not Graph.view(student.model()).constants[name][array == 0].any()


@pytest.mark.parametrize("form", ["int8-static", "fp16", "int8-weights"])
def test_what_has_fewer_bits_already_is_refused_before_it_begins(form: str) -> None:
    """With a sentence that says where the training belongs."""
    recipe = Recipe(steps=(Precision(format=form), FEW))
    with pytest.raises(SlimError, match=r"expected float32 weights, found .* before the step that reduces"):
        lwcore.apply(tiny_model(), recipe, tiny_samples())


def test_an_operator_that_cannot_be_trained_is_named() -> None:
    """A model that the bridge does not know is refused by the name of its layer."""
    net = Net(x=["batch", 4])
    unknown = net.model(net("Bernoulli", net("MatMul", "x", (4, 4))))
    with pytest.raises(SlimError, match=r"cannot be trained\. Layer 'Bernoulli_1'"):
        check_trainable(unknown)


# -- what is learnt ------------------------------------------------------------------------------------------------


def test_a_spoilt_student_comes_nearer_to_its_teacher() -> None:
    """Without labels, on samples that it never saw."""
    teacher, samples = tiny_model(), tiny_samples(300, labelled=False)
    student, unseen = spoilt(teacher), tiny_samples(100, seed=9)
    taught = teach(student, Distill(steps=60, rate=0.02), samples, teacher)
    wanted = asked(teacher, unseen).argmax(1)
    before, after = ((asked(m, unseen).argmax(1) == wanted).mean() for m in (student, taught.student.model))
    assert after > before
    assert taught.student.score == max(point.score for point in taught.student.curve)
    assert taught.student.curve[-1].steps == 60


def test_a_step_by_steps_gives_the_same_bytes_every_time() -> None:
    """And another seed gives others."""
    teacher, samples = tiny_model(), tiny_samples()
    found = [teach(spoilt(teacher), Distill(steps=4, rate=0.05), samples, teacher, seed).student for seed in (0, 0, 1)]
    last = [[p.loss for p in one.curve] for one in found]
    assert found[0].model.data == found[1].model.data
    assert last[0] == last[1] != last[2]


def test_the_control_has_the_same_start_and_the_same_number_of_steps() -> None:
    """Both curves begin with one score and end after as many batches."""
    teacher = tiny_model()
    taught = teach(spoilt(teacher), Distill(steps=5), tiny_samples(), teacher, control=True)
    assert taught.control is not None
    ours, theirs = taught.student.curve, taught.control.curve
    assert ours[0].score == theirs[0].score
    assert ours[-1].steps == theirs[-1].steps == 5


def test_minutes_are_counted_for_each_by_a_clock_that_stands_still_for_the_other() -> None:
    """With a clock that ticks once a look-up, both have the same time, whoever is slower."""
    ticks = itertools.count()
    clock = training.Clock(lambda: float(next(ticks)))
    clock.pause()
    spent = clock._spent
    for _ in range(10):
        next(ticks)
    clock.resume()
    assert clock.now() == spent + 1


def test_without_labels_there_is_no_control_and_a_word_about_it() -> None:
    """And labels alone cannot be asked for."""
    teacher, samples = tiny_model(), tiny_samples(labelled=False)
    taught = teach(spoilt(teacher), FEW, samples, teacher, control=True)
    assert taught.control is None
    assert NO_LABELS in taught.notes
    with pytest.raises(SlimError, match="found neither"):
        teach(teacher, Distill(steps=3, labels=1.0), samples, teacher)


def test_a_teacher_of_other_classes_is_refused() -> None:
    """By their number and by their names."""
    teacher = tiny_model()
    renamed = dataclasses.replace(teacher, card=dataclasses.replace(teacher.card, classes=("a", "b", "c")))
    with pytest.raises(SlimError, match="with the student's classes"):
        teach(tiny_model(), FEW, tiny_samples(), renamed)
    with pytest.raises(SlimError, match="at least 20 samples"):
        teach(tiny_model(), FEW, tiny_samples(8), teacher)


def test_views_are_the_same_again_and_other_samples_are_left_alone() -> None:
    """Pictures are moved by the seed; arrays of other kinds are not."""
    samples = tiny_samples(6)
    first, again, other = (views.moved(samples, 0, number, True).pixels for number in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == samples.pixels.shape
    numbers = SampleSet(name="n", arrays={"x": np.zeros((6, 2), np.float32)})
    assert views.moved(numbers, 0, 0, True) is numbers
    assert views.count(numbers) == 1


def test_the_teacher_is_asked_about_every_sample_of_a_view_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is wanted; small pictures have as many views as there are shifts kept, and then they come again."""
    course, counts = Course(tiny_samples(), tiny_model(), tiny_model(), 0), list[int]()
    ask = course.ask
    monkeypatch.setattr(course, "ask", lambda samples: counts.append(len(samples)) or ask(samples))
    course.flips  # noqa: B018 - it asks about mirrored pictures
    counts.clear()
    wanted = ask(course.view(0))[0]
    for index in (np.array([3, 1, 8]), np.array([8, 2]), np.array([1, 2, 3])):
        np.testing.assert_allclose(course.said(0, index)[0], wanted[index], atol=1e-5)
    assert counts == [3, 1]
    for epoch in range(3 * views.VIEWS):
        course.said(epoch, np.arange(len(course.train)))
    assert sum(counts) == views.VIEWS * len(course.train)


def test_a_file_that_fixes_its_batch_is_trained_in_that_batch() -> None:
    """And can be run as before."""
    teacher = tiny_model(batch=4)
    taught = teach(spoilt(teacher), Distill(steps=6, rate=0.02), tiny_samples(), teacher, control=True)
    assert Graph.view(taught.student.model).shape("x") == (4, 1, 8, 8)
    assert asked(taught.student.model, tiny_samples()).shape == (60, 3)


# -- transformers --------------------------------------------------------------------------------------------------


def transformer(width: int, heads: int, layers: int, tokens: int = 6) -> Model:
    """A small encoder as exporters write it: attention and residual sums, the mean of all tokens classified."""
    net = Net(x=["batch", tokens, 5])
    x = net("MatMul", "x", (5, width))
    for _ in range(layers):
        parts = []
        for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
            part = net("Reshape", net("MatMul", x, (width, width)), [0, tokens, heads, width // heads])
            parts.append(net("Transpose", part, perm=perm))
        scores = net("Div", net("MatMul", parts[0], parts[1]), np.array(2.0, np.float32))
        mixed = net("MatMul", net("Softmax", scores, axis=-1), parts[2])
        merged = net("Reshape", net("Transpose", mixed, perm=[0, 2, 1, 3]), [0, tokens, width])
        x = net("Add", x, net("MatMul", merged, (width, width)))
    y = net("MatMul", net("ReduceMean", x, axes=[1], keepdims=0), (width, 3))
    return dataclasses.replace(net.model(y), card=Card(task="generic"))


def test_hidden_states_and_attention_are_found_by_structure() -> None:
    """One hidden state before every attention and one after the last, in order."""
    graph = Graph.view(transformer(12, 3, 2))
    layers = find_layers(graph)
    assert layers is not None
    assert len(layers.scores) == 2
    assert [graph.shapes[name] for name in layers.hidden] == [(1, 6, 12)] * 3
    made = graph.producers()
    assert sorted(layers.hidden, key=lambda name: made[name]) == list(layers.hidden)
    assert find_layers(Graph.view(tiny_model())) is None


def test_a_thinner_and_shallower_student_is_paired_at_the_same_depth() -> None:
    """Layers 0, 1 of the student with 0, 2 and the last of the teacher's, widths brought together."""
    student, teacher = transformer(6, 3, 1), transformer(12, 3, 2)
    inner, layers = pair_up(student, teacher), find_layers(Graph.view(teacher))
    assert inner is not None
    assert layers is not None
    assert inner._of_teacher == (layers.hidden[0], layers.hidden[2], layers.scores[1])
    assert [p.shape for p in inner.parameters()] == [(12, 6), (12, 6)]
    assert pair_up(tiny_model(), teacher) is None


def test_inner_losses_bring_hidden_states_nearer() -> None:
    """Numbers, not classes, are taught here, and the curve's score is their cosine."""
    teacher = transformer(12, 3, 1)
    samples = SampleSet(name="n", arrays={"x": np.random.default_rng(0).standard_normal((80, 6, 5), np.float32)})
    taught = teach(spoilt(teacher), Distill(steps=40, inner=1.0, rate=0.01), samples, teacher)
    losses = [point.loss for point in taught.student.curve[1:]]
    assert losses[-1] < losses[0]
    assert taught.student.score > taught.student.curve[0].score


def test_a_transformer_that_lost_heads_and_words_learns_from_the_whole_one() -> None:
    """Texts are read by each through its own tokenizer; hidden states and attention are taught, too."""
    from lwcore.recipe import Heads, Vocabulary
    from tests.texts import classifier, texts

    model, samples = classifier(), texts()
    while len(samples) < 40:
        samples = samples.pick(np.arange(2 * len(samples)) % len(samples))
    recipe = Recipe(steps=(Heads(amount=0.5), Vocabulary(), Distill(steps=12, inner=1.0, rate=0.01)))
    seen: list[Taught] = []
    lessons = Lessons(watch=lambda position, taught, finished: seen.append(taught))
    slim = lwcore.apply(model, recipe, samples, lessons=lessons)
    losses = [point.loss for point in seen[-1].student.curve[1:]]
    assert losses[-1] < losses[0]
    assert seen[-1].notes == ()
    assert slim.model.files != model.files


def test_something_is_learnt_however_little_time_there_is() -> None:
    """What is made ready first is not taken off the minutes, and a slow machine takes a step all the same."""
    model, samples, hours = tiny_model(norm=True), tiny_samples(64), itertools.count(0.0, 3600.0)
    taught = teach(model, Distill(minutes=0.1), samples, model, seconds=lambda: next(hours))
    assert taught.student.curve[-1].steps == 1


# -- int8 ----------------------------------------------------------------------------------------------------------


def test_a_student_that_rounds_answers_as_the_int8_file_does() -> None:
    """The same ranges, scales and places as those of the file that is written."""
    model = int8_form(lwcore.load("fashion-squeezenet"))
    samples = lwcore.load_samples("fashion-calibration", model, limit=48)
    told = Precision(format="int8-static", variant="u8s8-reduced")
    rounding = Rounding(model, told, samples, 0)
    student = Student(model, feed(model, samples), renormalise=False)
    rounding.put_on(student)
    with torch.inference_mode():
        found = student.answer(feed(model, samples))[0].reshape(48, -1).numpy()
    from lwcore.slimming.precision.ranges import activation_ranges

    file = Quantizer(model=model, ranges=activation_ranges(model, samples, "minmax"), variant=told.variant).data()
    int8, exact = (logits(runtime.session(data), model, samples) for data in (file, model.data))
    assert np.abs(found - int8).mean() < 0.5 * np.abs(exact - int8).mean()


def test_training_for_int8_learns_in_floats_first_and_is_judged_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look scores what the written file would answer; from a share of the training on it learns rounded."""
    made: list[Rounding] = []
    monkeypatch.setattr(Rounding, "put_on", _counted(made, Rounding.put_on))
    model, samples = tiny_model(norm=True), tiny_samples(64)
    teach(model, Distill(steps=8, int8=True), samples, model)
    assert training.ROUNDS_FROM == 0.6
    # The start and the looks at 2, 4 and 6 of 8 steps are judged on rounded twins; at 6 the student itself begins.
    assert len(made) == 5


def _counted(made: list[Rounding], put_on: Callable[[Rounding, Student], None]) -> Callable[[Rounding, Student], None]:
    def counting(self: Rounding, student: Student) -> None:
        made.append(self)
        put_on(self, student)

    return counting


def test_training_for_int8_ends_in_the_form_that_int8_starts_from() -> None:
    """Plan and result agree, and static int8 follows."""
    recipe = Recipe(steps=(Distill(steps=3, int8=True), Precision(format="int8-static")))
    model, samples = tiny_model(norm=True), tiny_samples()
    slim = lwcore.apply(model, recipe, samples)
    assert lwcore.plan(model, recipe).after.params == slim.after.params
    assert any(node.op_type == "QuantizeLinear" for node in Graph.view(slim.model).nodes)
