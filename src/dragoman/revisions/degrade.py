"""What a peer of an older revision gets instead of a value its revision cannot hold.

Each function here is a substitute: it takes a record, returns another that the revision has, and
reports the difference. What is not listed here is simply left out where it does not exist (a
title, an icon), which is reported too.

| value | where it is missing | what the peer gets |
|---|---|---|
| audio block | before it existed | in tools and prompts: an embedded resource with the same bytes; in sampling: a line of text |
| resource link | before it existed | a line of text with its name and URI |
| structured output | before it existed | its JSON text, if the content holds no block at all |
| structured output that is no object | before any JSON was allowed | its JSON text, likewise |
| the same inside of a tool result in sampling | likewise | likewise |
| output schema that is no object | likewise | left out |
| `true` or `false` as the schema of a property | likewise | `{}` or `{"not": {}}`, which mean the same |
| a tool's title | before it existed | the title among the annotations, where those exist |
| several blocks in a sampling message | before lists | one message a block |
| several blocks in a sampling result | before lists | the text blocks joined, or the first block |
| tool use and tool result in sampling | before they existed | a line of text |
| tools in sampling | before they existed | refused: the answer could not be what was asked for |
| elicitation by URL only, as a capability | before modes existed | no elicitation: an empty object would promise forms |
| elicitation in URL mode | before it existed | refused |
| elicitation in URL mode without an id | where it is required | the URL is the id |
| titled choices in a form | before they existed | `enum` with `enumNames` |
| multiple choice in a form, and its answer | before it existed | refused |
| a keyword or a format that forms do not have | everywhere | the form without it |
| a form field of any other kind | everywhere | refused |
| null as the answer to a form field | everywhere | no answer to that field |
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from dragoman.errors import CannotLower
from dragoman.model.capabilities import ClientCapabilities
from dragoman.model.content import (
    AudioContent,
    EmbeddedResource,
    ImageContent,
    ResourceContents,
    ResourceLink,
    SamplingBlock,
    TextContent,
    ToolResultContent,
    ToolUseContent,
)
from dragoman.model.elicitation import ElicitParams, ElicitResult
from dragoman.model.sampling import CreateMessageParams, CreateMessageResult, SamplingMessage
from dragoman.model.tools import CallToolResult, Tool, ToolAnnotations
from dragoman.revisions.dialect import Dialect, Loss

__all__ = [
    "answers_only",
    "audio_as_resource",
    "elicitation_by_form",
    "form",
    "link_as_text",
    "object_output_only",
    "object_result_only",
    "object_schemas_only",
    "sampling_message",
    "sampling_request",
    "sampling_result",
    "schemas_as_objects",
    "structured_as_text",
    "title_as_annotation",
]

Report = Callable[[Loss], None]

_NOT_IN_A_URI = re.compile(r"[^A-Za-z0-9.+-]+")


def audio_as_resource(value: AudioContent, dialect: Dialect, report: Report) -> EmbeddedResource:
    """Audio as an embedded resource: the bytes and their type survive."""
    report(Loss("AudioContent", "data", "an embedded resource with the same bytes"))
    # the type's parameters and whatever else a peer wrote there must not spoil the URI
    subtype = _NOT_IN_A_URI.sub("-", value.mime_type.partition("/")[2].partition(";")[0]) or "bin"
    return EmbeddedResource(
        resource=ResourceContents(
            uri=f"audio:embedded.{subtype}", blob=value.data, mime_type=value.mime_type
        ),
        annotations=value.annotations,
        meta=value.meta,
    )


def link_as_text(value: ResourceLink, dialect: Dialect, report: Report) -> TextContent:
    """A link as one line that a model can read and act on."""
    report(Loss("ResourceLink", "uri", "a line of text"))
    label = value.title or value.name
    about = f" - {value.description}" if value.description else ""
    kind = f" ({value.mime_type})" if value.mime_type else ""
    return TextContent(text=f"[{label}]({value.uri}){kind}{about}", annotations=value.annotations)


def structured_as_text(value: CallToolResult, dialect: Dialect, report: Report) -> CallToolResult:
    """Structured output as its JSON text, unless there is content that says it already."""
    if value.structured_content is None or value.content:
        return value
    text = msgspec.json.encode(value.structured_content).decode()
    report(Loss("CallToolResult", "structured_content", "its JSON text"))
    return msgspec.structs.replace(value, content=[TextContent(text=text)], structured_content=None)


def object_output_only(value: CallToolResult, dialect: Dialect, report: Report) -> CallToolResult:
    """Structured output that is no object as its JSON text."""
    if value.structured_content is None or isinstance(value.structured_content, dict):
        return value
    if value.content:
        report(Loss("CallToolResult", "structured_content", "only the text form"))
        return msgspec.structs.replace(value, structured_content=None)
    return structured_as_text(value, dialect, report)


def object_result_only(
    value: ToolResultContent, dialect: Dialect, report: Report
) -> ToolResultContent:
    """The same for a tool result that goes back to a model."""
    output = value.structured_content
    if output is None or isinstance(output, dict):
        return value
    content = value.content
    if not content:
        content = [TextContent(text=msgspec.json.encode(output).decode())]
    report(Loss("ToolResultContent", "structured_content", "only the text form"))
    return msgspec.structs.replace(value, content=content, structured_content=None)


def schemas_as_objects(value: Tool, dialect: Dialect, report: Report) -> Tool:
    """The schema of a property is an object: `true` and `false` are written as ones."""
    output = value.output_schema
    if not _has_boolean(value.input_schema) and (output is None or not _has_boolean(output)):
        return value
    report(Loss("Tool", "input_schema", "`true` and `false` written as schemas"))
    return msgspec.structs.replace(
        value,
        input_schema=_properties_as_objects(value.input_schema),
        output_schema=output and _properties_as_objects(output),
    )


def _has_boolean(schema: dict[str, Any]) -> bool:
    properties = schema.get("properties")
    # a list of tools asks this for each of them: by type, in C
    return type(properties) is dict and bool in map(type, properties.values())


def _properties_as_objects(schema: dict[str, Any]) -> dict[str, Any]:
    if not _has_boolean(schema):
        return schema
    plain = {
        name: {} if part is True else {"not": {}} if part is False else part
        for name, part in schema["properties"].items()
    }
    return {**schema, "properties": plain}


def object_schemas_only(value: Tool, dialect: Dialect, report: Report) -> Tool:
    """An output schema that is no object is left out: results then come as text."""
    if value.output_schema is not None and value.output_schema.get("type") != "object":
        report(Loss("Tool", "output_schema", "left out"))
        value = msgspec.structs.replace(value, output_schema=None)
    return schemas_as_objects(value, dialect, report)


def title_as_annotation(value: Tool, dialect: Dialect, report: Report) -> Tool:
    """A tool's title moves to where this revision looks for one, unless one is there."""
    value = schemas_as_objects(value, dialect, report)
    if value.title is None:
        return value
    hints = value.annotations or ToolAnnotations()
    if hints.title is None:
        hints = msgspec.structs.replace(hints, title=value.title)
    report(Loss("Tool", "title", f"the annotation `title`, {hints.title!r}"))
    return msgspec.structs.replace(value, title=None, annotations=hints)


