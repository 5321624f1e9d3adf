"""The store: what goes in comes out, damaged counts as missing, nothing but a fingerprint becomes a path."""

import dataclasses
import errno
import io
import os
import subprocess
import sys

import numpy as np
import pytest

from lwcore.errors import ModelError, SampleError, StoreError
from lwcore.model import Card, InputSpec, Model
from lwcore.samples import SampleSet
from lwcore.store import Store, digest, is_fingerprint


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_a_model_comes_back_equal(store):
    model = Model(
        data=b"bytes\nwith\nlines",
        card=Card(name="m", classes=("a", "b"), input=InputSpec(size=(8, 8))),
        notes=("said",),
    )
    assert store.model(store.put_model(model)) == model


def test_the_same_bytes_with_another_card_are_another_model(store):
    model = Model(data=b"bytes")
    other = dataclasses.replace(model, card=Card(name="other"))
    assert store.put_model(model) != store.put_model(other)
    assert store.put_model(model) == store.put_model(Model(data=b"bytes"))


@pytest.mark.parametrize("labels", [None, np.array([1, 0, 2])])
def test_samples_come_back_equal(store, labels):
    pixels = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4, 1)
    samples = SampleSet(name="s", arrays={"pixels": pixels}, labels=labels, names=("a", "b", "ü"), notes=("n",))
    back = store.samples(store.put_samples(samples))
    assert back.fingerprint == samples.fingerprint
    assert (back.name, back.names, back.notes) == (samples.name, samples.names, samples.notes)


def test_results_and_arrays_come_back_and_unknown_ones_are_none(store):
    store.put_result(digest(b"r"), {"a": [1, None, "ü"]})
    assert store.get_result(digest(b"r")) == {"a": [1, None, "ü"]}
    store.put_arrays(digest(b"x"), {"logits": np.ones((2, 3), np.float32)})
    assert store.arrays(digest(b"x"))["logits"].shape == (2, 3)
    assert store.get_result(digest(b"unknown")) is None
    assert store.arrays(digest(b"unknown")) is None


def test_a_result_whose_model_is_gone_counts_as_missing(store):
    key = store.put_model(Model(data=b"m"))
    store.put_result(digest(b"r"), {"model": key})
    assert store.get_result(digest(b"r")) == {"model": key}
    store._path("models", key).unlink()
    assert store.get_result(digest(b"r")) is None


def test_a_damaged_file_counts_as_missing(store):
    store.put_result(digest(b"r"), {"a": 1})
    path = store._path("results", digest(b"r"))
    for damaged in (b"", path.read_bytes()[:-1], path.read_bytes()[:-1] + b"?"):
        path.write_bytes(damaged)
        assert store.get_result(digest(b"r")) is None
        assert not path.exists()


@pytest.mark.parametrize("key", ["../../etc/passwd", "", "A" * 64, "a" * 63, "a" * 64 + "\n", 7, None])
def test_only_fingerprints_become_paths(store, key):
    assert not is_fingerprint(key)
    with pytest.raises(ModelError, match="fingerprint"):
        store.model(key)
    with pytest.raises(ModelError):
        store.get_result(key)


def test_a_missing_model_or_sample_set_says_what_to_do(store):
    with pytest.raises(ModelError, match="upload the model again"):
        store.model("0" * 64)
    with pytest.raises(SampleError, match="upload the samples again"):
        store.samples("0" * 64)


def test_the_longest_unused_files_go_first(tmp_path):
    store = Store(tmp_path, limit_mb=1)
    keys = [store.put_upload(bytes([i]) * 450_000) for i in range(2)]
    for age, key in zip((50, 100), keys, strict=True):
        path = store._path("uploads", key)
        os.utime(path, (path.stat().st_mtime - age, path.stat().st_mtime - age))
    third = store.put_upload(b"z" * 450_000)
    assert store.upload(keys[0])
    assert store.upload(third)
    with pytest.raises(ModelError, match="Upload it again"):
        store.upload(keys[1])


