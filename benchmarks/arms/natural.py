"""Natural pictures: agreement of slimmed ImageNet models with the original on the five shipped photographs.

Once calibrated on seeded random crops of all five and judged on the whole photographs and other crops of them. And, as
a person with pictures of their own would meet it, calibrated on crops of other photographs, those of a few packages of
Debian, and judged on the five, which took no part. Nothing here has labels.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

import lwcore
from arms.cases import Case, agreement, ours
from arms.outcomes import DENSE, Book, Outcome, cell, row
from lwcore.samples.pictures import fit
from lwcore.settings import ASSETS, ROOT

MODELS = ("imagenet-efficientnet-lite0", "imagenet-squeezenet1_1")
KEEP = 0.8
ARMS = ("ours", "ours, MACs budget")
SHARED, OTHERS = 0, 1  # numbers of the two draws
TEST = 20  # crops a photograph
CALIBRATION = {SHARED: 16, OTHERS: 8}  # crops a photograph
SMALLEST = 0.35  # of a crop's area
CACHE = ROOT / ".cache"
EXAMPLES, WALLS = "usr/share/doc/opencv-doc/examples", "usr/share/backgrounds"
OTHER = {  # package of Debian → a folder in it, and the photographs there
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
}


@dataclass(frozen=True)
class Photo:
    """One photograph as the model would read it whole, and crops of it."""

    whole: np.ndarray
    crops: np.ndarray


def photographs(model: lwcore.Model, files: list[Path], crops: int) -> list[Photo]:
    """Photographs, each with seeded crops: area 35–100 %, sides up to 4:3, half of them mirrored."""
    rng = np.random.default_rng(0)
    found = []
    for file in files:
        image = Image.open(file).convert("RGB")
        pieces = np.stack([fit(_crop(image, rng), model.card.input) for _ in range(crops)])
        found.append(Photo(fit(image, model.card.input), pieces))
    return found


def shipped() -> list[Path]:
    """The five photographs of the product."""
    folder = ASSETS / "photos"
    entries = json.loads((folder / "photos.json").read_text(encoding="utf-8"))["photos"]
    return [folder / entry["file"] for entry in entries]


def other() -> list[Path]:
    """Those of the packages, fetched once by the package manager of Debian."""
    found = []
    for package, (folder, names) in OTHER.items():
        place = CACHE / package
        if not place.is_dir():
            place.mkdir(parents=True)
            subprocess.run(["apt-get", "download", package], cwd=place, check=True)
            (archive,) = place.glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", str(archive), str(place)], check=True)
            archive.unlink()
        found += [place / folder / name for name in names.split()]
    return found


def _crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    side = np.sqrt(rng.uniform(SMALLEST, 1) * image.width * image.height)
    stretch = np.exp(rng.uniform(-0.5, 0.5) * np.log(4 / 3))
    width, height = int(min(image.width, side * stretch)), int(min(image.height, side / stretch))
    left, top = int(rng.integers(0, image.width - width + 1)), int(rng.integers(0, image.height - height + 1))
    piece = image.crop((left, top, left + width, top + height))
    return ImageOps.mirror(piece) if rng.random() < 0.5 else piece


def cases(name: str) -> Iterator[Case]:
    """Calibrated on other crops of the same photographs, then on other photographs."""
    model = lwcore.load(name)
    photos = photographs(model, shipped(), CALIBRATION[SHARED] + TEST)
    judged = [np.concatenate([p.whole[None], p.crops[CALIBRATION[SHARED] :]]) for p in photos]
    test = _samples("judged", np.concatenate(judged))
    same = [photo.crops[: CALIBRATION[SHARED]] for photo in photos]
    others = [photo.crops for photo in photographs(model, other(), CALIBRATION[OTHERS])]
    for draw, crops in ((SHARED, same), (OTHERS, others)):
        taken = np.stack(crops, axis=1)  # in turns: any part of them holds all photographs
        yield Case(name, draw, model, test, _samples("calibration", taken.reshape(-1, *taken.shape[2:])))


def _samples(name: str, pixels: np.ndarray) -> lwcore.SampleSet:
    return lwcore.SampleSet(name=name, arrays={"pixels": pixels})


def measure(name: str, book: Book) -> Iterator[str]:
    """All arms on one model; yields a line for each outcome."""
    for case in cases(name):
        book.add(Outcome(model=name, draw=case.draw, keep=1.0, arm=DENSE, score=1.0, share=1.0))
        for arm in ARMS:
            if not book.has(name, case.draw, KEEP, [arm]):
                outcome = ours(case, arm, KEEP, agreement)
                book.add(outcome)
                yield f"{name}, {'other photographs' if case.draw else 'other crops'}: {arm} {cell([outcome])}"


def report(book: Book, names: list[str]) -> None:
    """Print the agreement of every model."""
    if not names:
        return
    print(
        f"\nAgreement with the original at {KEEP:.0%} of the MACs on the 5 shipped photographs, whole and in "
        f"{TEST} crops each; calibrated on {CALIBRATION[SHARED]} other crops of each, or on {CALIBRATION[OTHERS]} "
        f"crops of each of {sum(len(names.split()) for _, names in OTHER.values())} other photographs.\n"
    )
    heads = [f"{arm}, {where}" for where in ("other crops", "other photographs") for arm in ARMS]
    print(row(["model", *heads]) + "\n" + row(["---"] * (len(heads) + 1)))
    for name in names:
        cells = [
            cell([o for o in book.of(name, KEEP, arm) if o.draw == draw]) for draw in (SHARED, OTHERS) for arm in ARMS
        ]
        print(row([name, *cells]))
