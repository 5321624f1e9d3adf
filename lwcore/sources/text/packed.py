"""A text model as somebody else exported it: a zip of one `.onnx` file, its tokenizer and perhaps `config.json`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import PurePath

from lwcore.errors import ModelError
from lwcore.model import Model, TextSpec
from lwcore.samples.tokens import travelling
from lwcore.sources.guess import class_count
from lwcore.sources.inputs import Tokens
from lwcore.sources.text.files import CONFIGURATION, GRAPH, USUAL, members
from lwcore.sources.text.structures import class_names
from lwcore.sources.upload import read_upload

_FIXED = "Texts are read at {} tokens exactly, because the file does not work at other lengths."


def read_packed(data: bytes, name: str, size: tuple[int, int] | None = None) -> Model:
    """The model of a zip in which `files.holds_graph` finds one.

    Args:
        data: the zip.
        name: its name, for display.
        size: of pictures, where the file leaves it open.

    Returns:
        A text model where the network reads tokens and a tokenizer lies beside it; else what the `.onnx` file alone is.

    Raises:
        ModelError: what was expected, what was found, what to do.
    """
    files = members(data)
    graphs = sorted(n for n in files if n.endswith(GRAPH))
    if len(graphs) != 1:
        raise ModelError(f"Expected one .onnx file in the zip, found {', '.join(graphs)[:120]}. Leave only one in it.")
    stem, beside = PurePath(name.replace("\\", "/")).stem[:80] or "model", travelling(files)
    if not beside:
        return read_upload(files[graphs[0]], stem, size)
    length = _length(files)
    try:
        model = read_upload(files[graphs[0]], stem, size, Tokens(length=length))
    except ModelError:  # some files fix inside what their inputs leave open
        model = read_upload(files[graphs[0]], stem, size, Tokens(length=length, free=False))
        model = dataclasses.replace(model, notes=(*model.notes, _FIXED.format(length)))
    if not isinstance(model.card.input, TextSpec):
        return model
    names = class_names(_settings(files)) if model.card.task == "text-classification" else ()
    known = len(names) == class_count(model.proto.graph)
    return dataclasses.replace(
        model, card=dataclasses.replace(model.card, classes=names if known else ()), files=dict(beside)
    )


def _length(files: Mapping[str, bytes]) -> int:
    """Tokens of a text of usual length, fewer where the network has fewer positions."""
    most = _settings(files).get("max_position_embeddings")
    return min(USUAL, most) if isinstance(most, int) and most > 1 else USUAL


def _settings(files: Mapping[str, bytes]) -> dict[str, object]:
    try:
        table = json.loads(files.get(CONFIGURATION, b"{}"))
    except (ValueError, RecursionError):
        table = None
    if not isinstance(table, dict):
        raise ModelError("Expected config.json to be a table of settings, found something else. Download it again.")
    return table
