"""What a file is, by its content: the names that people give files are never believed."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

_EXPORT = "Export it as ONNX and bring the .onnx file"
_TORCH = (
    "Export it as ONNX where the network's Python code is: "
    'torch.onnx.export(model.eval(), example_input, "model.onnx", dynamo=True)'
)
_WEIGHTS = "Say which architecture it belongs to (torchvision:resnet18, say), or e" + _TORCH[1:]


@dataclass(frozen=True, kw_only=True)
class FileKind:
    """A kind of file that is not ONNX: what people call it, and what they can do."""

    name: str
    advice: str


_STARTS: tuple[tuple[bytes, int, FileKind], ...] = tuple(
    (magic, offset, FileKind(name=name, advice=advice))
    for magic, offset, name, advice in (
        (
            b"\x89HDF\r\n\x1a\n",
            0,
            "an HDF5 file (Keras .h5 or .keras weights)",
            "Export it with tf2onnx: python -m tf2onnx.convert --keras model.h5 --output model.onnx",
        ),
        (
            b"TFL3",
            4,
            "a TensorFlow Lite model",
            "Export it with tf2onnx: python -m tf2onnx.convert --tflite model.tflite --output model.onnx",
        ),
        (b"ORTM", 4, "an onnxruntime .ort file", "Bring the .onnx file that it was made from"),
        (b"GGUF", 0, "a GGUF language model", "Such models are not pictures' classifiers; bring an .onnx file"),
        (b"\x93NUMPY", 0, "a NumPy array", "Arrays alone are no network. " + _EXPORT),
        (b"caffe2", 0, "a Caffe2 file", _EXPORT),
        (b"\x89PNG\r\n", 0, "a PNG picture", "Pictures go into the box for samples; here an .onnx file is expected"),
        (b"\xff\xd8\xff", 0, "a JPEG picture", "Pictures go into the box for samples; here an .onnx file is expected"),
        (b"GIF8", 0, "a GIF picture", "Pictures go into the box for samples; here an .onnx file is expected"),
        (b"BM", 0, "a BMP picture", "Pictures go into the box for samples; here an .onnx file is expected"),
        (
            b"RIFF",
            0,
            "a WebP picture or other media file",
            "Pictures go into the box for samples; here an .onnx file is expected",
        ),
        (b"%PDF", 0, "a PDF document", "Bring an .onnx file"),
        (b"\x7fELF", 0, "a program", "Bring an .onnx file"),
        (b"MZ", 0, "a program", "Bring an .onnx file"),
        (b"\x1f\x8b", 0, "a gzip archive", "Unpack it and bring the .onnx file"),
        (b"7z\xbc\xaf\x27\x1c", 0, "a 7z archive", "Unpack it and bring the .onnx file"),
        (b"Rar!\x1a\x07", 0, "a RAR archive", "Unpack it and bring the .onnx file"),
        (b"ustar", 257, "a tar archive", "Unpack it and bring the .onnx file"),
        (
            b"version https://git-lfs",
            0,
            "a Git LFS pointer, not the file itself",
            "Download the file itself (git lfs pull) and bring that",
        ),
    )
)


def foreign_kind(data: bytes) -> FileKind | None:
    """The kind of a file that is recognised as something other than ONNX; None when it may be ONNX."""
    for magic, offset, kind in _STARTS:
        if data[offset : offset + len(magic)] == magic:
            return kind
    for test in _TESTS:
        kind_found = test(data)
        if kind_found is not None:
            return kind_found
    return None


def _zip(data: bytes) -> FileKind | None:
    if data[:4] not in (b"PK\x03\x04", b"PK\x05\x06"):
        return None
    names = _zip_names(data)
    if any(n.endswith("constants.pkl") or "/code/" in n for n in names):
        return FileKind(name="a TorchScript file, which cannot be opened safely", advice=_TORCH)
    if any("serialized_exported_program" in n or n.endswith(("archive_format", "models/model.json")) for n in names):
        return FileKind(
            name="a torch.export program (.pt2)",
            advice='Export it as ONNX: torch.onnx.export(program, dynamo=True).save("model.onnx")',
        )
    if any(n.endswith("data.pkl") for n in names):
        return FileKind(name="a PyTorch checkpoint, which holds weights but not the network", advice=_WEIGHTS)
    if any(n in ("config.json", "metadata.json") for n in names) and any(n.endswith(".h5") for n in names):
        return FileKind(name="a Keras model", advice='Export it: model.export("model.onnx", format="onnx")')
    if any(n.endswith(".npy") for n in names):
        return FileKind(name="a NumPy .npz archive", advice="Arrays alone are no network. " + _EXPORT)
    return FileKind(
        name="a zip archive",
        advice="Unpack it and bring the .onnx file; a zip of pictures goes into the box for samples",
    )


def _zip_names(data: bytes) -> list[str]:
    if data.count(b"PK\x01\x02") > 10_000:  # its directory is not worth unpacking to tell what it is
        return []
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return []


def _pickle(data: bytes) -> FileKind | None:
    # Protocol 2 and later start with b"\x80", the number of the protocol, and an opcode; nothing is ever unpickled.
    if len(data) > 2 and data[0] == 0x80 and 2 <= data[1] <= 5:
        return FileKind(
            name="a Python pickle (an old .pt or .pth, or another model), which is never opened here "
            "because opening one runs its code",
            advice=_TORCH,
        )
    if data[:1] in b"(c}]" and data.rstrip()[-1:] == b"." and b"\n" in data[:200]:
        return FileKind(
            name="a Python pickle, which is never opened here because opening one runs its code", advice=_TORCH
        )
    return None


def _safetensors(data: bytes) -> FileKind | None:
    size = int.from_bytes(data[:8], "little")
    if 2 <= size <= len(data) - 8 and data[8:9] == b"{" and b'"data_offsets"' in data[8:4096]:
        return FileKind(name="a safetensors file, which holds weights but not the network", advice=_WEIGHTS)
    return None


def _text(data: bytes) -> FileKind | None:
    head = data[:512]
    if not head.strip():
        return FileKind(name="an empty file", advice="Bring an .onnx file")
    lowered = head.lstrip().lower()
    if lowered.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
        return FileKind(
            name="a web page or XML text, perhaps a download that went wrong",
            advice="Download the .onnx file itself (on a code site: the raw file)",
        )
    printable = sum(32 <= b < 127 or b in b"\t\r\n" for b in head)
    if printable == len(head):
        return FileKind(name="a text file", advice="Bring an .onnx file, which is binary")
    return None


_TESTS: tuple[Callable[[bytes], FileKind | None], ...] = (_zip, _pickle, _safetensors, _text)
