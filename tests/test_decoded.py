"""What goes from the worker that reads weights to the one that builds from them: the same arrays, by any name."""

from __future__ import annotations

import io
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from lwcore.errors import ModelError
from lwcore.jobs.tasks import run_task
from lwcore.progress import silent
from lwcore.sources import decoded
from lwcore.sources.decoded import Decoded
from lwcore.store import Store
from tests.hostile.files import MODELS
from tests.tiny import tiny_model

NAMES = ("b", "a", "a.npy", "about", "../../x", "tensor.0", "名", "", 'q"\\\n')


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.mark.parametrize("ordered", [True, False])
def test_it_comes_back_as_it_went_in(store: Store, ordered: bool) -> None:
    """Order, names that look like paths or like our own, types, shapes, and texts."""
    rng = np.random.default_rng(0)
    shapes = ((), (0,), (3,), (2, 3), (1, 2, 3, 4), (5,), (1,), (2,), (1,))
    kinds = (np.int64, np.float32, np.float64, np.float32, np.uint8, np.bool_, np.int8, np.float32, np.float32)
    state = {
        name: np.asarray(rng.integers(0, 2, shape)).astype(kind)
        for name, shape, kind in zip(NAMES, shapes, kinds, strict=True)
    }
    given = Decoded(state=state, ordered=ordered, files={"config.json": b"{}", "about": b"", "x": bytes(range(256))})
    found = decoded.get(store, decoded.put(store, given))
    assert list(found.state) == list(state)
    for name, array in state.items():
        assert found.state[name].dtype == array.dtype
        assert np.array_equal(found.state[name], array)
    assert (found.ordered, found.files) == (ordered, given.files)


def test_weights_are_read_by_one_task_and_built_by_another(store: Store) -> None:
    """The first refuses what is hostile; the second never sees the file."""
    upload = store.put_upload(MODELS["payload.pt"]())
    with pytest.raises(ModelError, match="state dict"):
        run_task("decode", {"upload": upload}, store, silent)
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer)
    found = run_task("decode", {"upload": store.put_upload(buffer.getvalue())}, store, silent)
    assert not found["encoder"]
    asked = {"decoded": found["decoded"], "name": "x", "architecture": "torchvision:squeezenet1_1"}
    with pytest.raises(ModelError, match="does not fit it by name"):
        run_task("build", asked, store, silent)
    assert decoded.get(store, found["decoded"])  # another architecture may be asked for


def test_what_was_built_from_is_removed_and_read_again_when_asked_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a model is built, and when a text encoder that brings its own configuration cannot be."""
    asked = {"upload": store.put_upload(save({"a": np.zeros(3, np.float32)}))}
    found = run_task("decode", asked, store, silent)
    store.put_result("1" * 64, found)
    monkeypatch.setattr("lwcore.sources.state.build", lambda *_: tiny_model())
    for arguments in ({"architecture": "torchvision:squeezenet1_1"}, {}):
        assert run_task("decode", asked, store, silent) == found
        assert store.get_result("1" * 64) == found
        with nullcontext() if arguments else pytest.raises(ModelError, match="config"):
            run_task("build", {"decoded": found["decoded"], "name": "x", **arguments}, store, silent)
        assert store.get_result("1" * 64) is None


def test_what_was_swept_away_is_read_again(store: Store) -> None:
    """A result that names it counts as missing, and building from it is a sentence."""
    key = decoded.put(store, Decoded(state={"a": np.ones(1)}))
    store.put_result("1" * 64, {"decoded": key})
    assert store.get_result("1" * 64)
    store.drop_arrays(key, "decoded")
    assert store.get_result("1" * 64) is None
    with pytest.raises(ModelError, match="Upload it again"):
        decoded.get(store, key)


def test_what_does_not_give_its_name_is_refused_and_removed(store: Store) -> None:
    """What a job that ran foreign code could add before somebody uploads the file that decodes to it."""
    key = decoded.put(store, Decoded(state={"a": np.ones(1), "empty": np.ones((0, 2)), "scalar": np.array(1.0)}))
    assert decoded.get(store, key).state["scalar"] == 1
    arrays = store.arrays(key, "decoded")
    assert arrays is not None
    store.put_arrays(key, {**arrays, "tensor.0": np.zeros(1)}, folder="decoded")
    with pytest.raises(ModelError, match="Upload it again"):
        decoded.get(store, key)
    assert store.arrays(key, "decoded") is None