# --- sampling -----------------------------------------------------------------------------------


def _block(value: SamplingBlock, dialect: Dialect, report: Report) -> SamplingBlock:
    """A block that sampling knew before tools: what it did not know becomes text."""
    if isinstance(value, TextContent | ImageContent):
        return value
    if isinstance(value, AudioContent):
        if dialect.members.get("AudioContent"):
            return value
        report(Loss("AudioContent", "data", "a line of text"))
        return TextContent(text=f"[audio, {value.mime_type}, {len(value.data) * 3 // 4} bytes]")
    if isinstance(value, ToolUseContent):
        report(Loss("ToolUseContent", "input", "a line of text"))
        arguments = msgspec.json.encode(value.input).decode()
        return TextContent(text=f"[tool call {value.id}: {value.name}({arguments})]")
    report(Loss("ToolResultContent", "content", "lines of text"))
    return TextContent(text=_result_text(value))


def _result_text(value: ToolResultContent) -> str:
    texts = [block.text for block in value.content if isinstance(block, TextContent)]
    rest = len(value.content) - len(texts)
    if rest:
        texts.append(f"[{rest} more blocks that are not text]")
    failed = " failed" if value.is_error else ""
    return f"[tool result {value.tool_use_id}{failed}] " + "\n".join(texts)


def sampling_request(
    value: CreateMessageParams, dialect: Dialect, report: Report
) -> CreateMessageParams:
    """One message a block, and no tools.

    Raises:
        CannotLower: tools are offered to a model that could not call them.
    """
    if value.tools:
        raise CannotLower("a sampling request with tools", dialect.wire)
    if not any(isinstance(message.content, list) for message in value.messages):
        return value
    messages: list[SamplingMessage] = []
    for message in value.messages:
        if isinstance(message.content, list):
            report(Loss("SamplingMessage", "content", "one message a block"))
            messages += [
                msgspec.structs.replace(message, content=block) for block in message.content
            ]
        else:
            messages.append(message)
    return msgspec.structs.replace(value, messages=messages)


