"""Functions that a file brings along (newer exporters write them): put in place of their calls, if that stays small."""

from __future__ import annotations

import onnx
from onnx import FunctionProto, NodeProto

from lwcore.errors import ModelError
from lwcore.settings import SETTINGS

_Key = tuple[str, str]


def inline(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model without functions; raises `ModelError` when the calls, written out, would be too many operators."""
    if not proto.functions:
        return proto
    import onnx.inliner

    table = {(f.domain, f.name): f for f in proto.functions}
    sizes: dict[_Key, int] = {}
    total = sum(_size(node, table, sizes, ()) for node in proto.graph.node)
    if total > SETTINGS.nodes:
        raise ModelError(
            f"Expected at most {SETTINGS.nodes:,} operators, found {total:,} with the file's functions "
            "written out. Export a smaller model."
        )
    try:
        return onnx.inliner.inline_local_functions(proto)
    except Exception as error:  # a foreign parser
        raise ModelError(
            "Expected functions that can be put in place of their calls; they cannot "
            f"({str(error)[:100]}). Export with functions inlined."
        ) from None


def _size(node: NodeProto, table: dict[_Key, FunctionProto], sizes: dict[_Key, int], path: tuple[_Key, ...]) -> int:
    """Operators that a node becomes; functions of functions multiply, so they are counted before they are written."""
    key = (node.domain, node.op_type)
    if key not in table:
        return 1
    if key in path or len(path) > 50:
        raise ModelError(f"Expected functions that end, found {key[1][:60]!r} calling itself. Export the model again.")
    if key not in sizes:
        sizes[key] = sum(_size(child, table, sizes, (*path, key)) for child in table[key].node)
    return sizes[key]
