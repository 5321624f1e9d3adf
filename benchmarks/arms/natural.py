"""Natural pictures: agreement of slimmed ImageNet models with the original on photographs that took no part.

As a person with a folder of pictures would meet it: calibrated on photographs of a few packages, each whole, and judged
on the five that are shipped, whole and in crops, and on other photographs of those packages, whole and in one crop
each. Nothing here has labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

import lwcore
from arms import photos
from arms.cases import Case, answers, slimmed
from arms.outcomes import DENSE, Book, Outcome, cell, row
from lwcore.samples.pictures import fit

MODELS = ("imagenet-efficientnet-lite0", "imagenet-squeezenet1_1")
KEEP = 0.8
ARMS = ("ours", "ours, MACs budget", "low rank", "low rank, then channels")
SHIPPED, OTHERS = 0, 1  # numbers of what is judged
WHERE = {SHIPPED: "the five, whole and in crops", OTHERS: "others, whole and in crops"}
EARLIER = 16  # crops of the five that an earlier table was calibrated on; the judged ones are still those after them
CROPS = {SHIPPED: 20, OTHERS: 1}  # judged, a photograph
SMALLEST = 0.35  # of a crop's area
SURE = 0.5  # what the original gives its answer where it is sure


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
        whole = fit(image, model.card.input)
        pieces = [fit(_crop(image, rng), model.card.input) for _ in range(crops)]
        found.append(Photo(whole, np.stack(pieces) if pieces else whole[:0]))
    return found


def _crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    side = np.sqrt(rng.uniform(SMALLEST, 1) * image.width * image.height)
    stretch = np.exp(rng.uniform(-0.5, 0.5) * np.log(4 / 3))
    width, height = int(min(image.width, side * stretch)), int(min(image.height, side / stretch))
    left, top = int(rng.integers(0, image.width - width + 1)), int(rng.integers(0, image.height - height + 1))
    piece = image.crop((left, top, left + width, top + height))
    return ImageOps.mirror(piece) if rng.random() < 0.5 else piece


def cases(name: str) -> list[Case]:
    """One model calibrated on the same photographs, judged on the shipped ones and on others."""
    model = lwcore.load(name)
    given, held = photos.others()
    mixed = [given[place] for place in np.random.default_rng(0).permutation(len(given))]  # names lie beside their likes
    calibration = _samples("calibration", np.stack([photo.whole for photo in photographs(model, mixed, 0)]))
    five = photographs(model, photos.shipped(), EARLIER + CROPS[SHIPPED])
    others = photographs(model, held, CROPS[OTHERS])
    judged = {
        SHIPPED: np.concatenate([[photo.whole, *photo.crops[EARLIER:]] for photo in five]),
        OTHERS: np.concatenate([[photo.whole, *photo.crops] for photo in others]),
    }
    return [Case(name, place, model, _samples("judged", judged[place]), calibration) for place in WHERE]


def _samples(name: str, pixels: np.ndarray) -> lwcore.SampleSet:
    return lwcore.SampleSet(name=name, arrays={"pixels": pixels})


def measure(name: str, book: Book, arms: Sequence[str]) -> Iterator[str]:
    """Arms on one model; yields a line for each outcome."""
    missing = [arm for arm in arms if not all(book.has(name, place, KEEP, [arm]) for place in WHERE)]
    if not missing:
        return
    found = cases(name)
    for case in found:
        sure = float((answers(case, case.model).max(axis=1) > SURE).mean())
        book.add(Outcome(model=name, draw=case.draw, keep=1.0, arm=DENSE, score=1.0, share=1.0, sure=sure))
    for arm in missing:
        slim, learning = slimmed(found[0], arm, KEEP)
        for case in found:
            outcome = Outcome(
                model=name,
                draw=case.draw,
                keep=KEEP,
                arm=arm,
                **_agreement(case, slim.model),
                share=slim.after.macs / case.macs,
                seconds=slim.seconds,
                learning=learning,
            )
            book.add(outcome)
            yield f"{name}, {WHERE[case.draw]}: {arm} {cell([outcome])}"


def _agreement(case: Case, model: lwcore.Model) -> dict[str, float]:
    """Share of pictures with the original's answer; of all, and of those where the original is sure."""
    before, after = answers(case, case.model), answers(case, model)
    same = before.argmax(axis=1) == after.argmax(axis=1)
    return {"score": float(same.mean()), "sure": float(same[before.max(axis=1) > SURE].mean())}


def report(book: Book, names: Sequence[str], arms: Sequence[str]) -> None:
    """Print the agreement of every model."""
    if not names:
        return
    given, held = photos.others()
    print(
        f"\nAgreement with the original at {KEEP:.0%} of the MACs in per cent, in brackets the share of the MACs "
        f"really left, then the agreement where the original gives its answer more than {SURE}. Calibrated on "
        f"{len(given)} photographs, each whole; judged on the {len(photos.shipped())} shipped ones, whole and in "
        f"{CROPS[SHIPPED]} crops each, and on {len(held)} others, whole and in {CROPS[OTHERS]} crop each.\n"
    )
    heads = ["model", *(f"{arm}: {where}" for arm in arms for where in ("the five", "others"))]
    print(row(heads) + "\n" + row(["---"] * len(heads)))
    for name in names:
        print(row([name, *(_cell(book, name, arm, place) for arm in arms for place in WHERE)]))


def _cell(book: Book, name: str, arm: str, place: int) -> str:
    found = [outcome for outcome in book.of(name, KEEP, arm) if outcome.draw == place]
    return f"{cell(found)}, {100 * (found[0].sure or 0):.1f}" if found else cell(found)
