"""Small video networks and clips made on the spot."""

from __future__ import annotations

import io
from collections.abc import Sequence

import av
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lwcore.model import Card, ClipSpec, Model
from lwcore.samples import SampleSet
from lwcore.sources.normalise import normalise

CLASSES = ("left", "right", "still")
SPEC = ClipSpec(size=(16, 16), frames=4, color="gray", mean=(0.5,), std=(0.5,))


def tiny_video(seed: int = 0) -> Model:
    """A residual network of 3×3×3 convolutions in small: stem, one block, a stride in space and time, a classifier."""
    rng = np.random.default_rng(seed)
    shapes = {"stem": (16, 1, 3, 5, 5), "one": (16, 16, 3, 3, 3), "two": (16, 16, 3, 3, 3), "down": (24, 16, 3, 3, 3)}
    tensors = {f"{n}.w": rng.standard_normal(s) * np.sqrt(2 / np.prod(s[1:])) for n, s in shapes.items()}
    tensors |= {f"{n}.b": rng.standard_normal(s[0]) * 0.1 for n, s in shapes.items()}
    tensors |= {"fc.w": rng.standard_normal((3, 24)), "fc.b": rng.standard_normal(3)}

    def conv(name: str, data: str, pads: Sequence[int], strides: Sequence[int]) -> onnx.NodeProto:
        inputs = [data, f"{name}.w", f"{name}.b"]
        return helper.make_node("Conv", inputs, [name], name=name, pads=[*pads, *pads], strides=strides)

    nodes = [
        conv("stem", "x", (1, 2, 2), (1, 2, 2)),
        helper.make_node("Relu", ["stem"], ["s"], name="relu0"),
        conv("one", "s", (1, 1, 1), (1, 1, 1)),
        helper.make_node("Relu", ["one"], ["o"], name="relu1"),
        conv("two", "o", (1, 1, 1), (1, 1, 1)),
        helper.make_node("Add", ["two", "s"], ["sum"], name="add"),
        helper.make_node("Relu", ["sum"], ["r"], name="relu2"),
        conv("down", "r", (1, 1, 1), (2, 2, 2)),
        helper.make_node("Relu", ["down"], ["d"], name="relu3"),
        helper.make_node("GlobalAveragePool", ["d"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["q"], name="flat"),
        helper.make_node("Gemm", ["q", "fc.w", "fc.b"], ["y"], transB=1, name="fc"),
    ]
    body = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 4, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in tensors.items()],
    )
    proto = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    card = Card(name="tiny video", task="video-classification", classes=CLASSES, input=SPEC)
    return Model(data=normalise(proto)[0], card=card)


def tiny_clips(count: int = 96, seed: int = 1) -> SampleSet:
    """Smooth random clips without labels."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, 2, 4, 4, 1))
    pixels = coarse.repeat(2, axis=1).repeat(4, axis=2).repeat(4, axis=3) + rng.normal(0, 10, (count, 4, 16, 16, 1))
    return SampleSet(name="clips", arrays={"pixels": np.clip(pixels, 0, 255).astype(np.uint8)})


def encoded(
    frames: int = 20, kind: str = "mp4", codec: str = "mpeg4", size: tuple[int, int] = (48, 64), rate: int = 10
) -> bytes:
    """A video file in which a white area grows from the left: frame i of n is white up to the share (i + 1) / n."""
    file, (height, width) = io.BytesIO(), size
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = width, height
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        for i in range(frames):
            pixels = np.zeros((height, width, 3), np.uint8)
            pixels[:, : (i + 1) * width // frames] = 255
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=stream.pix_fmt)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return file.getvalue()
