"""A single type's schema, and reading a plain value as that type."""

from __future__ import annotations

from typing import Any

import msgspec

from dragoman.server.annotations import for_msgspec
from dragoman.server.binding import engine_for
from dragoman.server.schemas import Definitions, SchemaWriter, from_text, inline_root

__all__ = ["read_as", "schema_of"]


def schema_of(shape: Any) -> dict[str, Any]:
    """The JSON Schema of a type, definitions under `$defs`. Raises Misconfigured for no schema."""
    definitions = Definitions()
    _, _, schema = engine_for(shape, SchemaWriter(definitions), "the type of a form")
    return dict(inline_root(schema, definitions.schemas))


def read_as(shape: Any, value: Any) -> Any:
    """The value as that type. Raises ValueError when it does not fit."""
    _, engine, _ = engine_for(shape, SchemaWriter(Definitions()), "the type of a form")
    if engine is not None:
        return engine.read(msgspec.json.encode(value))
    return msgspec.convert(value, for_msgspec(shape), dec_hook=from_text)
