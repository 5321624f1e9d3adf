"""Make every kind of hostile file there is a rule against, for the tests and for trying a running server by hand.

python -m tests.hostile.files FOLDER
"""

from __future__ import annotations

import io
import itertools
import json
import pickle  # noqa: TID251 - to write the files that must never be unpickled
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
MARK = "hostile-file-was-run"  # a payload would make a file of this name in the working directory


class Payload:
    """Unpickling this runs code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, (f"open({MARK!r}, 'w')",)


def packed(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method, compresslevel=1) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _network(
    nodes: list[onnx.NodeProto] | None = None, constants: list[TensorProto] | None = None, out: str = "y"
) -> onnx.ModelProto:
    """A small classifier, with further nodes."""
    body = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
        *(nodes or []),
    ]
    weight = numpy_helper.from_array(np.ones((3, 4), np.float32), "w")
    graph = helper.make_graph(
        body,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ("n", 3, 8, 8))],
        [helper.make_tensor_value_info(out, FLOAT, ("n", 4))],
        [weight, *(constants or [])],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def _bytes(proto: onnx.ModelProto) -> bytes:
    return bytes(proto.SerializeToString())


def _int64(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values, np.int64), name)


def _bomb(op: str, inputs: list[str], constants: list[TensorProto], **attributes: object) -> bytes:
    nodes = [
        helper.make_node(op, inputs, ["big"], **attributes),
        helper.make_node("ReduceSum", ["big"], ["s"], keepdims=0),
        helper.make_node("Cast", ["s"], ["c"], to=FLOAT),
        helper.make_node("Add", ["y", "c"], ["z"]),
    ]
    return _bytes(_network(nodes, constants, "z"))


def _nested(op: str) -> bytes:
    """A bomb inside an If or Loop body."""
    inner = helper.make_graph(
        [
            helper.make_node("ConstantOfShape", ["huge"], ["big"]),
            helper.make_node("ReduceSum", ["big"], ["inner"], keepdims=0),
        ],
        "body",
        [],
        [helper.make_tensor_value_info("inner", FLOAT, ())],
        [_int64("huge", 1 << 20, 1 << 12)],
    )
    yes = numpy_helper.from_array(np.asarray(True), "yes")
    if op == "Loop":
        inner.input.extend(
            [helper.make_tensor_value_info("i", INT64, ()), helper.make_tensor_value_info("go", TensorProto.BOOL, ())]
        )
        inner.node.append(helper.make_node("Identity", ["go"], ["going"]))
        inner.output.insert(0, helper.make_tensor_value_info("going", TensorProto.BOOL, ()))
        made = helper.make_node("Loop", ["trips", "yes"], ["parts"], body=inner)
        nodes = [made, helper.make_node("ReduceSum", ["parts"], ["c"], keepdims=0)]
        constants = [yes, numpy_helper.from_array(np.asarray(1 << 40, np.int64), "trips")]
    else:
        nodes, constants = [helper.make_node("If", ["yes"], ["c"], then_branch=inner, else_branch=inner)], [yes]
    return _bytes(_network([*nodes, helper.make_node("Add", ["y", "c"], ["z"])], constants, "z"))


def _external(location: str) -> bytes:
    proto = _network()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "48")):
        tensor.external_data.add(key=key, value=value)
    return _bytes(proto)


def _renamed(node: str, output: str = "y") -> bytes:
    proto = _network()
    proto.graph.node[0].name = node
    return _bytes(proto)


def _chain(length: int) -> bytes:
    names = ["y", *(f"t{i}" for i in range(length - 1)), "z"]
    return _bytes(_network([helper.make_node("Relu", [a], [b]) for a, b in itertools.pairwise(names)], out="z"))


def _cyclic() -> bytes:
    nodes = [helper.make_node("Add", ["y", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    return _bytes(_network(nodes, out="b"))


def _deep(levels: int) -> bytes:
    """If inside If inside If: more levels than any parser's own writer would make, so written by hand."""

    def field(number: int, data: bytes) -> bytes:
        size, length = bytearray(), len(data)
        while length > 127:
            size.append(length & 127 | 128)
            length >>= 7
        return bytes([number << 3 | 2, *size, length]) + data

    graph = b""
    for _ in range(levels):
        graph = field(1, field(4, b"If") + field(5, field(1, b"then_branch") + field(6, graph)))
    return b"\x08\x08" + field(7, graph)


def _foreign() -> bytes:
    proto = _network([helper.make_node("Run", ["y"], ["z"], domain="evil.corp")], out="z")
    proto.opset_import.add(domain="evil.corp", version=1)
    return _bytes(proto)


def _not_utf8() -> bytes:
    return _renamed("NAMEHERE").replace(b"NAMEHERE", b"\xff\xfe\xc0\xafNAM")


def _safetensors(header: object) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


