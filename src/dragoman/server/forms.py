"""Forms for the user: a Python type as the flat schema that elicitation allows, and its answer.

Spec: client/elicitation#requested-schema
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Literal, TypeVar

import msgspec

from dragoman.errors import ArgumentFault, BadAnswer, Misconfigured
from dragoman.model.checks import check_elicitation
from dragoman.model.elicitation import ElicitParams, ElicitResult

__all__ = ["Elicited", "Form"]

T = TypeVar("T")


class Elicited(Generic[T]):
    """What the user did with a question.

    `action` is "accept", "decline" or "cancel"; `data` is the answer as the type that was asked
    for (a dict for a plain schema), None unless accepted; `content` is the answer as it came.
    """

    __slots__ = ("action", "content", "data")

    def __init__(
        self,
        action: Literal["accept", "decline", "cancel"],
        data: T | None,
        content: dict[str, Any] | None,
    ) -> None:
        self.action = action
        self.data = data
        self.content = content

    def __bool__(self) -> bool:
        return self.action == "accept"

    def __repr__(self) -> str:
        return f"<Elicited {self.action} {self.data!r}>"


class Form:
    """A question's schema, and how to read its answer.

    `shape` is a JSON Schema as a dict, or a type: a record of plain fields, or one plain type,
    which is asked as the single field `value`.

    Raises:
        Misconfigured: the shape holds something a form cannot ask for, such as a record in a
            record.
    """

    __slots__ = ("_is_single", "_shape", "schema")

    def __init__(self, shape: Any) -> None:
        self._shape = shape
        self._is_single = False
        if isinstance(shape, dict):
            self.schema = shape
        else:
            self.schema = self._schema_of(shape)
        try:
            check_elicitation(ElicitParams(message="", requested_schema=self.schema))
        except ValueError as fault:
            raise Misconfigured(str(fault)) from None

    def _schema_of(self, shape: Any) -> dict[str, Any]:
        from dragoman.server.schemas_of import schema_of

        schema = schema_of(shape)
        if schema.get("type") != "object":
            self._is_single = True
            schema = {"type": "object", "properties": {"value": schema}, "required": ["value"]}
        definitions = schema.pop("$defs", {})
        if isinstance(schema.pop("additionalProperties", None), dict):
            raise Misconfigured("a form's fields have names; a mapping has none to ask for")
        schema.pop("title", None)
        schema.pop("description", None)
        schema["properties"] = {
            name: _flat(field, definitions) for name, field in schema.get("properties", {}).items()
        }
        return schema

    def read(self, result: ElicitResult) -> Elicited[Any]:
        """The answer as the type that was asked for.

        Raises:
            BadAnswer: the answer does not fit the schema; the client should have checked.
        """
        if result.action != "accept":
            return Elicited(result.action, None, None)
        content = dict(result.content or {})
        if isinstance(self._shape, dict):
            from dragoman.model.faults import find_faults

            faults = find_faults(self.schema, content)
            if faults:
                raise _bad_answer(faults)
            return Elicited(result.action, content, content)
        from dragoman.server.schemas_of import read_as

        value: Any = content.get("value") if self._is_single else content
        try:
            return Elicited(result.action, read_as(self._shape, value), content)
        except ValueError as fault:
            shown = ArgumentFault("", "an answer that fits the form", str(fault))
            raise _bad_answer([shown]) from None


def _bad_answer(faults: Sequence[ArgumentFault]) -> BadAnswer:
    return BadAnswer("elicitation/create", "; ".join(str(fault) for fault in faults), faults)


def _flat(field: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """One field in the words a form allows: references inlined, an optional one made plain."""
    if "$ref" in field:
        target = definitions[field["$ref"].rsplit("/", 1)[1]]
        return _flat({**target, **{k: v for k, v in field.items() if k != "$ref"}}, definitions)
    options = field.get("anyOf")
    if options is not None:
        kept = [one for one in options if one.get("type") != "null"]
        if len(kept) == 1:
            rest = {k: v for k, v in field.items() if k not in ("anyOf", "default")}
            default = field.get("default")
            if default is not None:
                rest["default"] = default
            return _flat({**kept[0], **rest}, definitions)
    kind = field.get("type")
    if isinstance(kind, list):
        kinds = [one for one in kind if one != "null"]
        if len(kinds) == 1:
            field = {**field, "type": kinds[0]}
    if field.get("default", msgspec.UNSET) is None:
        field = {k: v for k, v in field.items() if k != "default"}
    if "enum" in field and "type" not in field:
        field = {"type": "string", **field}
    if field.get("type") == "array" and "items" in field:
        items = _flat(field["items"], definitions)
        field = {**field, "items": items}
        field.pop("uniqueItems", None)
    return {k: v for k, v in field.items() if k not in ("additionalProperties",)}
