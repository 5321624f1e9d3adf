"""The sample sets that ship with the product, and `load`, which also takes folders and zips."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from lwcore.errors import SampleError
from lwcore.model import Card, InputSpec, Model
from lwcore.registry import Registry
from lwcore.samples import SampleSet
from lwcore.settings import ASSETS

FASHION_CLASSES = 10

Target = Model | Card | InputSpec


@dataclass(frozen=True, kw_only=True)
class SetEntry:
    """One built-in set: what people read about it, and how to load it for a model."""

    title: str
    description: str
    n: int
    labelled: bool
    load: Callable[[Card], SampleSet]


SETS: Registry[SetEntry] = Registry("sample set")


def load_set(name: str, target: Target | None = None) -> SampleSet:
    """A built-in set, brought to the model's input size and colours (as stored when there is no model).

    Raises:
        UnknownName: no such set; the message lists the choices.
    """
    entry = SETS[name]
    if target is None:
        target = Card(input=InputSpec(size=(28, 28), color="gray", mean=(0.0,), std=(1.0,)))
    return _loaded(name, entry.load, as_card(target))


def as_card(target: Target) -> Card:
    """The card that says how a picture becomes the model's input."""
    if isinstance(target, Model):
        return target.card
    return target if isinstance(target, Card) else Card(input=target)


def load(ref: str | Path, target: Target, limit: int | None = None) -> SampleSet:
    """A built-in set by name, or a folder or zip of pictures by path; at most `limit` samples. Raises `SampleError`."""
    from lwcore.samples.archive import read_folder, read_zip

    path = Path(ref)
    if str(ref) in SETS:
        samples = load_set(str(ref), target)
    elif path.is_dir():
        samples = read_folder(path, as_card(target))
    elif path.is_file():
        samples = read_zip(path.read_bytes(), as_card(target), name=path.stem)
    else:
        raise SampleError(
            f"Expected a sample set ({', '.join(SETS)}), or the path of a folder or zip of pictures; "
            f"found {str(ref)!r}, which is none of them."
        )
    return samples if limit is None else samples.take(limit)


def _loaded(name: str, loader: Callable[[Card], SampleSet], card: Card) -> SampleSet:
    key = (name, card.input, len(card.classes))
    if key not in _KNOWN:
        while len(_KNOWN) >= 8:
            _KNOWN.pop(next(iter(_KNOWN)), None)
        _KNOWN[key] = loader(card)
    return _KNOWN[key]


_KNOWN: dict[tuple[str, InputSpec, int], SampleSet] = {}


@lru_cache(maxsize=4)
def _stored(name: str) -> tuple[np.ndarray, np.ndarray]:
    path = ASSETS / "samples" / f"{name}.npz"
    if not path.is_file():
        raise SampleError(f"Expected the file assets/samples/{name}.npz, which is missing. Run tools/make_samples.py.")
    with np.load(path, allow_pickle=False) as file:
        return file["images"][..., None], file["labels"].astype(np.int64)


def _fashion(name: str, title: str) -> Callable[[Card], SampleSet]:
    def load_fashion(card: Card) -> SampleSet:
        from lwcore.samples.pictures import fit_all

        pixels, labels = _stored(name)
        fits = len(card.classes) in (0, FASHION_CLASSES)
        notes = () if fits else ("The labels of Fashion-MNIST are not classes of this model, so they are not used.",)
        names = tuple(f"{name} {i}" for i in range(len(pixels)))
        return SampleSet(
            name=title, pixels=fit_all(pixels, card.input), labels=labels if fits else None, names=names, notes=notes
        )

    return load_fashion


def _photos(card: Card) -> SampleSet:
    from lwcore.samples.pictures import read_picture

    folder = ASSETS / "photos"
    entries = json.loads((folder / "photos.json").read_text(encoding="utf-8"))["photos"]
    pixels = np.stack([read_picture((folder / e["file"]).read_bytes(), card.input) for e in entries])
    return SampleSet(name="Five photographs", pixels=pixels, names=tuple(e["title"] for e in entries))


SETS.add(
    "fashion-test",
    SetEntry(
        title="Fashion-MNIST, test pictures",
        n=2000,
        labelled=True,
        load=_fashion("fashion-test", "Fashion-MNIST test"),
        description="2,000 of the 10,000 test pictures, 200 a class: what accuracy is measured on.",
    ),
)
SETS.add(
    "fashion-calibration",
    SetEntry(
        title="Fashion-MNIST, calibration pictures",
        n=1024,
        labelled=True,
        load=_fashion("fashion-calibration", "Fashion-MNIST calibration"),
        description="1,024 training pictures, none of them in the test set: what re-fitting and int8 ranges look at.",
    ),
)
SETS.add(
    "photos",
    SetEntry(
        title="Five photographs",
        n=5,
        labelled=False,
        load=_photos,
        description="A cat, a coffee, a camera, a rocket, an astronaut; unlabelled, for agreement with the original.",
    ),
)