def sampling_message(value: SamplingMessage, dialect: Dialect, report: Report) -> SamplingMessage:
    """One block in this revision's words.

    Raises:
        CannotLower: it does not hold exactly one; only a whole request can be split.
    """
    content = value.content
    if isinstance(content, list):
        if len(content) != 1:
            raise CannotLower(f"a sampling message of {len(content)} blocks", dialect.wire)
        report(Loss("SamplingMessage", "content", "its only block"))
        content = content[0]
    block = _block(content, dialect, report)
    return value if block is value.content else msgspec.structs.replace(value, content=block)


def sampling_result(
    value: CreateMessageResult, dialect: Dialect, report: Report
) -> CreateMessageResult:
    """One block: the texts joined, or else the first block in this revision's words."""
    if not isinstance(value.content, list):
        block = _block(value.content, dialect, report)
        return value if block is value.content else msgspec.structs.replace(value, content=block)
    blocks = [_block(block, dialect, report) for block in value.content]
    report(Loss("CreateMessageResult", "content", "one block"))
    texts = [block.text for block in blocks if isinstance(block, TextContent)]
    if len(blocks) == 1 or not texts:
        one = blocks[0] if blocks else TextContent(text="")
    else:
        one = TextContent(text="\n".join(texts))
    return msgspec.structs.replace(value, content=one)


# --- elicitation --------------------------------------------------------------------------------


def elicitation_by_form(
    value: ClientCapabilities, dialect: Dialect, report: Report
) -> ClientCapabilities:
    """A client that asks by URL only does not promise forms, as an empty object would."""
    asks = value.elicitation
    if asks is None or asks.url is None or asks.form is not None:
        return value
    report(Loss("ClientCapabilities", "elicitation", "left out: it has no form mode"))
    return msgspec.structs.replace(value, elicitation=None)


# Members of a form, and of each kind of field, as the schemas of the two form languages have them.
_LABELS = frozenset({"type", "title", "description"})
_FORM = frozenset({"type", "properties", "required"})
_TEXT = _LABELS | {"minLength", "maxLength", "format"}
_NUMBER = _LABELS | {"minimum", "maximum"}
_PLAIN_FIELDS = {
    "string": _TEXT,
    "number": _NUMBER,
    "integer": _NUMBER,
    "boolean": _LABELS | {"default"},
    "enum": _LABELS | {"enum", "enumNames"},
}
_RICH_FORM = _FORM | {"$schema"}
_RICH_FIELDS = {
    **{kind: keywords | {"default"} for kind, keywords in _PLAIN_FIELDS.items()},
    "oneOf": _LABELS | {"oneOf", "default"},
    "array": _LABELS | {"items", "minItems", "maxItems", "default"},
}
_FORMATS = frozenset({"email", "uri", "date", "date-time"})


def form(value: ElicitParams, dialect: Dialect, report: Report) -> ElicitParams:
    """A question in this revision's form language: only the keywords it has.

    Raises:
        CannotLower: URL mode or several choices at once where they do not exist; a field that is
            no text, number, boolean or choice.

    Spec: client/elicitation#requested-schema
    """
    if value.mode == "url":
        return _page(value, dialect, report)
    changes: dict[str, Any] = {}
    for stray in ("url", "elicitation_id"):
        if getattr(value, stray) is not None:
            report(Loss("ElicitParams", stray, "left out of a form"))
            changes[stray] = None
    schema = value.requested_schema or {}
    rich = dialect.facts.has_rich_enums
    asked = schema.get("properties", {})
    if not isinstance(asked, dict):
        raise CannotLower("a form whose fields have no names", dialect.wire)
    plain = _kept(schema, _RICH_FORM if rich else _FORM, "requested_schema", report)
    if plain.get("type") != "object" or "properties" not in plain:
        report(Loss("ElicitParams", "requested_schema", "the schema of an object"))
        plain["type"] = "object"
    plain["properties"] = {name: _field(name, asked[name], dialect, report) for name in asked}
    if plain != schema:
        changes["requested_schema"] = plain
    return msgspec.structs.replace(value, **changes) if changes else value


def _page(value: ElicitParams, dialect: Dialect, report: Report) -> ElicitParams:
    if not dialect.facts.has_url_elicitation:
        raise CannotLower("an elicitation in URL mode", dialect.wire)
    changes: dict[str, Any] = {}
    if value.requested_schema is not None:
        report(Loss("ElicitParams", "requested_schema", "left out beside a URL"))
        changes["requested_schema"] = None
    if value.elicitation_id is None and "elicitationId" in dialect.members["ElicitParams"]:
        report(Loss("ElicitParams", "elicitation_id", "the URL"))
        changes["elicitation_id"] = value.url
    return msgspec.structs.replace(value, **changes) if changes else value


