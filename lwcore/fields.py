"""Whether a dataclass that was read from JSON holds what its annotations say, all the way down."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from lwcore.errors import EvaluationError


@lru_cache(maxsize=64)
def _hints(kind: Any) -> Mapping[str, Any]:
    return get_type_hints(kind)


def check_fields(value: Any) -> None:
    """Raise `EvaluationError` with the name of the first field of a dataclass that holds something else."""
    kind: Any = type(value)
    hints = _hints(kind)
    for field in dataclasses.fields(value):
        held = getattr(value, field.name)
        if not _fits(held, hints[field.name]):
            raise EvaluationError(
                f"{type(value).__name__}.{field.name}: expected another kind of value than {str(held)[:60]!r}."
            )


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, choice) for choice in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, arguments[0]) for item in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if not isinstance(value, hint):
        return False
    if dataclasses.is_dataclass(value):
        check_fields(value)
    return True
