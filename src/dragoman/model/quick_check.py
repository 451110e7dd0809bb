"""A fast yes for values that plainly fit a plain schema.

Results are checked one by one, and nearly all of them fit. `surely_fits` turns a schema made of
types, members and items into nested closures that only ever say "it fits, beyond doubt"; on any
doubt they say no, and the whole walk of `faults` decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Quick", "surely_fits"]

Quick = Callable[[Any], bool]

# Keywords that decide nothing, and those that are understood here.
_SILENT = frozenset({"title", "description", "default", "examples", "$comment", "format"})
_UNDERSTOOD = _SILENT | {"type", "properties", "required", "additionalProperties", "items"}

# 32 levels: records of records; a deeper schema is left to the walk.
_MAX_LEVELS = 32


def surely_fits(schema: Any, levels: int = _MAX_LEVELS) -> Quick | None:
    """A check that is true only for values that fit; None when the schema is not plain."""
    if not isinstance(schema, Mapping) or levels == 0:
        return None
    keywords = {key for key in schema if key not in _SILENT and not key.startswith("x-")}
    kind = schema.get("type")
    if not keywords <= _UNDERSTOOD or not isinstance(kind, str):
        return None
    if kind == "object":
        return _object(schema, levels)
    if keywords & {"properties", "required", "additionalProperties"}:
        return None
    if kind == "array":
        return _array(schema, levels)
    return None if "items" in keywords else _SCALARS.get(kind)


_SCALARS: dict[str, Quick] = {
    "string": lambda value: type(value) is str,
    "integer": lambda value: type(value) is int,
    "number": lambda value: type(value) is float or type(value) is int,
    "boolean": lambda value: value is True or value is False,
    "null": lambda value: value is None,
}


def _object(schema: Mapping[str, Any], levels: int) -> Quick | None:
    members: dict[str, Quick] = {}
    for name, inner in schema.get("properties", {}).items():
        check = surely_fits(inner, levels - 1)
        if check is None:
            return None
        members[name] = check
    required = frozenset(schema.get("required", ()))
    others = schema.get("additionalProperties", True)
    if others not in (True, False) or "items" in schema or not required <= set(members):
        return None
    is_open = others is True

    def check_object(value: Any) -> bool:
        if type(value) is not dict:
            return False
        missing = len(required)
        for name, item in value.items():
            check = members.get(name)
            if check is None:
                if not is_open:
                    return False
            elif not check(item):
                return False
            elif name in required:
                missing -= 1
        return missing == 0

    return check_object


def _array(schema: Mapping[str, Any], levels: int) -> Quick | None:
    if "items" not in schema:
        return lambda value: type(value) is list
    check = surely_fits(schema["items"], levels - 1)
    if check is None:
        return None
    each = check
    return lambda value: type(value) is list and all(map(each, value))
