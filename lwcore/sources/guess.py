"""`guess_card`: what a model that came without a card reads and answers, read off its shapes and said in its notes."""

from __future__ import annotations

from typing import Any

import onnx

from lwcore.model import Card, ClipSpec, Color, FreeSpec, InputSpec, TextSpec
from lwcore.sources.inputs import CLIP, COLOURS, FLOATS, PICTURE, Tokens, channels_last, inputs_of, reads_tokens

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KINETICS_MEAN, KINETICS_STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)  # torchvision's video models
_PHOTO = 64  # pixels an edge from which a colour input is more likely a photograph's than an icon's
_READS_TOKENS = (
    "It seems to read token ids. For a model that reads texts, bring a zip of the .onnx file and its tokenizer.json; "
    "config.json beside them names the classes."
)
_TASKS = {PICTURE: "image-classification", CLIP: "video-classification"}


def guess_card(data: bytes, name: str, tokens: Tokens | None = None) -> tuple[Card, list[str]]:
    """A card for a normalised file, and what was guessed, in plain words.

    One input of pictures or clips and one row of class scores make a classifier; token ids, where `tokens` say that
    there is a tokenizer, a text model; everything else is `generic`.
    The layout and colours follow from the input's shape; the scaling of the values cannot be seen in a graph, so the
    field's habit is taken: that of ImageNet or Kinetics for colour pictures of 64 pixels and more, else plain 0–1.
    """
    graph = onnx.load_model_from_string(data).graph
    inputs, classes = inputs_of(graph), class_count(graph)
    if tokens and reads_tokens(graph):
        task = "text-classification" if classes else "text-embedding"
        return Card(name=name, task=task, input=TextSpec(length=tokens.length), source="uploaded"), []
    shape = _dims(inputs[0])
    seen = len(inputs) == 1 and len(shape) in _TASKS and inputs[0].type.tensor_type.elem_type in FLOATS
    colours = seen and (shape[1] in COLOURS or shape[-1] in COLOURS)
    if not classes or not colours:
        notes = [_why_generic(bool(classes)), *([_READS_TOKENS] if reads_tokens(graph) else [])]
        return Card(name=name, task="generic", input=FreeSpec(), source="uploaded"), notes
    spec, scale = _spec(shape)
    what = "clips of {} frames of {} × {}" if isinstance(spec, ClipSpec) else "pictures of {} × {}"
    frames = [spec.frames] if isinstance(spec, ClipSpec) else []
    kind = "colour" if spec.color == "rgb" else "grey"
    notes = [
        f"Input guessed: {kind} {what.format(*frames, *spec.size)}, {spec.layout}, {scale}. Say otherwise if the model "
        "was trained otherwise; a wrong guess costs accuracy, nothing else.",
        f"The output has {classes} classes; their names are unknown.",
    ]
    return Card(name=name, task=_TASKS[len(shape)], input=spec, source="uploaded"), notes


def _why_generic(classes: bool) -> str:
    found = "its input is no picture or clip" if classes else "its output is not one row of class scores"
    return (
        f"This model is no classifier of pictures or clips ({found}), so its outputs are compared as numbers, on "
        "random inputs or on arrays of your own (.npz)."
    )


def _spec(shape: list[int]) -> tuple[InputSpec, str]:
    """How pictures or clips become the input, and the scaling in words."""
    last = channels_last(list(shape))
    channels, *sizes = (shape[-1], *shape[1:-1]) if last else shape[1:]
    color: Color = "gray" if channels == 1 else "rgb"
    photo = color == "rgb" and min(sizes[-2:]) >= _PHOTO
    count = 3 if color == "rgb" else 1
    known: dict[str, Any] = {
        "size": (sizes[-2], sizes[-1]),
        "color": color,
        "resize": round(min(sizes[-2:]) / 0.875) if photo else None,
    }
    plain = {"mean": (0.0,) * count, "std": (1.0,) * count}
    if len(sizes) == 2:
        scaling = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD} if photo else plain
        words = "scaled as for ImageNet (mean 0.485, 0.456, 0.406)" if photo else "with values 0–1"
        return InputSpec(layout="NHWC" if last else "NCHW", **known, **scaling), words
    scaling = {"mean": KINETICS_MEAN, "std": KINETICS_STD} if photo else plain
    words = "scaled as for Kinetics (mean 0.432, 0.395, 0.376)" if photo else "with values 0–1"
    return ClipSpec(frames=sizes[0], layout="NTHWC" if last else "NCTHW", **known, **scaling), words


def _dims(info: onnx.ValueInfoProto) -> list[int]:
    return [d.dim_value for d in info.type.tensor_type.shape.dim]


def class_count(graph: onnx.GraphProto) -> int | None:
    """Number of class scores a sample where the first output is a row of them; trailing sizes of 1 do not count."""
    first = graph.output[0]
    if first.type.tensor_type.elem_type not in FLOATS:
        return None
    if len(graph.output) > 1 and not first.type.tensor_type.shape.dim[0].dim_param:
        return None  # beside other outputs only a free batch tells a row a sample from, say, one a detected box
    shape = _dims(first)
    while len(shape) > 2 and shape[-1] == 1:
        shape.pop()
    return shape[1] if len(shape) == 2 and shape[1] > 1 else None
