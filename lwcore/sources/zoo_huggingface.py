"""Text models of Hugging Face by OWNER/NAME: the files are downloaded and read as if somebody had brought them."""

from __future__ import annotations

import dataclasses

from lwcore.errors import ModelError
from lwcore.model import Model
from lwcore.progress import Progress, part, silent
from lwcore.sources.hub import places
from lwcore.sources.text import files


def load(name: str, pretrained: bool, progress: Progress = silent) -> Model:
    """Load a text model.

    Args:
        name: OWNER/NAME of a public repository with `config.json` and `model.safetensors`.
        pretrained: with its weights; structures without weights are the family `transformers`.
        progress: told how far it is.

    Raises:
        ModelError: no such model, no network, or files that cannot be read.
    """
    places.check_repository(name)
    if not pretrained:
        raise ModelError(
            f"Expected huggingface:{name} with its weights; structures with random weights are transformers:NAME:none."
        )
    otherwise = "Or bring a zip with config.json, model.safetensors and the tokenizer, or choose another model."
    found = places.hub_files(name, files.NEEDED, files.WANTED, f"the model {name}", otherwise, part(progress, 0.0, 0.6))
    model = files.read_files(found, name, part(progress, 0.6, 1.0))
    return dataclasses.replace(model, card=dataclasses.replace(model.card, source=f"Hugging Face, {name}"))