def test_several_processes_write_the_same_file_without_harm(tmp_path):
    code = (
        "import sys; from lwcore.store import Store, digest; s = Store(sys.argv[1])\n"
        "for i in range(200): s.put_result(digest(b'r'), {'a': 'x' * 10_000}); assert s.get_result(digest(b'r'))"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [p.wait(timeout=120) for p in running] == [0, 0]


def test_what_is_pinned_stays_whatever_its_age(tmp_path):
    store = Store(tmp_path, limit_mb=1)
    keys = [store.put_upload(bytes([i]) * 450_000) for i in range(2)]
    store.pin(keys[0])
    for key in keys:
        os.utime(store._path("uploads", key), (0, 0))
    store.put_upload(b"z" * 450_000)
    assert store.upload(keys[0])
    with pytest.raises(ModelError):
        store.upload(keys[1])
    store.unpin(keys[0])
    os.utime(store._path("uploads", keys[0]), (0, 0))
    store.put_upload(b"y" * 450_000)
    with pytest.raises(ModelError):
        store.upload(keys[0])


def test_pins_become_what_the_database_says_but_for_fresh_ones(store):
    old, fresh, said = (digest(bytes([i])) for i in range(3))
    store.pin(old)
    store.pin(fresh)
    os.utime(store._path("pins", old), (0, 0))
    store.set_pins(frozenset({said}))
    assert store._pinned() == {fresh, said}


def test_what_a_killed_writer_left_goes_with_the_next_sweep(store):
    path = store._path("models", store.put_model(Model(data=b"m")))
    left, new = path.parent / ".part-old", path.parent / ".part-new"
    for part in (left, new):
        part.write_bytes(b"half")
    os.utime(left, (0, 0))
    assert store.sweep() == 1
    assert (left.exists(), new.exists(), path.exists()) == (False, True, True)


def test_a_full_disk_is_a_sentence(store, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lwcore.store._put", full)
    with pytest.raises(StoreError, match="disk of this server is full"):
        store.put_upload(b"x")


def test_a_model_under_a_name_that_its_content_does_not_give_is_refused_and_removed(store):
    """What a job that ran foreign code could add before somebody uploads the model of that fingerprint."""
    wanted, other = Model(data=b"wanted", files={"vocab": b"x"}), Model(data=b"other")
    key, path = store.put_model(wanted), store.home / "models"
    right, wrong = (path / k[:2] / k for k in (key, store.put_model(other)))
    right.write_bytes(wrong.read_bytes())  # whole, as its first line says
    with pytest.raises(ModelError, match="again"):
        store.model(key)
    assert not right.exists()
    assert store.put_model(wanted) == key
    assert store.model(key) == wanted


@pytest.mark.parametrize(
    "body", [b"", b"{}\n", b"[]\nx", b'{"files": {"a": "b"}}\nx', b'{"files": {"a": 1.5}}\nx', b"[" * 200_000 + b"\n"]
)
def test_what_is_no_model_at_all_is_refused(store, body):
    key = digest(body)
    store._write("models", key, body)
    assert store.raw("models", key) is None


def test_samples_under_a_wrong_name_are_refused_and_removed(store):
    first, second = (SampleSet(name="s", arrays={"pixels": np.full((2, 3), i)}) for i in (1, 2))
    key, other = store.put_samples(first), store.put_samples(second)
    file, wrong = (store.home / "samples" / k[:2] / k for k in (key, other))
    file.write_bytes(wrong.read_bytes())
    for _ in range(2):
        with pytest.raises(SampleError, match="again"):
            store.samples(key)
    assert not file.exists()
    store.put_arrays(key, {"about": np.frombuffer(b"[]", np.uint8)}, folder="samples")
    with pytest.raises(SampleError, match="again"):
        store.samples(key)


def _squeezed() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, about=np.zeros(1_000_000, np.uint8))
    return buffer.getvalue()


@pytest.mark.parametrize("body", [b"", b"text", b"PK\x03\x04text", b"\x93NUMPY\x01\x00", _squeezed()])
def test_what_is_no_sample_set_at_all_is_refused_and_removed(store, body):
    """Else nobody could ever upload the samples of that name: jobs may not write over what lies there."""
    key = digest(body)
    store._write("samples", key, body)
    with pytest.raises(SampleError, match="again"):
        store.samples(key)
    assert not store.has_samples(key)