def _png(width: int, height: int) -> bytes:
    """A PNG whose header claims any size; its pixels are a few compressed bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1_000_000, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _nameless() -> bytes:
    """A zip whose directory names its one member with no letter at all."""
    data = bytearray(packed({"a": b"x"}))
    entry = data.index(b"PK\x01\x02")
    data[entry + 28 : entry + 30] = b"\0\0"
    del data[entry + 46]
    end = data.index(b"PK\x05\x06")
    data[end + 12] -= 1
    return bytes(data)


_EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}

MODELS: dict[str, Callable[[], bytes]] = {
    "payload.pkl": lambda: pickle.dumps(Payload()),
    "payload-renamed.onnx": lambda: pickle.dumps(Payload(), protocol=2),
    "payload-text.onnx": lambda: pickle.dumps(Payload(), protocol=0),
    "payload.pt": lambda: packed({"m/data.pkl": pickle.dumps(Payload(), protocol=2), "m/version": b"3"}),
    "deflated.pt": lambda: packed(
        {"m/data.pkl": pickle.dumps({}), "m/data/0": b"\0" * 50_000_000}, zipfile.ZIP_DEFLATED
    ),
    "torchscript.pt": lambda: packed(
        {"m/data.pkl": b"\x80\x02}.", "m/constants.pkl": b"\x80\x02).", "m/code/a.py": b""}
    ),
    "program.pt2": lambda: packed({"p/archive_format": b"pt2", "p/models/model.json": b"{}"}),
    "object.npy": lambda: (
        b"\x93NUMPY\x01\x00" + struct.pack("<H", 62) + b"{'descr': '|O', 'fortran_order': False}".ljust(62)
    ),
    "many.safetensors": lambda: _safetensors({f"t{i}": _EMPTY for i in range(30_000)}),
    "huge.safetensors": lambda: _safetensors({"t": {**_EMPTY, "shape": [0, 2**62]}}),
    "twice.safetensors": lambda: _safetensors(b'{"a":{"data_offsets":[0,0]},"a":{"data_offsets":[0,0]}}'),
    "external-up.onnx": lambda: _external("../../../../etc/passwd"),
    "external-absolute.onnx": lambda: _external("/etc/passwd"),
    "external-beside.onnx": lambda: _external("weights.bin"),
    "bomb-constant.onnx": lambda: _bomb("ConstantOfShape", ["n"], [_int64("n", 1 << 20, 1 << 14)]),
    "bomb-expand.onnx": lambda: _bomb("Expand", ["w", "n"], [_int64("n", 1 << 30, 3, 4)]),
    "bomb-tile.onnx": lambda: _bomb("Tile", ["w", "n"], [_int64("n", 1 << 16, 1 << 16)]),
    "bomb-range.onnx": lambda: _bomb(
        "Range",
        ["a", "b", "c0"],
        [numpy_helper.from_array(np.asarray(v, np.int64), n) for n, v in (("a", 0), ("b", 1 << 40), ("c0", 1))],
    ),
    "bomb-if.onnx": lambda: _nested("If"),
    "bomb-loop.onnx": lambda: _nested("Loop"),
    "cyclic.onnx": _cyclic,
    "deep.onnx": lambda: _deep(3000),
    "nodes-100000.onnx": lambda: _chain(100_000),
    "foreign-domain.onnx": _foreign,
    "not-utf8.onnx": _not_utf8,
    "truncated.onnx": lambda: _bytes(_network())[:-40],
    "empty.onnx": lambda: b"",
    "page.onnx": lambda: b"<!doctype html><script>alert(1)</script>",
}

# Files that are fine but for their names, which must stay text wherever they are shown.
NAMED: dict[str, Callable[[], bytes]] = {
    "name-formula.onnx": lambda: _renamed('=HYPERLINK("http://evil.example","x")'),
    "name-html.onnx": lambda: _renamed("<script>alert(1)</script><img src=x onerror=alert(1)>"),
    "name-markdown.onnx": lambda: _renamed("![x](http://evil.example/x.png) **b** $e$ :red[x]"),
}

PICTURES: dict[str, Callable[[], bytes]] = {
    "slip.zip": lambda: packed({"../../evil.png": _png(2, 2)}),
    "absolute.zip": lambda: packed({"/etc/evil.png": _png(2, 2)}),
    "bomb.zip": lambda: packed({f"{i}.png": b"\0" * 50_000_000 for i in range(9)}, zipfile.ZIP_DEFLATED),
    "image-bomb.zip": lambda: packed({"big.png": _png(50_000, 50_000)}),
    "files-10000.zip": lambda: packed({f"{i}.png": b"x" for i in range(10_000)}),
    "nested.zip": lambda: packed({"inner.zip": packed({"a.png": b"x"})}),
    "nameless.zip": _nameless,
    "truncated.zip": lambda: packed({"a.png": _png(2, 2)})[:-30],
}


def main(folder: Path) -> None:
    """Write all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in (MODELS | NAMED | PICTURES).items():
        (folder / name).write_bytes(make())
        print(f"{(folder / name).stat().st_size:>12,}  {name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
