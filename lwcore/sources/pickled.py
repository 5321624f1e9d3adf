"""`decode`: what a pickle written by torch.save describes, without unpickling it.

A pickle is a program for a small machine. It is only decoded here (`pickletools`), and of its instructions those are
followed that put plain values together. A name of a class or a function stays a name; the few calls that describe a
tensor are recognised by that name and become a note of where its bytes lie; every other call becomes an `Unknown`,
which does nothing.
"""

from __future__ import annotations

import io
import itertools
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lwcore.errors import ModelError

INSTRUCTIONS = 2_000_000  # about fifty a tensor
DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "|b1",
}


@dataclass(frozen=True)
class Name:
    """The name of a class or function in the file; never looked up."""

    module: str
    name: str


@dataclass(frozen=True)
class Unknown:
    """What a call that is not known would have made."""

    maker: object


@dataclass(frozen=True)
class Storage:
    """Raw numbers: their type and the key of their bytes."""

    kind: str
    key: str


@dataclass(frozen=True)
class Place:
    """A tensor: where in a storage it lies; offset, shape and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def damaged(why: str) -> ModelError:
    """The error for a checkpoint that nobody can read."""
    return ModelError(f"Expected a whole PyTorch checkpoint, found a damaged one: {why}. Save or download it again.")


_MARK = object()
_PLAIN = frozenset(
    [
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
        "LONG4",
        "INT",
        "LONG",
        "BINFLOAT",
        "FLOAT",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "UNICODE",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BINSTRING",
        "SHORT_BINSTRING",
        "STRING",
        "BYTEARRAY8",
    ]
)
_FRESH: Mapping[str, Callable[[], object]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "MARK": lambda: _MARK,
}
_TAKEN = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The stack and the memory of one pickle; `step` follows one instruction."""

    def __init__(self, storages: dict[str, Storage]) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages = storages

    def step(self, code: str, argument: Any) -> None:
        stack = self.stack
        if code in _PLAIN:
            stack.append(argument)
        elif code in _FRESH:
            stack.append(_FRESH[code]())
        elif code in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[int(argument)])
        elif code in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[int(argument)] = stack[-1]
        elif code == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif code in _TAKEN:
            count = _TAKEN[code]
            stack[-count:] = [tuple(stack[-count:])]
        elif code in ("TUPLE", "LIST", "DICT", "FROZENSET"):
            items = self._marked()
            stack.append(dict(zip(items[::2], items[1::2], strict=True)) if code == "DICT" else _of(code, items))
        elif code not in ("PROTO", "FRAME", "STOP"):
            self._join(code, argument)

    def _join(self, code: str, argument: Any) -> None:
        """Instructions that put values into others, or would call something."""
        stack = self.stack
        if code in ("SETITEM", "SETITEMS"):
            items = self._marked() if code == "SETITEMS" else [stack.pop(-2), stack.pop()]
            if isinstance(stack[-1], dict):
                stack[-1].update(zip(map(_key, items[::2]), items[1::2], strict=True))
        elif code in ("APPEND", "APPENDS", "ADDITEMS"):
            items = [stack.pop()] if code == "APPEND" else self._marked()
            if isinstance(stack[-1], list):
                stack[-1].extend(items)
        elif code == "GLOBAL":
            stack.append(Name(*argument.split(" ", 1)))
        elif code == "STACK_GLOBAL":
            stack.append(_name(stack.pop(-2), stack.pop()))
        elif code in ("REDUCE", "NEWOBJ"):
            arguments = stack.pop()
            stack.append(_made(stack.pop(), arguments))
        elif code == "NEWOBJ_EX":
            stack[-3:] = [Unknown(stack[-3])]
        elif code == "BUILD":
            stack.pop()  # attributes of an object, such as the versions that torch keeps beside a state dict
        elif code == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif code == "POP":
            stack.pop()
        else:
            raise damaged(f"it has the instruction {code}, which torch.save never writes")

    def _marked(self) -> list[Any]:
        start = len(self.stack) - 1 - next(i for i, v in enumerate(reversed(self.stack)) if v is _MARK)
        items = self.stack[start + 1 :]
        del self.stack[start:]
        return items

    def _storage(self, persistent: Any) -> Storage:
        kind, key = persistent[1:3]
        if not isinstance(kind, Name) or not isinstance(key, str):
            raise damaged("it names numbers in a way that torch.save does not")
        if kind.name not in DTYPES:
            raise damaged(f"it has numbers of the type {kind.name[:40]}, which cannot be read")
        return self.storages.setdefault(key, Storage(kind.name, key))


def _of(code: str, items: list[Any]) -> object:
    return tuple(items) if code == "TUPLE" else items


def _name(module: Any, name: Any) -> Name:
    if not isinstance(module, str) or not isinstance(name, str):
        raise damaged("it names a class in a way that torch.save does not")
    return Name(module, name)


def _key(key: Any) -> Any:
    """A key of a table; what cannot be one is told apart by its text only."""
    return key if isinstance(key, str | int | float | bool | None) else type(key).__name__


def _made(maker: Any, arguments: Any) -> object:
    """What a call stands for: a table, a tensor's place, or something unknown."""
    if not isinstance(maker, Name) or not isinstance(arguments, tuple):
        return Unknown(maker)
    full = f"{maker.module}.{maker.name}"
    if full == "collections.OrderedDict":
        pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
        return {_key(k): v for k, v in pairs}
    if full in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"):
        return arguments[0]
    if full in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
        storage, offset, shape, strides = arguments[:4]
        if isinstance(storage, Storage) and len(shape) == len(strides) <= 16:
            return Place(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))
    return Unknown(maker)


def decode(stream: io.BytesIO, storages: dict[str, Storage] | None = None) -> object:
    """The value that a pickle describes, up to its end; plain values, `Place`, `Name` and `Unknown` only."""
    machine = _Machine({} if storages is None else storages)
    for opcode, argument, _ in itertools.islice(pickletools.genops(stream), INSTRUCTIONS + 1):
        machine.step(opcode.name, argument)
        if opcode.name == "STOP":
            return machine.stack[-1]
    raise damaged(f"it has more than {INSTRUCTIONS:,} instructions")
