"""Files of weights: read exactly, without running anything; and fitted to a structure by name or by order and shape."""

from __future__ import annotations

import collections
import io
import json
import pickle  # noqa: TID251 - to write the files that must never be unpickled
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from lwcore.errors import ModelError
from lwcore.model import Card
from lwcore.sources import state
from lwcore.sources.export import to_onnx
from lwcore.sources.families import Architecture
from lwcore.sources.state import Difference, fit, load_state
from lwcore.sources.weights import is_weights, read_weights


def network(classes: int | None = None) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, classes or 6),
    )


def saved(value: object, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped, pickle_module=pickle)
    return buffer.getvalue()


def same(read: dict[str, np.ndarray], wanted: dict[str, torch.Tensor]) -> bool:
    return list(read) == list(wanted) and all(
        np.array_equal(read[k], v.float().numpy() if v.is_floating_point() else v.numpy()) and read[k].shape == v.shape
        for k, v in wanted.items()
    )


WRAPPED: dict[str, Callable[[dict], object]] = {
    "itself": lambda s: s,
    "a training checkpoint": lambda s: {"epoch": 3, "best": np.float64(0.5), "state_dict": s, "args": object},
    "parameters": lambda s: collections.OrderedDict(
        (k, nn.Parameter(v) if v.is_floating_point() else v) for k, v in s.items()
    ),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
@pytest.mark.parametrize("wrapped", WRAPPED)
def test_a_checkpoint_of_either_format_is_read_exactly(wrapped: str, zipped: bool) -> None:
    """Names, order, shapes and numbers are torch's."""
    wanted = network().state_dict()
    data = saved(WRAPPED[wrapped](wanted), zipped)
    assert is_weights(data)
    assert same(read_weights(data), wanted)


def test_views_and_half_precision_are_read_exactly() -> None:
    """Transposed, cut out, shared, empty, bfloat16 and float16 tensors."""
    big = torch.arange(24.0).reshape(4, 6)
    wanted = {
        "t": big.t(),
        "cut": big[1:3, ::2],
        "row": big[2],
        "again": big,
        "none": torch.zeros(0, 3),
        "one": big[0, 0],
    }
    wanted |= {"half": big.half(), "bf": big.bfloat16(), "count": torch.tensor(3), "flag": torch.tensor([True, False])}
    for zipped in (True, False):
        assert same(read_weights(saved(wanted, zipped)), wanted)


def test_safetensors_are_read_exactly() -> None:
    """All types that torch writes, half precision widened."""
    wanted = {
        "a": torch.randn(2, 3),
        "h": torch.randn(5).half(),
        "b": torch.randn(4, 1).bfloat16(),
        "i": torch.arange(3),
    }
    read = read_weights(save(wanted))  # which sorts them
    assert same({name: read[name] for name in wanted}, wanted)


# -- hostile ones --------------------------------------------------------------------------------------------------


class Payload:
    """Unpickling this touches a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
def test_a_payload_never_runs(tmp_path: Path, zipped: bool) -> None:
    """Alone it is refused; beside tensors it is a value that nobody looks at."""
    target = tmp_path / "ran"
    with pytest.raises(ModelError, match="state dict"):
        read_weights(saved({"x": Payload(target)}, zipped))
    beside = saved({"x": Payload(target), "w": torch.ones(2)}, zipped)
    assert list(read_weights(beside)) == ["w"]
    assert not target.exists()


def test_a_whole_module_is_refused_with_the_way_on() -> None:
    """The sentence names its class and the line that saves weights."""
    with pytest.raises(ModelError, match=r"class 'Sequential'.*torch\.save\(model\.state_dict"):
        read_weights(saved(network()))


def test_a_compressed_checkpoint_is_refused_before_anything_is_unpacked() -> None:
    """A deflated member may be a bomb; torch never writes one."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(network().state_dict()))) as old, zipfile.ZipFile(packed, "w", 8) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(ModelError, match="compressed"):
        read_weights(packed.getvalue())


def test_a_tensor_larger_than_its_file_is_refused() -> None:
    """Strides of zero make much of little."""
    with pytest.raises(ModelError, match="larger than the file"):
        read_weights(saved({"w": torch.zeros(1).expand(100_000, 100_000)}))


def safe(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(shape: list[int], start: int, stop: int, kind: str = "F32") -> dict[str, object]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (safe({f"t{i}": entry([0], 0, 0) for i in range(20_001)}), "header of at most|at most 20,000"),
        (safe(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32"}}', b"abcd"), "twice"),
        (safe({"a": entry([0, 2**62], 0, 0)}), "impossible shape"),
        (safe({"a": entry([-1], 0, 4)}, b"abcd"), "impossible shape"),
        (safe({"a": entry([2], 0, 4)}, b"abcd"), "does not fit its bytes"),
        (safe({"a": entry([1], 4, 8)}, b"abcd"), "does not fit its bytes"),
        (safe({"a": entry([1], 0, 4, "C64")}, b"abcd"), "Expected tensors of"),
        (safe({"a": entry([1], 0, 4)}, np.float32(np.nan).tobytes()), "not-a-number"),
        (safe(b'{"data_offsets"' + b"[" * 5000), "not JSON"),
        (safe({"a": {"data_offsets": "x"}}), "not described"),
    ],
)
def test_bad_safetensors_are_refused(data: bytes, words: str) -> None:
    """Each with its reason."""
    with pytest.raises(ModelError, match=words):
        read_weights(data)


SEEDS = [saved(network().state_dict(), True), saved(network().state_dict(), False), save(dict(network().state_dict()))]


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8),
    st.integers(0, 10**6),
)
def test_a_damaged_file_is_read_or_refused(seed: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    """Changed bytes and cut ends never raise anything but the one kind of error; what is read holds finite numbers."""
    data = bytearray(seed)
    for place, value in changes:
        data[place % min(len(data), 4000)] = value
    del data[max(1, cut % (4 * len(data))) :]
    try:
        found = read_weights(bytes(data))
    except ModelError:
        return
    assert all(np.isfinite(array).all() for array in found.values())


def test_a_checkpoint_whose_member_ends_too_soon_is_refused() -> None:
    """The directory of the zip claims more bytes than there are."""
    data = bytearray(saved(network().state_dict(), True))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
    last = max((m for m in members if "/data/" in m.filename), key=lambda m: m.header_offset)
    size = last.file_size + len(data) - sum(m.file_size for m in members)  # all parts together still fit the file
    entry = data.index(last.filename.encode(), data.index(b"PK\x01\x02")) - 46
    data[entry + 20 : entry + 28] = struct.pack("<II", size, size)  # packed and unpacked size
    with pytest.raises(ModelError, match="missing"):
        read_weights(bytes(data))


# -- fitting -------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    """An architecture of a few tensors, under a name of its own."""
    structure = Architecture(
        build=network, export=lambda made: to_onnx(made, (3, 8, 8)), card=Card(classes=tuple("abcdef"))
    )
    monkeypatch.setattr(state, "find_architecture", lambda ref: structure)
    return "timm:tiny"


def test_weights_fit_by_name(tiny: str) -> None:
    """Prefixes of wrappers do not count, nor do missing counters of batch norm."""
    weights = {f"module.{k}": v + 1 for k, v in network().state_dict().items() if "num_batches" not in k}
    model = load_state(saved({"model": weights}), "mine.pth", tiny)
    assert model.notes == ("The weights fit timm:tiny by name (8 tensors).",)
    assert (model.card.name, model.card.classes) == ("mine", tuple("abcdef"))
    stored = {i.name: i for i in model.proto.graph.initializer}
    np.testing.assert_array_equal(
        np.frombuffer(stored["5.bias"].raw_data, np.float32), weights["module.5.bias"].numpy()
    )


def test_weights_fit_by_order_and_shape(tiny: str) -> None:
    """Foreign names, the same network: the same file as by name."""
    weights = network().state_dict()
    foreign = {f"layer{i}": v for i, v in enumerate(weights.values())}
    model = load_state(saved(foreign), "x.pth", tiny)
    assert "by order and shape" in model.notes[0]
    assert model.data == load_state(save(dict(weights)), "x.safetensors", tiny).data


def test_the_number_of_classes_is_the_files(tiny: str) -> None:
    """By name and by order; the published class names are then not theirs."""
    weights = network(9).state_dict()
    for named in (weights, {f"n{i}": v for i, v in enumerate(weights.values())}):
        model = load_state(saved(named), "x.pth", tiny)
        assert model.proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value == 9
        assert model.card.classes == ()


def test_a_difference_is_readable(tiny: str) -> None:
    """What is missing, what is too much, and what has another shape, each by name."""
    weights = network().state_dict()
    weights["0.weight"] = torch.zeros(4, 3, 5, 5)
    weights["extra"] = weights.pop("1.bias")
    with pytest.raises(ModelError) as caught:
        load_state(saved(weights), "x.pth", tiny)
    for words in ("1 missing (1.bias)", "1 unexpected (extra)", "0.weight: expected 4×3×3×3, found 4×3×5×5"):
        assert words in str(caught.value)


def test_safetensors_are_never_fitted_by_order(tiny: str) -> None:
    """The format sorts its tensors, so order would put weights into wrong layers."""
    foreign = {f"layer{i}": v for i, v in enumerate(network().state_dict().values())}
    with pytest.raises(ModelError, match="safetensors keep no order"):
        load_state(save(foreign), "x.safetensors", tiny)


def test_long_differences_are_cut_short() -> None:
    """Six names of each kind, and how many more."""
    found = fit("a", {f"w{i}": (1,) for i in range(20)}, {"x": np.zeros(1)})
    assert isinstance(found, Difference)
    assert "20 missing (w0, w1, w2, w3, w4, w5 and 14 more)" in str(found)


def test_an_unknown_architecture_says_what_is_known() -> None:
    """Before anything is built."""
    with pytest.raises(ModelError, match=r"torchvision:NAME, timm:NAME or transformers:NAME"):
        load_state(SEEDS[0], "x.pth", "keras:vgg16")
