"""Sources: where models come from. `load` takes one reference and returns a normalised `Model`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from lwcore.errors import ModelError
from lwcore.graph import Graph
from lwcore.model import Card, Model, TextSpec
from lwcore.progress import Progress, silent
from lwcore.sources import builtin
from lwcore.sources.builtin import gallery
from lwcore.sources.families import FAMILIES, is_named, load_named

__all__ = ["gallery", "load"]


def load(
    ref: str | Path, card: Card | None = None, architecture: str | None = None, progress: Progress = silent
) -> Model:
    """Load a model.

    Args:
        ref: a built-in id (`lwcore.gallery()` lists them), a path to an `.onnx` file (with `architecture`: to a file of
            weights, `.safetensors` or `.pt`/`.pth`), to a folder or zip of a text model (`config.json`, weights as
            safetensors, tokenizer; or a zip of an `.onnx` file and its tokenizer), or `FAMILY:NAME`, where the family
            is torchvision, timm, huggingface or transformers (pretrained; `FAMILY:NAME:none` for the structure with
            seeded random weights).
        card: how to feed the model; overrides the card found beside a file.
        architecture: the structure that a file of weights belongs to, `torchvision:NAME`, `timm:NAME` or
            `transformers:NAME`.
        progress: told how far a download or an export is.

    Raises:
        ModelError: nothing of that name, or a file that is not a model that can be used; the message says what to do.
    """
    text = str(ref)
    if architecture is not None:
        model = _load_state(Path(text), architecture, progress)
    elif is_named(text):
        model = load_named(text, progress)
    elif text in builtin.ids():
        model = builtin.load_builtin(text)
    elif Path(text).is_file():
        model = _load_file(Path(text), progress)
    elif (Path(text) / "config.json").is_file():
        from lwcore.sources.text.files import read_folder

        model = read_folder(Path(text), progress)
    else:
        raise ModelError(
            f"Expected a built-in model ({', '.join(builtin.ids())}), a path to an .onnx file or "
            f"FAMILY:NAME ({', '.join(FAMILIES)}); found {text!r}, which is none of them."
        )
    return fitting(model if card is None else dataclasses.replace(model, card=card))


def fitting(model: Model) -> Model:
    """The model, once its card has a name for every output or none at all; raises `ModelError` otherwise."""
    graph = Graph.view(model)
    shape = graph.shapes.get(graph.outputs[0], ())
    if model.card.classes and len(shape) == 2 and len(model.card.classes) != shape[1]:
        raise ModelError(
            f"card.classes: expected {shape[1]} names, one for each output; found {len(model.card.classes)}."
        )
    return model


def _load_state(path: Path, architecture: str, progress: Progress) -> Model:
    from lwcore.sources.state import load_state

    if not path.is_file():
        raise ModelError(f"Expected a path to a file of weights (.safetensors, .pt, .pth), found {str(path)!r}.")
    return load_state(path.read_bytes(), path.name, architecture, progress)


def _load_file(path: Path, progress: Progress) -> Model:
    from lwcore.samples.tokens import TOKENIZER, travelling
    from lwcore.sources import upload
    from lwcore.sources.text.files import holds_encoder, holds_graph, read_zip
    from lwcore.sources.text.packed import read_packed

    data = path.read_bytes()
    if holds_graph(data):
        return read_packed(data, path.name)
    if holds_encoder(data):
        return read_zip(data, path.stem, progress)
    model = upload.read_upload(data, path.name)
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return model
    # What the upload had to guess is answered by the card.
    card, tokenizer = read_card(beside, model.card), path.parent / TOKENIZER
    reads = isinstance(card.input, TextSpec) and tokenizer.is_file()
    return Model(data=model.data, card=card, files=travelling({TOKENIZER: tokenizer.read_bytes()}) if reads else {})


def read_card(path: Path, base: Card | None = None) -> Card:
    """Read a model card from a JSON file; fields that it leaves out keep the value of `base`. Raises `ModelError`."""
    import json

    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"Model card {path.name!r}: expected a readable JSON file; {error}.") from None
    if not isinstance(data, dict):
        raise ModelError(f"Model card {path.name!r}: expected named fields, found {type(data).__name__}.")
    return Card.from_json(builtin.with_class_names(data), base)
