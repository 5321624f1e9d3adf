"""`guess_card`: how to feed a model that came without a card, read off its shapes and said in its notes."""

from __future__ import annotations

import onnx

from lwcore.model import Card, Color, InputSpec, Layout

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PHOTO = 64  # pixels an edge from which a colour input is more likely a photograph's than an icon's


def guess_card(data: bytes, name: str) -> tuple[Card, list[str]]:
    """A card for a normalised file, and what was guessed, in plain words.

    The layout and colours follow from the input's shape; the scaling of the values cannot be seen in a graph, so the
    field's habit is taken: ImageNet's for colour pictures of 64 pixels and more, plain 0–1 otherwise.
    """
    graph = onnx.load_model_from_string(data).graph
    constants = {t.name for t in graph.initializer}
    shape = _dims(next(i for i in graph.input if i.name not in constants))
    layout: Layout = "NHWC" if shape[3] in (1, 3) and shape[1] not in (1, 3) else "NCHW"
    channels, height, width = shape[1:] if layout == "NCHW" else (shape[3], shape[1], shape[2])
    color: Color = "gray" if channels == 1 else "rgb"
    photo = color == "rgb" and min(height, width) >= _PHOTO
    count = 3 if color == "rgb" else 1
    spec = InputSpec(
        size=(height, width),
        layout=layout,
        color=color,
        mean=IMAGENET_MEAN if photo else (0.0,) * count,
        std=IMAGENET_STD if photo else (1.0,) * count,
        resize=round(min(height, width) / 0.875) if photo else None,
    )
    scale = "scaled as for ImageNet (mean 0.485, 0.456, 0.406)" if photo else "with values 0–1"
    kind = "colour" if color == "rgb" else "grey"
    notes = [
        f"Input guessed: {kind} pictures of {height} × {width}, {layout}, {scale}. Say otherwise if the model was "
        "trained otherwise; a wrong guess costs accuracy, nothing else."
    ]
    if channels not in (1, 3):
        notes.append(
            f"The input has {channels} channels, which no picture has; it can be studied and slimmed, but not "
            "measured on pictures."
        )
    classes = _classes(graph)
    notes.append(
        f"The output has {classes} classes; their names are unknown."
        if classes
        else "The output is not one row of class scores, so accuracy cannot be measured."
    )
    return Card(name=name, input=spec, source="uploaded"), notes


def _dims(info: onnx.ValueInfoProto) -> list[int]:
    return [d.dim_value for d in info.type.tensor_type.shape.dim]


def _classes(graph: onnx.GraphProto) -> int | None:
    """Number of class scores a picture; trailing sizes of 1 do not count."""
    shape = _dims(graph.output[0])
    while len(shape) > 2 and shape[-1] == 1:
        shape.pop()
    return shape[1] if len(shape) == 2 and shape[1] > 1 else None
