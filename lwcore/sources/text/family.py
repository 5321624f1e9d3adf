"""The family `transformers`: published structures of text encoders, exported once and then cached."""

from __future__ import annotations

import dataclasses
import difflib

from lwcore.errors import ModelError
from lwcore.model import Model
from lwcore.progress import Progress, silent
from lwcore.samples.tokens import TOKENIZER
from lwcore.settings import ASSETS
from lwcore.sources.export import made_with
from lwcore.sources.families import Architecture
from lwcore.sources.hub import cache
from lwcore.sources.text.files import USUAL, card_of
from lwcore.sources.text.structures import STRUCTURES, Configuration, Structure


def load(name: str, pretrained: bool, progress: Progress = silent) -> Model:
    """Load the structure of a text encoder with seeded random weights.

    Args:
        name: a name in `STRUCTURES`.
        pretrained: asked for with weights; those are at hubs under their owners' names.
        progress: told how far it is.

    Raises:
        ModelError: no such structure, or weights are asked for.
    """
    structure = _structure(name)
    if pretrained:
        raise ModelError(
            f"Expected transformers:{name}:none for the structure with random weights; trained ones come from a hub "
            "(huggingface:OWNER/NAME) or from a folder or zip with config.json, the weights and the tokenizer."
        )
    configuration = Configuration(kind=structure.kind, settings=structure.settings)

    def make() -> bytes:
        from lwcore.sources.text.network import build, export

        progress(0.1, "Building the network")
        network = build(configuration)
        progress(0.3, "Exporting it as ONNX")
        return export(network, configuration, USUAL)

    data = cache.kept(f"transformers-{name}-none-{made_with('transformers', also=[USUAL])}.onnx", make)
    card = dataclasses.replace(
        card_of(configuration, f"{structure.title} · random weights", USUAL),
        family=structure.title,
        random_weights=True,
        description="Structure only: its weights are random, its answers mean nothing.",
        source=f"architecture after {structure.source}",
        licence="Apache-2.0",
        sample_sets=("email-test",),
        calibration="email-calibration",
    )
    note = "It has no vocabulary of its own, so texts are read with that of the e-mail models."
    words = (ASSETS / "models" / "email.tokenizer.json").read_bytes()
    return Model(data=data, card=card, notes=(note,), files={TOKENIZER: words})


def architecture(name: str) -> Architecture:
    """The structure of a text encoder, to be filled with somebody's weights; raises `ModelError`."""
    from lwcore.sources.text import fitted

    return fitted.architecture(_structure(name))


def _structure(name: str) -> Structure:
    if name not in STRUCTURES:
        near = difflib.get_close_matches(name, list(STRUCTURES), 3) or ["distilbert-base", "tinybert-4"]
        raise ModelError(f"Expected one of {', '.join(STRUCTURES)}; found {name[:80]!r}. Did you mean {near[0]}?")
    return STRUCTURES[name]
