"""The sample sets that ship with the product."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lwcore.errors import SampleError
from lwcore.model import Card, ClipSpec, FreeSpec, InputSpec, Model, Spec
from lwcore.registry import Registry
from lwcore.samples import SampleSet
from lwcore.settings import ASSETS

FASHION_CLASSES = 10
RANDOM = 64  # samples of random inputs

Target = Model | Card | InputSpec


@dataclass(frozen=True, kw_only=True)
class SetEntry:
    """One built-in set: what people read about it, how to load it for a model, whether any model of its kind may."""

    title: str
    description: str
    n: int
    labelled: bool
    load: Callable[[Model], SampleSet]
    task: str = "image-classification"
    common: bool = False

    def fits(self, task: str) -> bool:
        """Whether models for a task read such samples: texts are texts, whatever is made of them."""
        return self.task.partition("-")[0] == task.partition("-")[0]


SETS: Registry[SetEntry] = Registry("sample set")


def common(task: str) -> list[str]:
    """Sets that any model of a kind can be asked about, whatever its classes."""
    return [name for name, entry in SETS.items() if entry.fits(task) and entry.common]


def load_set(name: str, target: Target | None = None) -> SampleSet:
    """A built-in set, brought to the model's input size and colours (as stored when there is no model).

    Raises:
        UnknownName: no such set; the message lists the choices.
    """
    entry = SETS[name]
    if target is None:
        target = Card(input=InputSpec(size=(28, 28), color="gray", mean=(0.0,), std=(1.0,)))
    model = as_model(target)
    if not entry.fits(model.card.task):
        raise SampleError(f"Expected samples for {model.card.task}, found {name!r}, which is for {entry.task}.")
    return _loaded(name, entry.load, model)


def as_model(target: Target) -> Model:
    """What says how a sample becomes the model's input: its card and the files beside it."""
    if isinstance(target, Model):
        return target
    return Model(data=b"", card=target if isinstance(target, Card) else Card(input=target))


def _loaded(name: str, loader: Callable[[Model], SampleSet], model: Model) -> SampleSet:
    arrays = model.fingerprint if isinstance(model.card.input, FreeSpec) else ""  # their shapes are the file's own
    key = (name, model.card.input, len(model.card.classes), hash(tuple(sorted(model.files.items()))), arrays)
    if key not in _KNOWN:
        while len(_KNOWN) >= 8:
            _KNOWN.pop(next(iter(_KNOWN)), None)
        _KNOWN[key] = loader(model)
    return _KNOWN[key]


_KNOWN: dict[tuple[str, Spec, int, int, str], SampleSet] = {}


@lru_cache(maxsize=4)
def _stored(name: str) -> tuple[np.ndarray, np.ndarray]:
    path = ASSETS / "samples" / f"{name}.npz"
    if not path.is_file():
        raise SampleError(f"Expected the file assets/samples/{name}.npz, which is missing. Run tools/make_samples.py.")
    with np.load(path, allow_pickle=False) as file:
        return file["images"][..., None], file["labels"].astype(np.int64)


def _fashion(name: str, title: str) -> Callable[[Model], SampleSet]:
    def load_fashion(model: Model) -> SampleSet:
        from lwcore.samples.pictures import fit_all

        card, (pixels, labels) = model.card, _stored(name)
        fits = len(card.classes) in (0, FASHION_CLASSES)
        notes = () if fits else ("The labels of Fashion-MNIST are not classes of this model, so they are not used.",)
        names = tuple(f"{name} {i}" for i in range(len(pixels)))
        return SampleSet(
            name=title,
            arrays={"pixels": fit_all(pixels, card.pictures)},
            labels=labels if fits else None,
            names=names,
            notes=notes,
        )

    return load_fashion


def _motion(name: str, title: str, source: str, count: int, seed: int) -> Callable[[Model], SampleSet]:
    """Made clips, one of each of the first `count` pictures of a stored set."""

    def load_motion(model: Model) -> SampleSet:
        from lwcore.samples.clips import fit_clips
        from lwcore.samples.motion import CLASSES, balanced_labels, make_clips

        spec = model.card.input
        assert isinstance(spec, ClipSpec)  # what the task of the entry says
        pixels, labels = _stored(source)[0][:count, ..., 0], balanced_labels(count, seed)
        fits = model.card.classes == CLASSES
        notes = () if fits else ("The kinds of motion are not classes of this model, so the labels are not used.",)
        return SampleSet(
            name=title,
            arrays={"pixels": fit_clips(make_clips(pixels, labels, seed), spec)},
            labels=labels if fits else None,
            names=tuple(f"{name} {i}" for i in range(count)),
            notes=notes,
        )

    return load_motion