def _kept(
    schema: dict[str, Any], keywords: frozenset[str], name: str, report: Report
) -> dict[str, Any]:
    """A schema with these keywords only; a keyword without a value counts as not there."""
    lost = [key for key in schema if key not in keywords]
    if lost:
        report(Loss("ElicitParams", name, f"without {', '.join(sorted(lost))}"))
    return {key: part for key, part in schema.items() if key in keywords}


def _field(name: str, asked: Any, dialect: Dialect, report: Report) -> dict[str, Any]:
    rich = dialect.facts.has_rich_enums
    kind = _kind_of(asked) if isinstance(asked, dict) else ""
    if kind == "oneOf" and not rich:
        report(Loss("ElicitParams", name, "enum with enumNames"))
        options = asked["oneOf"]
        labels = {key: asked[key] for key in ("title", "description") if key in asked}
        return {
            "type": "string",
            **labels,
            "enum": [option["const"] for option in options],
            "enumNames": [option.get("title", option["const"]) for option in options],
        }
    known = (_RICH_FIELDS if rich else _PLAIN_FIELDS).get(kind)
    if known is None:
        what = "multiple choice" if kind == "array" else "form field"
        raise CannotLower(f"the {what} {name!r}", dialect.wire)
    field = _kept(asked, known, name, report)
    if "type" not in field:
        report(Loss("ElicitParams", name, "a text, as its choices are"))
        field["type"] = "string"
    if kind == "array":
        field["items"] = _items(name, asked["items"], report)
    if kind == "oneOf":
        field["oneOf"] = _options(name, asked["oneOf"], report)
    if "format" in field and field["format"] not in _FORMATS:
        report(Loss("ElicitParams", name, f"without the format {field['format']!r}"))
        del field["format"]
    return asked if field == asked else field


def _kind_of(asked: dict[str, Any]) -> str:
    """The row of the tables above that a field belongs to, or a word that is in none of them."""
    kind = asked.get("type")
    if kind == "array":
        return "array" if _are_choices(asked.get("items")) else "list"
    if kind in ("string", None) and ("oneOf" in asked or "enum" in asked):
        if _are_titled(asked.get("oneOf")):
            return "oneOf"
        return "enum" if _are_texts(asked.get("enum")) else "choice"
    return str(kind)


def _are_texts(options: Any) -> bool:
    return isinstance(options, list) and all(isinstance(option, str) for option in options)


def _are_titled(options: Any) -> bool:
    return isinstance(options, list) and all(
        isinstance(option, dict) and isinstance(option.get("const"), str) for option in options
    )


def _are_choices(items: Any) -> bool:
    return isinstance(items, dict) and (
        _are_titled(items["anyOf"]) if "anyOf" in items else _are_texts(items.get("enum"))
    )


def _items(name: str, items: dict[str, Any], report: Report) -> dict[str, Any]:
    if "anyOf" in items:
        plain = _kept(items, frozenset({"anyOf"}), name, report)
        return {**plain, "anyOf": _options(name, items["anyOf"], report)}
    if items.get("type") != "string":
        report(Loss("ElicitParams", name, "texts, as its choices are"))
    return {**_kept(items, frozenset({"type", "enum"}), name, report), "type": "string"}


def _options(name: str, options: list[dict[str, Any]], report: Report) -> list[dict[str, Any]]:
    """Titled choices; one without a title is called what it is."""
    if any("title" not in option for option in options):
        report(Loss("ElicitParams", name, "choices titled by their value"))
    return [
        {"title": option["const"], **_kept(option, frozenset({"const", "title"}), name, report)}
        for option in options
    ]


def answers_only(value: ElicitResult, dialect: Dialect, report: Report) -> ElicitResult:
    """Answers a form can have: no null, and several at once only where that exists.

    Raises:
        CannotLower: an answer is a list, where forms have no multiple choice.
    """
    content = value.content
    if not content:
        return value
    for name, answer in content.items():
        if isinstance(answer, list) and not dialect.facts.has_rich_enums:
            raise CannotLower(f"the answer to the multiple choice {name!r}", dialect.wire)
    answered = {name: answer for name, answer in content.items() if answer is not None}
    if len(answered) == len(content):
        return value
    report(Loss("ElicitResult", "content", "without the fields that have no answer"))
    return msgspec.structs.replace(value, content=answered)
