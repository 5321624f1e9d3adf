"""Sample sets: the built-in ones, zips and folders; bad pictures are left out and named, bad archives refused."""

import io
import stat
import struct
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from lwcore.domains import load_samples
from lwcore.errors import SampleError
from lwcore.model import Card, InputSpec
from lwcore.samples import archive, pictures
from lwcore.samples.archive import read_folder, read_zip
from lwcore.samples.builtin import SETS, load_set
from lwcore.samples.pictures import read_picture
from lwcore.settings import Settings

GRAY = InputSpec(size=(28, 28), color="gray", mean=(0.5,), std=(0.5,))
SMALL = InputSpec(size=(8, 8))
PETS = Card(input=SMALL, classes=("Cat", "tabby, big dog", "T-shirt/top"))


def picture(color=(200, 10, 10), size=(12, 9), kind="PNG", **options):
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, kind, **options)
    return buffer.getvalue()


def zipped(*members, **options):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, **options) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, data in members:
            file.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize("name", [name for name, entry in SETS.items() if entry.task == "image-classification"])
def test_every_built_in_set_is_what_its_entry_says(name):
    samples = load_samples(name, GRAY)
    assert len(samples) == SETS[name].n == len(samples.names)
    assert (samples.labels is not None) == SETS[name].labelled
    assert samples.pixels.shape[1:] == (28, 28, 1)
    assert samples.pixels.dtype == np.uint8
    assert len(load_samples(name, GRAY, limit=3)) == 3


def test_calibration_and_test_pictures_are_disjoint():
    test, calibration = (load_set(n).pixels for n in ("fashion-test", "fashion-calibration"))
    assert not {p.tobytes() for p in test} & {p.tobytes() for p in calibration}


def test_built_in_pictures_follow_the_model_and_their_labels_only_its_classes():
    samples = load_set("fashion-test", Card(input=InputSpec(size=(32, 40)), classes=tuple("abc")))
    assert samples.pixels.shape[1:] == (32, 40, 3)
    assert samples.labels is None
    assert "not classes of this model" in samples.notes[0]


def test_class_folders_are_labelled_by_name_synonym_and_number():
    data = zipped(
        ("pets/cat/1.png", picture()),
        ("pets/Big_Dog/2.png", picture()),
        ("pets/bird/4.png", picture()),
        ("pets/t-shirt top/3.png", picture()),
        ("pets/0/5.png", picture()),
        ("__MACOSX/pets/cat/._1.png", b"x"),
    )
    samples = read_zip(data, PETS)
    assert dict(zip(samples.names, samples.labels.tolist(), strict=True)) == {
        "cat/1.png": 0,
        "Big_Dog/2.png": 1,
        "t-shirt top/3.png": 2,
        "0/5.png": 0,
    }
    assert any("bird" in note for note in samples.notes)


def test_without_class_names_folders_are_counted_alphabetically_and_it_is_said():
    samples = read_zip(zipped(("b/1.png", picture()), ("a/2.png", picture())), Card(input=SMALL))
    assert samples.labels.tolist() == [0, 1]
    assert "a = 0, b = 1" in samples.notes[0]


def test_loose_pictures_are_unlabelled():
    for prefix in ("", "holiday/"):
        samples = read_zip(zipped((f"{prefix}1.png", picture()), (f"{prefix}2.jpg", picture(kind="JPEG"))), PETS)
        assert samples.labels is None
        assert len(samples) == 2


def test_a_folder_reads_like_its_zip(tmp_path):
    members = [("cat/1.png", picture()), ("Big Dog/2.png", picture((1, 2, 3)))]
    for name, data in members:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(data)
    (tmp_path / "set.zip").write_bytes(zipped(*members))
    one, two = read_folder(tmp_path, PETS), load_samples(tmp_path / "set.zip", PETS)
    assert one.fingerprint == two.fingerprint
    with pytest.raises(SampleError, match="none of them"):
        load_samples(tmp_path / "nothing", PETS)


@pytest.mark.parametrize("kind", pictures.FORMATS)
def test_every_promised_format_is_read(kind):
    pixels = read_picture(picture(kind=kind), SMALL)
    assert pixels.shape == (8, 8, 3)
    assert np.abs(pixels.astype(int) - [200, 10, 10]).max() < 12


