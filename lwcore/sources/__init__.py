"""Sources: where models come from. `load` takes one reference and returns a normalised `Model`."""

from __future__ import annotations

from pathlib import Path

from lwcore.errors import ModelError
from lwcore.graph import Graph
from lwcore.model import Card, Model
from lwcore.sources import builtin
from lwcore.sources.builtin import gallery

__all__ = ["gallery", "load"]


def load(ref: str | Path, card: Card | None = None) -> Model:
    """Load a model.

    Args:
        ref: a built-in id (`lwcore.gallery()` lists them), a path to an `.onnx` file, or `torchvision:NAME`
            (pretrained; `torchvision:NAME:none` for the structure with seeded random weights).
        card: how to feed the model; overrides the card found beside a file.

    Raises:
        ModelError: nothing of that name, or a file that is not a model that can be used; the message says what to do.
    """
    text = str(ref)
    if text.startswith("torchvision:"):
        from lwcore.sources import zoo  # imports torch

        _, name, *weights = text.split(":")
        if weights not in ([], ["none"]):
            raise ModelError(f"Expected torchvision:NAME or torchvision:NAME:none, found {text!r}.")
        model = zoo.load_torchvision(name, pretrained=not weights)
    elif text in builtin.ids():
        model = builtin.load_builtin(text)
    elif Path(text).is_file():
        model = _load_file(Path(text))
    else:
        raise ModelError(
            f"Expected a built-in model ({', '.join(builtin.ids())}), a path to an .onnx file or "
            f"torchvision:NAME; found {text!r}, which is none of them."
        )
    return fitting(model if card is None else Model(data=model.data, card=card, notes=model.notes))


def fitting(model: Model) -> Model:
    """The model, once its card has a name for every output or none at all; raises `ModelError` otherwise."""
    graph = Graph.view(model)
    shape = graph.shapes.get(graph.outputs[0], ())
    if model.card.classes and len(shape) == 2 and len(model.card.classes) != shape[1]:
        raise ModelError(
            f"card.classes: expected {shape[1]} names, one for each output; found {len(model.card.classes)}."
        )
    return model


def _load_file(path: Path) -> Model:
    from lwcore.sources import upload

    model = upload.read_upload(path.read_bytes(), path.name)
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return model
    # What the upload had to guess is answered by the card.
    return Model(data=model.data, card=read_card(beside, model.card))


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
