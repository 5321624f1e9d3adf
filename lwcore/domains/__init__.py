"""Kinds of data, found by the card's task: how samples are read, fed to a model, shown to people; one file a kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lwcore.model import Card, Model
from lwcore.progress import Progress
from lwcore.registry import Registry
from lwcore.runtime import Feed
from lwcore.samples import SampleSet


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


def _register() -> None:
    """Each file defines its own; imported last because they build on the class above."""
    from lwcore.domains import generic, image, text, video

    for kind in (image.DOMAIN, text.DOMAIN, text.EMBEDDING, video.DOMAIN, generic.DOMAIN):
        DOMAINS.add(kind.task, kind)


_register()
