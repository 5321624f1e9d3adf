"""Natural pictures: agreement of slimmed ImageNet models with the original on the five shipped photographs.

Once calibrated on seeded random crops of all five and judged on the whole photographs and other crops of them. And, far
harder with so few pictures, each photograph left out once: calibrated on crops of the other four, judged on that one.
Nothing here has labels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

import lwcore
from arms.cases import Case, agreement, ours
from arms.outcomes import DENSE, Book, Outcome, cell, row
from lwcore.samples.pictures import fit
from lwcore.settings import ASSETS

MODELS = ("imagenet-efficientnet-lite0", "imagenet-squeezenet1_1")
KEEP = 0.8
SHARED, LEFT_OUT = ("ours", "ours, MACs budget"), ("ours",)  # learning what each group matters costs minutes
CALIBRATION, TEST = 16, 20  # crops a photograph
SMALLEST = 0.35  # of a crop's area


@dataclass(frozen=True)
class Photo:
    """One photograph as the model would read it whole, and crops of it."""

    whole: np.ndarray
    crops: np.ndarray


def photographs(model: lwcore.Model) -> list[Photo]:
    """The shipped photographs, each with seeded crops: area 35–100 %, sides up to 4:3, half of them mirrored."""
    folder = ASSETS / "photos"
    entries = json.loads((folder / "photos.json").read_text(encoding="utf-8"))["photos"]
    rng = np.random.default_rng(0)
    found = []
    for entry in entries:
        image = Image.open(folder / entry["file"]).convert("RGB")
        crops = np.stack([fit(_crop(image, rng), model.card.input) for _ in range(CALIBRATION + TEST)])
        found.append(Photo(fit(image, model.card.input), crops))
    return found


def _crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    side = np.sqrt(rng.uniform(SMALLEST, 1) * image.width * image.height)
    stretch = np.exp(rng.uniform(-0.5, 0.5) * np.log(4 / 3))
    width, height = int(min(image.width, side * stretch)), int(min(image.height, side / stretch))
    left, top = int(rng.integers(0, image.width - width + 1)), int(rng.integers(0, image.height - height + 1))
    piece = image.crop((left, top, left + width, top + height))
    return ImageOps.mirror(piece) if rng.random() < 0.5 else piece


def cases(name: str) -> Iterator[Case]:
    """Draw 0 with all photographs, then one draw for each that is left out."""
    model = lwcore.load(name)
    photos = photographs(model)
    yield _case(name, 0, model, photos, photos)
    for out, photo in enumerate(photos):
        yield _case(name, out + 1, model, photos[:out] + photos[out + 1 :], [photo])


def _case(name: str, draw: int, model: lwcore.Model, known: list[Photo], judged: list[Photo]) -> Case:
    taken = np.stack([p.crops[:CALIBRATION] for p in known], axis=1)  # in turns: any part of them holds all
    test = np.concatenate([np.concatenate([p.whole[None], p.crops[CALIBRATION:]]) for p in judged])
    return Case(
        name,
        draw,
        model,
        lwcore.SampleSet(name="judged", arrays={"pixels": test}),
        lwcore.SampleSet(name="calibration", arrays={"pixels": taken.reshape(-1, *taken.shape[2:])}),
    )


def measure(name: str, book: Book) -> Iterator[str]:
    """All arms on one model; yields a line for each photograph."""
    for case in cases(name):
        arms = SHARED if case.draw == 0 else LEFT_OUT
        if book.has(name, case.draw, KEEP, arms):
            continue
        book.add(Outcome(model=name, draw=case.draw, keep=1.0, arm=DENSE, score=1.0, share=1.0))
        found = [ours(case, arm, KEEP, agreement) for arm in arms]
        for outcome in found:
            book.add(outcome)
        judged = f"photograph {case.draw} left out" if case.draw else "other crops"
        yield f"{name}, {judged}: " + ", ".join(f"{o.arm} {cell([o])}" for o in found)


def report(book: Book, names: list[str]) -> None:
    """Print the agreement of every model."""
    if not names:
        return
    print(
        f"\nAgreement with the original at {KEEP:.0%} of the MACs on the 5 shipped photographs, whole and in "
        f"{TEST} crops each; calibrated on {CALIBRATION} other crops of each.\n"
    )
    heads = [*SHARED, *(f"{arm}, photograph left out" for arm in LEFT_OUT)]
    print(row(["model", *heads]) + "\n" + row(["---"] * (len(heads) + 1)))
    for name in names:
        shared = [cell(book.of(name, KEEP, arm)[:1]) for arm in SHARED]
        print(row([name, *shared, *(cell(book.of(name, KEEP, arm)[1:]) for arm in LEFT_OUT)]))
