"""Kinds of data, found by the card's task: how samples are read, fed to a model, shown to people; one file a kind.

`load_samples` stands here because it reads what any kind of model reads; `lwcore.samples` knows no kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lwcore.errors import SampleError
from lwcore.model import Card, Model
from lwcore.progress import Progress, silent
from lwcore.registry import Registry
from lwcore.runtime import Feed
from lwcore.samples import SampleSet
from lwcore.samples.builtin import SETS, Target, as_model, load_set


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One kind of data.

    Attributes:
        task: the value of `Card.task` that it belongs to.
        accepts: endings of the files that samples come in.
        read: (uploaded bytes, model, name for people, progress) → samples for this model.
        read_folder: (folder, model) → samples for this model; None where samples never come in folders.
        feed: (samples, model, start, stop) → these samples as the model reads them, by the name of the input.
        show: (samples, index) → one sample for people: a picture (uint8, shape (H, W, C)) or a text.
        classes: whether the first output is a row of class scores; else outputs are compared as numbers.
        alone: whether samples that cannot be stacked along every input's first axis are run one by one.
    """

    task: str
    accepts: tuple[str, ...]
    read: Callable[[bytes, Model, str, Progress], SampleSet]
    read_folder: Callable[[Path, Model], SampleSet] | None = None
    feed: Callable[[SampleSet, Model, int, int], Feed]
    show: Callable[[SampleSet, int], np.ndarray | str]
    classes: bool = True
    alone: bool = False


DOMAINS: Registry[Domain] = Registry("kind of data")


def domain(of: Model | Card) -> Domain:
    """The kind of data that a model reads."""
    return DOMAINS[(of.card if isinstance(of, Model) else of).task]


def load_samples(ref: str | Path, target: Target, limit: int | None = None) -> SampleSet:
    """Load a sample set for a model.

    Args:
        ref: a built-in set (`fashion-test`, `fashion-calibration`, `photos`), or the path of a folder or zip with one
            folder of pictures a class (labelled) or loose pictures (unlabelled), or of what else the model reads.
        target: the model (or its card, or its input) that will read the samples.
        limit: at most so many samples; all when None.

    Raises:
        SampleError: nothing of that name, or nothing in it that can be read.
    """
    path, model = Path(ref), as_model(target)
    kind = domain(model)
    if str(ref) in SETS:
        samples = load_set(str(ref), model)
    elif path.is_dir() and kind.read_folder:
        samples = kind.read_folder(path, model)
    elif path.is_file():
        samples = kind.read(path.read_bytes(), model, path.stem, silent)
    else:
        raise SampleError(
            f"Expected a sample set ({', '.join(n for n, s in SETS.items() if s.fits(kind.task))}), or the path of "
            f"samples ({', '.join(kind.accepts)}); found {str(ref)!r}, which is none of them."
        )
    return samples if limit is None else samples.take(limit)


def _register() -> None:
    """Each file defines its own; imported last because they build on the class above."""
    from lwcore.domains import generic, image, text, video

    for kind in (image.DOMAIN, text.DOMAIN, text.EMBEDDING, video.DOMAIN, generic.DOMAIN):
        DOMAINS.add(kind.task, kind)


_register()
