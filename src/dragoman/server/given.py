"""Checks of what a server's author gives: names, URIs, annotations, metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

import msgspec

from dragoman.errors import Misconfigured
from dragoman.model.base import Meta, Record
from dragoman.model.names import check_meta_keys, check_tool_name, check_uri

__all__ = ["annotations_from", "checked_meta", "checked_name", "checked_uri"]

R = TypeVar("R", bound=Record)


def annotations_from(given: R | Mapping[str, Any] | None, record: type[R]) -> R | None:
    """Annotations from a mapping, by their names in Python or on the wire."""
    if given is None or isinstance(given, record):
        return given
    names = {field.encode_name: field.name for field in msgspec.structs.fields(record)}
    members: dict[str, Any] = {}
    for key, value in cast("Mapping[str, Any]", given).items():
        name = names.get(key, key)
        if name not in names.values():
            raise Misconfigured(f"there is no annotation {key!r}; there are {', '.join(names)}")
        members[name] = value
    made = record(**members)
    try:
        msgspec.convert(msgspec.to_builtins(made), record)
    except msgspec.ValidationError as fault:
        raise Misconfigured(f"annotations: {fault}") from None
    return made


def checked_name(name: str) -> str:
    """A tool's name. Raises Misconfigured for one the protocol does not allow."""
    try:
        check_tool_name(name)
    except ValueError as fault:
        raise Misconfigured(f"{fault}; give another with name=") from None
    return name


def checked_uri(uri: str) -> None:
    """Raises Misconfigured for what is no URI."""
    try:
        check_uri(uri)
    except ValueError as fault:
        raise Misconfigured(str(fault)) from None


def checked_meta(meta: Meta | None) -> None:
    """Raises Misconfigured for keys that `_meta` does not allow."""
    try:
        check_meta_keys(meta or ())
    except ValueError as fault:
        raise Misconfigured(str(fault)) from None
