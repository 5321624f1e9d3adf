"""Clips: made, read from files, fed, slimmed; and the same network at other input sizes."""

from __future__ import annotations

import dataclasses
import io
import zipfile

import numpy as np
import pytest

import lwcore
from lwcore import Budget, Channels, LowRank, Precision, Recipe
from lwcore.analysis.coupling import couple
from lwcore.answers import example, feed, logits
from lwcore.domains import domain, load_samples
from lwcore.errors import EvaluationError, ModelError, SampleError
from lwcore.evaluation.inputs import what_if
from lwcore.graph import Graph
from lwcore.model import Card, ClipSpec, Model
from lwcore.resizing import refitted, resized
from lwcore.resizing import settings as input_settings
from lwcore.runtime import run, session
from lwcore.samples import SampleSet, clips
from lwcore.samples.clips import read_clip, spread
from lwcore.samples.motion import CLASSES, make_clips
from lwcore.settings import SETTINGS, Settings
from lwcore.slimming.rewrite import cut
from lwcore.sources.upload import read_upload
from tests.clips import SPEC, encoded, tiny_clips, tiny_video
from tests.helpers import masked

COLOUR = ClipSpec(size=(24, 32), frames=8, mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.fixture(scope="module")
def network() -> Model:
    return tiny_video()


@pytest.fixture(scope="module")
def samples() -> SampleSet:
    return tiny_clips()


def _white(clip: np.ndarray) -> list[int]:
    """How far the white area reaches in every frame."""
    return [int(n) for n in (clip[:, clip.shape[1] // 2, :, 0] > 128).sum(axis=1)]


# -- made clips ----------------------------------------------------------------------------------------------------


def _centres(clips_: np.ndarray) -> np.ndarray:
    """Centre of what is brighter than the noise, (n, T, 2): down and right."""
    bright = np.where(clips_[..., 0] > 110, clips_[..., 0].astype(float), 0.0)
    place = np.arange(clips_.shape[2])
    total = bright.sum(axis=(2, 3)) + 1e-9
    return np.stack([(bright.sum(axis=3) @ place) / total, (bright.sum(axis=2) @ place) / total], axis=-1)


def test_made_clips_are_the_same_for_the_same_seed_and_move_as_their_class_says() -> None:
    square = np.zeros((1, 28, 28), np.uint8)
    square[:, 8:20, 8:20] = 255
    labels = np.repeat(np.arange(len(CLASSES)), 8)
    images = square.repeat(len(labels), axis=0)
    made = make_clips(images, labels, seed=5)
    np.testing.assert_array_equal(made, make_clips(images, labels, seed=5))
    centres = _centres(made)
    moved = (centres[:, 4:].mean(axis=1) - centres[:, :4].mean(axis=1)).reshape(len(CLASSES), 8, 2).mean(axis=1)
    left, right, up, down = moved[:4]
    assert left[1] < -1 < 1 < right[1]
    assert up[0] < -1 < 1 < down[0]
    assert np.abs(moved[CLASSES.index("stands still")]).max() < 0.7


def test_the_built_in_sets_of_clips_are_what_their_entries_say() -> None:
    card = Card(task="video-classification", classes=CLASSES, input=SPEC)
    few = load_samples("motion-few", card)
    assert few.pixels.shape == (8, 4, 16, 16, 1)
    assert sorted(few.labels) == list(range(8))
    other = load_samples("motion-few", dataclasses.replace(card, classes=("a", "b")))
    assert other.labels is None
    assert "not classes of this model" in other.notes[0]


# -- files of clips ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "codec"), [("mp4", "mpeg4"), ("mp4", "libx264"), ("webm", "libvpx-vp9"), ("gif", "gif")]
)
def test_a_clip_gives_its_frames_evenly_spread(kind: str, codec: str) -> None:
    clip = read_clip(encoded(20, kind, codec), COLOUR)
    assert clip.shape == (8, 24, 32, 3)
    expected = [32 * (index + 1) / 20 for index in spread(20, 8)]
    np.testing.assert_allclose(_white(clip), expected, atol=1.5)


def test_a_clip_with_fewer_frames_than_wanted_repeats_some() -> None:
    assert read_clip(encoded(3), COLOUR).shape[0] == 8


def test_other_files_and_playlists_are_refused_before_any_decoder_sees_them(monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    monkeypatch.setattr(av, "open", lambda *a, **k: pytest.fail("a decoder was asked"))
    for data in (b"#EXTM3U\nfile:///etc/passwd", b"ffconcat version 1.0\nfile /etc/passwd", b"", b"\x89PNG" * 9):
        with pytest.raises(SampleError, match="another kind of file"):
            read_clip(data, COLOUR)


def test_damaged_long_and_large_clips_are_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(20)
    for cut_at in (40, len(data) // 2):
        with pytest.raises(SampleError, match="expected"):
            read_clip(data[:cut_at], COLOUR)
    for limit, words in (("clip_frames", "at most 5 frames"), ("clip_edge", "at most 5 pixels")):
        monkeypatch.setattr(clips, "SETTINGS", dataclasses.replace(SETTINGS, **{limit: 5}))
        with pytest.raises(SampleError, match=words):
            read_clip(data, COLOUR)
    monkeypatch.setattr(clips, "SETTINGS", Settings(clip_seconds=1))
    with pytest.raises(SampleError, match="at most 1 seconds"):
        read_clip(data, COLOUR)


def test_a_zip_of_class_folders_is_labelled_and_a_bad_clip_is_named(network: Model) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("set/left/a.mp4", encoded(6))
        archive.writestr("set/still/b.gif", encoded(6, "gif", "gif"))
        archive.writestr("set/right/c.mp4", b"no clip")
    found = domain(network).read(buffer.getvalue(), network, "mine", lambda share, words: None)
    assert found.pixels.shape == (2, 4, 16, 16, 1)
    assert list(found.labels) == [0, 2]
    assert any("right/c.mp4" in note for note in found.notes)


def test_a_single_clip_is_a_set_of_one(network: Model) -> None:
    kind = domain(network)
    assert len(kind.read(encoded(6), network, "one", lambda share, words: None)) == 1
    with pytest.raises(SampleError, match="cannot be used"):
        kind.read(b"hello", network, "one", lambda share, words: None)


# -- what a model and a person see ---------------------------------------------------------------------------------


def test_clips_are_fed_scaled_in_the_order_of_axes_that_the_card_names(network: Model, samples: SampleSet) -> None:
    fed = feed(network, samples, 0, 3)["x"]
    assert fed.shape == (3, 1, 4, 16, 16)
    np.testing.assert_allclose(fed[1, 0, 2], (samples.pixels[1, 2, ..., 0] / 255 - 0.5) / 0.5, atol=1e-6)
    last = dataclasses.replace(network, card=Card.from_json({"input": {"layout": "NTHWC"}}, network.card))
    np.testing.assert_array_equal(domain(last).feed(samples, last, 0, 3)["x"], fed.transpose(0, 2, 3, 4, 1))


def test_people_see_a_film_strip(network: Model, samples: SampleSet) -> None:
    strip = domain(network).show(samples, 0)
    assert strip.shape == (16, 4 * 16 + 3 * 2, 1)
    np.testing.assert_array_equal(strip[:, 18:34], samples.pixels[0, 1])


def test_an_uploaded_network_for_clips_is_known_by_its_shape(network: Model) -> None:
    card = read_upload(network.data, "clips.onnx").card
    assert (card.task, card.input.frames, card.input.size, card.input.layout) == (
        "video-classification", 4, (16, 16), "NCTHW",
    )  # fmt: skip


# -- slimming ------------------------------------------------------------------------------------------------------


def _slimmed(network: Model, samples: SampleSet, *steps: object) -> tuple[lwcore.Slimmed, float]:
    """What a recipe leaves, and by what share of their variance its outputs moved."""
    done = lwcore.apply(network, Recipe(steps=steps), samples=samples)
    before, after = (logits(session(m.data), m, samples) for m in (network, done.model))
    return done, float(((after - before) ** 2).mean() / before.var(axis=0).mean())


def test_a_cut_video_network_equals_the_original_with_its_columns_zeroed(network: Model) -> None:
    coupling, rng = couple(network), np.random.default_rng(3)
    keep = np.ones(coupling.units, dtype=bool)
    for group in coupling.groups:
        keep[rng.permutation(group.units)[: group.channels // 2]] = False
    graph = Graph.of(network)
    batch = example(graph, seed=1)
    slim, twin = (
        run(session(g.serialize()), batch)[0] for g in (cut(graph, coupling, keep), masked(graph, coupling, keep))
    )
    np.testing.assert_allclose(slim, twin, rtol=1e-4, atol=1e-5)


def test_compensation_brings_a_pruned_video_network_nearer(network: Model, samples: SampleSet) -> None:
    plain, lost = _slimmed(network, samples, Channels(amount=0.5, compensate="none"))
    fitted, moved = _slimmed(network, samples, Channels(amount=0.5))
    assert fitted.after.macs == plain.after.macs < 0.5 * plain.before.macs
    assert lwcore.plan(network, fitted.recipe).after.macs == fitted.after.macs
    assert moved < 0.2 * lost


def test_a_layer_that_is_separable_in_time_and_space_is_split_so(network: Model, samples: SampleSet) -> None:
    graph, rng = Graph.of(network), np.random.default_rng(0)
    space, time = rng.standard_normal((6, 16, 1, 3, 3)), rng.standard_normal((16, 6, 3, 1, 1))
    graph.set_constant("two.w", np.einsum("rixyz,orabc->oiayz", space, time).astype(np.float32) / 20)
    separable = dataclasses.replace(network, data=graph.serialize())
    done, moved = _slimmed(separable, samples.take(32), LowRank(energy=0.9999))
    kernels = [n.input[1] for n in Graph.view(done.model).nodes if n.op_type == "Conv" and n.name.startswith("two")]
    shapes = {Graph.view(done.model).constants[name].shape[2:] for name in kernels}
    assert shapes == {(1, 3, 3), (3, 1, 1)}
    assert done.after.macs < done.before.macs
    assert moved < 0.01


def test_low_rank_saves_work_in_three_dimensions(network: Model, samples: SampleSet) -> None:
    done, moved = _slimmed(network, samples.take(32), LowRank(budget=Budget(keep=0.7)))
    assert done.after.macs <= 0.7 * done.before.macs
    assert moved < 0.5


def test_int8_keeps_a_video_network_near_and_quarters_it(network: Model, samples: SampleSet) -> None:
    done, moved = _slimmed(network, samples.take(32), Precision(format="int8-static"))
    assert done.after.size_bytes < 0.35 * done.before.size_bytes
    assert moved < 0.02
    pooled = [n.op_type for n in Graph.view(done.model).nodes]
    assert "GlobalAveragePool" in pooled


# -- other input sizes ---------------------------------------------------------------------------------------------


def test_a_resized_network_computes_what_the_original_does_on_that_size(network: Model, samples: SampleSet) -> None:
    smaller = resized(network, dataclasses.replace(SPEC, size=(12, 12), frames=2))
    assert Graph.view(smaller).shape("x") == (1, 1, 2, 12, 12)
    fitted = refitted(samples, smaller.card.pictures)
    assert fitted.pixels.shape[1:] == (2, 12, 12, 1)
    np.testing.assert_array_equal(refitted(samples, SPEC).pixels, samples.pixels)
    assert logits(session(smaller.data), smaller, fitted).shape == (len(samples), 3)


def test_what_if_measures_every_size_with_fewer_macs_each(network: Model, samples: SampleSet) -> None:
    found = what_if(network, samples.take(24))
    assert [(s.frames, s.size) for s in found.settings] == [(s.frames, s.size) for s in input_settings(network)]
    own, *others = found.settings
    assert own.quality == 1.0  # without labels: as often as the network itself
    assert all(s.macs < own.macs and 0 <= s.low <= s.quality <= s.high <= 1 for s in others)
    assert [lwcore.cost(m).macs for m in found.models] == [s.macs for s in found.settings]


def test_a_network_that_holds_its_size_inside_is_refused() -> None:
    model = lwcore.load("fashion-resnet20")
    graph = Graph.of(model)
    pool = next(n for n in graph.nodes if n.op_type in ("ReduceMean", "GlobalAveragePool"))
    edge = graph.shape(pool.input[0])[2]
    from onnx import helper

    fixed = helper.make_node("AveragePool", pool.input[:1], pool.output, name=pool.name, kernel_shape=[edge, edge])
    graph.nodes[graph.nodes.index(pool)] = fixed
    if len(graph.shape(pool.output[0])) != 4:
        pytest.skip("the pool of this export drops its axes")
    held = dataclasses.replace(model, data=graph.serialize())
    with pytest.raises(ModelError, match="holds other sizes inside"):
        resized(held, dataclasses.replace(model.card.pictures, size=(12, 12)))
    with pytest.raises(EvaluationError, match="built for one size"):
        what_if(held, load_samples("fashion-test", held, 4))


# -- torchvision ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_torchvisions_video_networks_have_the_published_parameters_and_macs() -> None:
    model = lwcore.load("torchvision:r3d_18:none")
    total = lwcore.cost(model)
    assert total.params == 33_371_472
    assert round(total.macs / 1e9, 3) == 40.697
    assert (model.card.task, model.card.input.frames) == ("video-classification", 16)