def test_bad_pictures_are_left_out_and_named_and_the_rest_loads():
    bomb = picture(size=(2, 2)).replace(struct.pack(">II", 2, 2), struct.pack(">II", 60_000, 60_000))
    bomb = bomb[:29] + struct.pack(">I", zlib.crc32(bomb[12:29])) + bomb[33:]
    tiff = io.BytesIO()
    Image.new("RGB", (4, 4)).save(tiff, "TIFF")
    bad = {
        "notes.txt": b"hello",
        "bomb.png": bomb,
        "cut.png": picture(size=(300, 300))[:200],
        "scan.png": tiff.getvalue(),
        "empty.png": b"",
        "thin.png": picture(size=(500, 2)),
        "wide.png": picture(size=(9000, 300)),
    }
    samples = read_zip(zipped(("good.png", picture()), *bad.items()), PETS)
    assert samples.names == ("good.png",)
    for name in bad:
        assert any(name in note for note in samples.notes), name


def test_no_readable_picture_is_an_error_that_names_the_first():
    with pytest.raises(SampleError, match="found none that can be read"):
        read_zip(zipped(("a.txt", b"hello")), PETS)
    with pytest.raises(SampleError, match="found none"):
        read_zip(zipped(), PETS)


@pytest.mark.parametrize("name", ["/etc/cat.png", "../cat.png", "cat/../../x.png", "C:/cat.png", "a\\..\\cat.png"])
def test_names_that_leave_the_archive_are_refused(name):
    data = zipped(("X" * len(name), picture())).replace(b"X" * len(name), name.encode())
    with pytest.raises(SampleError, match="stay inside"):
        read_zip(data, PETS)


def test_links_encryption_nesting_and_odd_compression_are_refused():
    link = zipfile.ZipInfo("cat.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(SampleError, match="link"):
        read_zip(zipped((link, "/etc/passwd")), PETS)
    locked = bytearray(zipped(("cat.png", picture())))
    locked[locked.rindex(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(SampleError, match="password"):
        read_zip(bytes(locked), PETS)
    with pytest.raises(SampleError, match="Unpack it first"):
        read_zip(zipped(("good.png", picture()), ("inner.zip", zipped(("a.png", picture())))), PETS)
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w", zipfile.ZIP_LZMA) as file:
        file.writestr("cat.png", picture())
    with pytest.raises(SampleError, match="ordinary zip"):
        read_zip(other.getvalue(), PETS)
    for data in (b"", b"PK\x03\x04 not really", b"hello"):
        with pytest.raises(SampleError, match="cannot be unpacked"):
            read_zip(data, PETS)


def test_real_bytes_files_and_pixels_are_bounded_whatever_the_directory_says(monkeypatch):
    monkeypatch.setattr(archive, "SETTINGS", Settings(archive_mb=1, archive_files=3))
    with pytest.raises(SampleError, match="at most 1 MB"):
        read_zip(zipped(("a.png", bytes(900_000)), ("b.png", bytes(900_000))), PETS)
    with pytest.raises(SampleError, match="at most 3"):
        read_zip(zipped(*[(f"{i}.png", picture()) for i in range(4)]), PETS)
    monkeypatch.setattr(archive, "SETTINGS", Settings())
    monkeypatch.setattr(archive, "PIXEL_MB", 0.0004)
    samples = read_zip(zipped(*[(f"{i}.png", picture()) for i in range(6)]), PETS)
    assert samples.names == ("0.png", "3.png")
    assert "evenly spread" in samples.notes[0]


def test_pictures_are_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    source = Image.new("RGB", (8, 4), "black")
    source.paste("white", (0, 0, 4, 4))
    buffer = io.BytesIO()
    source.save(buffer, "PNG", exif=exif)
    pixels = read_picture(buffer.getvalue(), InputSpec(size=(8, 4)))
    assert pixels[0].mean() > 200 > 50 > pixels[-1].mean()


def test_resize_then_crop_equals_torchvision():
    transforms = pytest.importorskip("torchvision.transforms")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (97, 131, 3), dtype=np.uint8))
    steps = transforms.Compose([transforms.Resize(40), transforms.CenterCrop((32, 36))])
    ours = pictures.fit(image, InputSpec(size=(32, 36), resize=40))
    np.testing.assert_array_equal(ours, np.asarray(steps(image)))


def test_sixteen_bit_grey_is_scaled_not_clipped():
    buffer = io.BytesIO()
    Image.fromarray(np.full((28, 28), 0x8000, np.uint16)).save(buffer, "PNG")
    assert read_picture(buffer.getvalue(), GRAY).max() == 128
