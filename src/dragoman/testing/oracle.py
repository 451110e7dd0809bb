"""The official JSON Schemas, closed: an oracle for what a revision can hold.

No published schema forbids a member it does not declare, so validating against one proves little:
a message full of the next revision's members passes. `ClosedSchema` allows declared members only.
The schemas themselves are not part of dragoman; the caller says where they are.

What stays open is what the specification leaves to others: `_meta`, arguments, metadata,
experimental capabilities, and JSON Schemas that are carried as values.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

from dragoman.errors import Misconfigured

__all__ = ["ClosedSchema"]

Node: TypeAlias = dict[str, Any]
"""A JSON Schema, or one of its parts."""

# They describe any message, so they say nothing about the members of one.
_GENERAL = frozenset({"Request", "Notification", "JSONRPCRequest", "JSONRPCNotification"})

# A JSON Schema as a value: the protocol only asks for a few of its keywords.
_CARRIED_SCHEMAS = frozenset({"inputSchema", "outputSchema"})

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`\x00-\x1f]*", re.ASCII)


class ClosedSchema:
    """One revision's schema in which every object has its declared members only.

    `spec_dir` holds REVISION/schema.json; `definitions` names everything that can be asked for.

    Raises:
        Misconfigured: there is no such schema, or the package `jsonschema` is not installed.
    """

    def __init__(self, spec_dir: str | Path, revision: str) -> None:
        path = Path(spec_dir) / revision / "schema.json"
        try:
            schema = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise Misconfigured(f"there is no schema for {revision} in {spec_dir}") from None
        self.revision = revision
        self._keyword = "$defs" if "$defs" in schema else "definitions"
        self._closed = _close_all(schema[self._keyword])
        self._document = {"$schema": schema["$schema"], self._keyword: self._closed}
        self._validators: dict[str, Any] = {}
        self.definitions = frozenset(self._closed)
        self._package = _jsonschema()

    def find(self, place: str) -> Node | None:
        """The closed schema at a place; None when this revision does not have it.

        A place is a definition ("Tool") or members inside of one ("CallToolRequest/params").
        """
        name, *steps = place.split("/")
        node = self._closed.get(name)
        for step in steps:
            if node is None:
                return None
            node = _resolve(self._closed, node).get("properties", {}).get(step)
        return None if node is None else _resolve(self._closed, node)

    def complaints(self, definition: str, value: Any) -> list[str]:
        """What is wrong with a value, one "path: reason" each; empty when it fits.

        `definition` is a place as in `find`; `value` is plain JSON.

        Raises:
            KeyError: this revision has no such definition.
        """
        validator = self._validators.get(definition)
        if validator is None:
            node = self.find(definition)
            if node is None:
                raise KeyError(definition)
            validator = self._validators[definition] = self._validator(node)
        return [_explain(error) for error in validator.iter_errors(value)]

    def _validator(self, node: Node) -> Any:
        # Both drafts keep definitions beside the rest of the root schema.
        document = {**node, **self._document}
        kind = self._package.validators.validator_for(document)
        checker = self._package.FormatChecker(formats=())
        checker.checks("uri")(_is_uri)
        checker.checks("byte")(_is_base64)
        return kind(document, format_checker=checker)


def _jsonschema() -> Any:
    try:
        import jsonschema
    except ModuleNotFoundError:
        raise Misconfigured(
            "the schema oracle needs a package of its own: pip install jsonschema"
        ) from None
    return jsonschema


# --- closing ------------------------------------------------------------------------------------


def _close_all(definitions: dict[str, Node]) -> dict[str, Node]:
    closed: dict[str, Node] = {}
    for name, node in definitions.items():
        is_open = name in _GENERAL or name.endswith("MetaObject")
        closed[name] = (
            _correct(name, node) if is_open else _close(definitions, _correct(name, node))
        )
    if "Result" in closed:
        # It declares itself open as the parent of all results; on the wire it is the empty result.
        closed["Result"]["additionalProperties"] = False
    for name, node in list(closed.items()):
        members = node.get("properties", {})
        if name not in _GENERAL and "const" in members.get("method", {}):
            _allow_meta(closed, members.get("params"))
    return closed


def _correct(name: str, node: Node) -> Node:
    """Mistakes of the published schemas, judged by their TypeScript source and the prose.

    A form has number fields, and their values are numbers; JSON has fractions and null. Making
    JSON Schema of the source turned both into integers and lost the null.
    """
    if name == "ElicitResult":
        text = json.dumps(node).replace(
            '["string", "integer", "boolean"]', '["string", "number", "boolean"]'
        )
        corrected: Node = json.loads(text)
        return corrected
    if name == "JSONValue":
        return {}
    return node


def _close(definitions: dict[str, Node], node: Any) -> Any:
    if isinstance(node, list):
        return [_close(definitions, part) for part in node]
    if not isinstance(node, dict):
        return node
    if "allOf" in node:
        # A part that is closed on its own would refuse the members of the others.
        node = _merged(definitions, node)
    closed = {key: _close(definitions, part) for key, part in node.items() if key != "properties"}
    if "properties" not in node:
        return closed
    closed["properties"] = {
        member: part
        if member == "_meta" or member in _CARRIED_SCHEMAS
        else _close_params(definitions, part)
        if member == "params"
        else _close(definitions, part)
        for member, part in node["properties"].items()
    }
    closed.setdefault("additionalProperties", False)
    return closed


def _close_params(definitions: dict[str, Node], node: Node) -> Node:
    """Parameters that declare themselves open are closed: only their `_meta` is meant."""
    closed: Node = _close(definitions, node)
    if "properties" in closed:
        closed["additionalProperties"] = False
    return closed


def _merged(definitions: dict[str, Node], node: Node) -> Node:
    """`allOf` as one schema: all members, all requirements; the later part wins."""
    merged: Node = {key: part for key, part in node.items() if key != "allOf"}
    members: dict[str, Any] = {}
    required: list[str] = []
    for part in [*(_resolve(definitions, one) for one in node["allOf"]), node]:
        if "allOf" in part and part is not node:
            part = _merged(definitions, part)
        members.update(part.get("properties", {}))
        required += part.get("required", [])
    return {**merged, "type": "object", "properties": members, "required": sorted(set(required))}


def _allow_meta(closed: dict[str, Node], node: Node | None) -> None:
    """The general request and notification have `_meta`; some schemas forget to repeat it."""
    if node is None:
        return
    node = _resolve(closed, node)
    for part in node.get("anyOf", []):
        _allow_meta(closed, part)
    if "properties" in node:
        node["properties"].setdefault("_meta", {"type": "object"})


def _resolve(definitions: dict[str, Node], node: Node) -> Node:
    while "$ref" in node:
        node = definitions[node["$ref"].rsplit("/", 1)[1]]
    return node


# --- formats and reasons ------------------------------------------------------------------------


def _is_uri(value: object) -> bool:
    return not isinstance(value, str) or _URI.fullmatch(value) is not None


def _is_base64(value: object) -> bool:
    if not isinstance(value, str):
        return True
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


# How far a kind of fault is from what was meant: another `type` is another thing altogether.
_DISTANCE = {"const": 9, "type": 9, "additionalProperties": 3}


def _explain(error: Any) -> str:
    """One line; of several alternatives, the one that came nearest."""
    while error.context:
        error = _nearest(error.context)
    return f"{error.json_path}: {error.message}"


def _nearest(errors: Iterable[Any]) -> Any:
    branches: dict[Any, list[Any]] = {}
    for error in errors:
        branches.setdefault(error.schema_path[0], []).append(error)

    def distance(branch: list[Any]) -> int:
        return sum(_DISTANCE.get(one.validator, 1) for one in branch)

    return min(branches.values(), key=distance)[0]
