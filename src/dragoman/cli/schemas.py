"""JSON Schemas in words a person reads: one row for each member, however deep."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Row", "Schema", "flatten", "kind_of", "members_of", "resolve", "rows_of", "type_text"]

Schema = dict[str, Any]

# A stranger wrote the schema: references may run in circles, and unions of unions multiply. Beyond
# these a person reads the schema itself (`--json`).
MAX_REFERENCES = 32
MAX_OPTIONS = 16
MAX_INNER_OPTIONS = 4
MAX_STEPS = 256
MAX_DEPTH = 6
MAX_ROWS = 200
MAX_CHOICES = 12


@dataclass(frozen=True, slots=True)
class Row:
    """One member: its path ("days", "items[].name"), type in words, default as JSON or None."""

    path: str
    type: str
    is_required: bool
    default: str | None
    description: str


def resolve(schema: Any, root: Schema) -> Schema:
    """The schema behind `$ref`s into the same document; what stands beside a reference wins."""
    for _ in range(MAX_REFERENCES):
        if not isinstance(schema, dict):
            return {}
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema
        target: Any = root
        if not reference.startswith("#"):
            return {key: value for key, value in schema.items() if key != "$ref"}
        for part in reference[1:].strip("/").split("/") if reference != "#" else ():
            part = part.replace("~1", "/").replace("~0", "~")
            target = target.get(part) if isinstance(target, dict) else None
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {**target, **rest} if isinstance(target, dict) else rest
    return {}


def flatten(schema: Any, root: Schema) -> list[Schema]:
    """The alternatives of a union, each with one `type` or none; a plain schema is its own."""
    found: list[Schema] = []
    waiting = [(schema, 0)]
    for _ in range(MAX_STEPS):
        if not waiting or len(found) >= MAX_OPTIONS:
            break
        given, depth = waiting.pop(0)
        one = resolve(given, root)
        options = one.get("anyOf") or one.get("oneOf")
        if isinstance(options, list) and options and depth < MAX_DEPTH:
            waiting = [(option, depth + 1) for option in options[:MAX_STEPS]] + waiting
        elif isinstance(one.get("type"), list) and not _choices(one):
            found += [{**one, "type": kind} for kind in one["type"]]
        elif one or not found:
            found.append(one)
    return found


def kind_of(schema: Schema) -> str | None:
    """The one type a schema names, or None."""
    kind = schema.get("type")
    return kind if isinstance(kind, str) else None


def members_of(schema: Schema) -> dict[str, Any]:
    """The properties of an object schema by name; empty when it has none."""
    properties = schema.get("properties")
    return properties if isinstance(properties, dict) else {}


def rows_of(schema: Schema, *, is_flat: bool = False) -> list[Row]:
    """A row for each member of an object schema, in order.

    Members of members follow their owner, unless only its own are asked for with `is_flat`.
    """
    rows = []
    for row in _rows(schema, schema, "", MAX_DEPTH if is_flat else 0):
        rows.append(row)
        if len(rows) >= MAX_ROWS:
            rows.append(Row("…", "", False, None, f"more than {MAX_ROWS} members"))
            break
    return rows


def _rows(schema: Schema, root: Schema, prefix: str, depth: int) -> Iterator[Row]:
    whole = resolve(schema, root)
    required = whole.get("required")
    needed = required if isinstance(required, list) else []
    for name, member in members_of(whole).items():
        one = resolve(member, root)
        path = f"{prefix}{name}"
        description = one.get("description")
        yield Row(
            path,
            type_text(one, root),
            name in needed,
            json.dumps(one["default"], ensure_ascii=False) if "default" in one else None,
            description if isinstance(description, str) else "",
        )
        if depth < MAX_DEPTH:
            for option in flatten(one, root):
                if members_of(option):
                    yield from _rows(option, root, f"{path}.", depth + 1)
                elif kind_of(option) == "array":
                    yield from _rows(option.get("items", {}), root, f"{path}[].", depth + 1)


def type_text(schema: Any, root: Schema, depth: int = 0) -> str:
    """The type in words: "integer, 1 to 7", "list of text", '"hot" or "cold"', "text or null"."""
    if depth > MAX_DEPTH:
        return "…"
    options = flatten(schema, root)[: MAX_INNER_OPTIONS if depth else MAX_OPTIONS]
    words = [_option_text(one, root, depth) for one in options]
    return " or ".join(dict.fromkeys(words)) or "anything"


def _choices(schema: Schema) -> list[Any]:
    if "const" in schema:
        return [schema["const"]]
    listed = schema.get("enum")
    return listed if isinstance(listed, list) else []


def _option_text(schema: Schema, root: Schema, depth: int) -> str:
    choices = _choices(schema)
    if choices:
        shown = [json.dumps(one, ensure_ascii=False) for one in choices[:MAX_CHOICES]]
        title = schema.get("title")
        # How a form names its choices: one constant each, with the words to show for it.
        if "const" in schema and isinstance(title, str) and title != schema["const"]:
            shown = [f"{shown[0]} ({title})"]
        if len(choices) > MAX_CHOICES:
            shown.append(f"… ({len(choices)} in all)")
        return " or ".join(shown)
    kind = kind_of(schema)
    if kind == "array":
        items = type_text(schema.get("items", {}), root, depth + 1)
        return ", ".join([f"list of {items}", *_bounds(schema, "Items", "items")])
    if kind == "string":
        words = [_FORMATS.get(str(schema.get("format")), "text")]
        words += _bounds(schema, "Length", "characters")
        if isinstance(schema.get("pattern"), str):
            words.append(f"like {schema['pattern']}")
        return ", ".join(words)
    if kind in ("integer", "number"):
        return ", ".join([kind, *_range(schema)])
    if kind == "boolean":
        return "true or false"
    if kind == "object" or "properties" in schema:
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict) and extra and not schema.get("properties"):
            return f"object of {type_text(extra, root, depth + 1)}"
        return "object"
    return kind or "anything"


_FORMATS = {
    "date": "date",
    "date-time": "date and time",
    "time": "time",
    "duration": "duration",
    "email": "e-mail address",
    "uri": "URI",
    "uuid": "UUID",
    "byte": "text, base64",
}


def _bounds(schema: Schema, suffix: str, unit: str) -> list[str]:
    least, most = schema.get(f"min{suffix}"), schema.get(f"max{suffix}")
    # "1 item", but "2 items": the last number said decides.
    if (least if most is None else most) == 1:
        unit = unit.removesuffix("s")
    if least is not None and most is not None:
        return [f"{least} to {most} {unit}"]
    if least is not None:
        return [f"at least {least} {unit}"]
    return [f"at most {most} {unit}"] if most is not None else []


def _range(schema: Schema) -> list[str]:
    words = []
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        words.append(f"{least} to {most}")
    elif least is not None:
        words.append(f"at least {least}")
    elif most is not None:
        words.append(f"at most {most}")
    if "exclusiveMinimum" in schema:
        words.append(f"above {schema['exclusiveMinimum']}")
    if "exclusiveMaximum" in schema:
        words.append(f"below {schema['exclusiveMaximum']}")
    if "multipleOf" in schema:
        words.append(f"a multiple of {schema['multipleOf']}")
    return words