def _emails(name: str, title: str) -> Callable[[Model], SampleSet]:
    def load_emails(model: Model) -> SampleSet:
        from lwcore.samples.texts import read_texts

        path = ASSETS / "samples" / f"{name}.jsonl.xz"
        if not path.is_file():
            raise SampleError(
                f"Expected the file assets/samples/{path.name}, which is missing. Run tools/make_text.py."
            )
        return read_texts(lzma.decompress(path.read_bytes()), model.card.classes, title)

    return load_emails


def _random(model: Model) -> SampleSet:
    from lwcore.samples.numbers import random_inputs

    return random_inputs(model, RANDOM)


def _photos(model: Model) -> SampleSet:
    from lwcore.samples.pictures import read_picture

    folder = ASSETS / "photos"
    entries = json.loads((folder / "photos.json").read_text(encoding="utf-8"))["photos"]
    pixels = np.stack([read_picture((folder / e["file"]).read_bytes(), model.card.pictures) for e in entries])
    return SampleSet(name="Five photographs", arrays={"pixels": pixels}, names=tuple(e["title"] for e in entries))


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
    "fashion-train",
    SetEntry(
        title="Fashion-MNIST, training pictures",
        n=6000,
        labelled=True,
        load=_fashion("fashion-train", "Fashion-MNIST training"),
        description="6,000 training pictures, 600 a class, in neither of the other two sets: for distillation.",
    ),
)
SETS.add(
    "photos",
    SetEntry(
        title="Five photographs",
        n=5,
        labelled=False,
        load=_photos,
        common=True,
        description="A cat, a coffee, a camera, a rocket, an astronaut; unlabelled, for agreement with the original.",
    ),
)
SETS.add(
    "motion-test",
    SetEntry(
        title="Moving pictures, test clips",
        n=512,
        labelled=True,
        load=_motion("motion-test", "Motion test", "fashion-test", 512, seed=1),
        task="video-classification",
        description="512 made clips of Fashion-MNIST test pictures in eight kinds of motion, to measure accuracy on.",
    ),
)
SETS.add(
    "motion-calibration",
    SetEntry(
        title="Moving pictures, calibration clips",
        n=384,
        labelled=True,
        load=_motion("motion-calibration", "Motion calibration", "fashion-calibration", 384, seed=2),
        task="video-classification",
        description="384 made clips of training pictures, none of them in the test set: what re-fitting and int8 see.",
    ),
)
SETS.add(
    "motion-few",
    SetEntry(
        title="Eight moving pictures",
        n=8,
        labelled=True,
        load=_motion("motion-few", "Eight motions", "fashion-test", 8, seed=3),
        task="video-classification",
        description="One made clip of each kind of motion, for networks that take seconds a clip.",
        common=True,
    ),
)
SETS.add(
    "email-test",
    SetEntry(
        title="E-mails, test texts",
        n=997,
        labelled=True,
        load=_emails("email-test", "E-mail test"),
        task="text-classification",
        common=True,
        description="997 e-mails of the SpamAssassin collection, no model here was trained on: ham or spam.",
    ),
)
SETS.add(
    "email-calibration",
    SetEntry(
        title="E-mails, calibration texts",
        n=512,
        labelled=True,
        load=_emails("email-calibration", "E-mail calibration"),
        task="text-classification",
        description="512 training texts, none of them in the test set: what re-fitting and int8 ranges look at.",
    ),
)
SETS.add(
    "email-train",
    SetEntry(
        title="E-mails, training texts",
        n=4092,
        labelled=True,
        load=_emails("email-train", "E-mail training"),
        task="text-classification",
        description="The other training texts: for distillation.",
    ),
)
SETS.add(
    "random",
    SetEntry(
        title="Random inputs",
        n=RANDOM,
        labelled=False,
        load=_random,
        task="generic",
        description="Numbers drawn at random in the shapes that the file declares, the same ones every time.",
        common=True,
    ),
)
