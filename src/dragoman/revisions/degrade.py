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
| output schema that is no object | likewise | left out |
| a tool's title | before it existed | the title among the annotations, where those exist |
| several blocks in a sampling message | before lists | one message a block |
| several blocks in a sampling result | before lists | the text blocks joined, or the first block |
| tool use and tool result in sampling | before they existed | a line of text |
| tools in sampling | before they existed | refused: the answer could not be what was asked for |
| rich choices in a form | before they existed | `enum` with `enumNames`; multiple choice is refused |
| elicitation in URL mode | before it existed | refused |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from dragoman.errors import CannotLower
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
from dragoman.model.elicitation import ElicitParams
from dragoman.model.sampling import CreateMessageParams, CreateMessageResult, SamplingMessage
from dragoman.model.tools import CallToolResult, Tool, ToolAnnotations
from dragoman.revisions.dialect import Dialect, Loss

__all__ = [
    "audio_as_resource",
    "form_choices",
    "link_as_text",
    "object_output_only",
    "object_schema_only",
    "sampling_request",
    "sampling_result",
    "structured_as_text",
    "title_as_annotation",
]

Report = Callable[[Loss], None]


def audio_as_resource(value: AudioContent, dialect: Dialect, report: Report) -> EmbeddedResource:
    """Audio as an embedded resource: the bytes and their type survive."""
    report(Loss("AudioContent", "data", "an embedded resource with the same bytes"))
    subtype = value.mime_type.partition("/")[2] or "bin"
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


def object_schema_only(value: Tool, dialect: Dialect, report: Report) -> Tool:
    """An output schema that is no object is left out: results then come as text."""
    if value.output_schema is None or value.output_schema.get("type") == "object":
        return value
    report(Loss("Tool", "output_schema", "left out"))
    return msgspec.structs.replace(value, output_schema=None)


def title_as_annotation(value: Tool, dialect: Dialect, report: Report) -> Tool:
    """A tool's title moves to where this revision looks for one."""
    if value.title is None:
        return value
    hints = value.annotations or ToolAnnotations()
    if hints.title is None:
        hints = msgspec.structs.replace(hints, title=value.title)
    report(Loss("Tool", "title", "the annotation `title`"))
    return msgspec.structs.replace(value, title=None, annotations=hints)


# --- sampling -----------------------------------------------------------------------------------


def _block(value: SamplingBlock, dialect: Dialect, report: Report) -> SamplingBlock:
    """A block that sampling knows here: audio and tool traffic become text where it does not."""
    if isinstance(value, TextContent | ImageContent):
        return value
    if isinstance(value, AudioContent):
        if dialect.members.get("AudioContent"):
            return value
        report(Loss("AudioContent", "data", "a line of text"))
        return TextContent(text=f"[audio, {value.mime_type}, {len(value.data) * 3 // 4} bytes]")
    if dialect.facts.has_sampling_tools:
        return value
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
    """One message a block; blocks in this revision's words; no tools where it has none.

    Raises:
        CannotLower: tools are offered to a model that could not call them.
    """
    if value.tools and not dialect.facts.has_sampling_tools:
        raise CannotLower("a sampling request with tools", dialect.wire)
    messages: list[SamplingMessage] = []
    changed = False
    for message in value.messages:
        blocks = message.content if isinstance(message.content, list) else [message.content]
        lowered = [_block(block, dialect, report) for block in blocks]
        if dialect.facts.has_sampling_tools:
            same = all(a is b for a, b in zip(blocks, lowered, strict=True))
            if not same:
                message = msgspec.structs.replace(
                    message, content=lowered if isinstance(message.content, list) else lowered[0]
                )
                changed = True
            messages.append(message)
            continue
        if isinstance(message.content, list):
            report(Loss("SamplingMessage", "content", "one message a block"))
            changed = True
        elif lowered[0] is not message.content:
            changed = True
        messages += [
            msgspec.structs.replace(message, content=block) if changed else message
            for block in lowered
        ]
    return msgspec.structs.replace(value, messages=messages) if changed else value


def sampling_result(
    value: CreateMessageResult, dialect: Dialect, report: Report
) -> CreateMessageResult:
    """One block: the texts joined, or else the first block in this revision's words."""
    if not isinstance(value.content, list):
        block = _block(value.content, dialect, report)
        if block is value.content:
            return value
        return msgspec.structs.replace(value, content=block)
    if dialect.facts.has_sampling_tools:
        return value
    blocks = [_block(block, dialect, report) for block in value.content]
    if len(blocks) == 1:
        return msgspec.structs.replace(value, content=blocks[0])
    report(Loss("CreateMessageResult", "content", "one block"))
    texts = [block.text for block in blocks if isinstance(block, TextContent)]
    if texts or not blocks:
        return msgspec.structs.replace(value, content=TextContent(text="\n".join(texts)))
    return msgspec.structs.replace(value, content=blocks[0])


# --- elicitation --------------------------------------------------------------------------------

# What the first form language knows of each kind of field, besides `type`.
_PLAIN_KEYWORDS = {
    "string": {"type", "title", "description", "minLength", "maxLength", "format"},
    "number": {"type", "title", "description", "minimum", "maximum"},
    "integer": {"type", "title", "description", "minimum", "maximum"},
    "boolean": {"type", "title", "description", "default"},
}


def form_choices(value: ElicitParams, dialect: Dialect, report: Report) -> ElicitParams:
    """Choices as `enum` and `enumNames`; defaults only where they existed.

    Raises:
        CannotLower: URL mode, or a field with several choices at once.
    """
    if value.mode == "url":
        raise CannotLower("an elicitation in URL mode", dialect.wire)
    schema = value.requested_schema
    if schema is None:
        return value
    fields: dict[str, Any] = {}
    for name, definition in schema.get("properties", {}).items():
        fields[name] = _plain_field(name, definition, dialect, report)
    if value.mode is None and fields == schema.get("properties", {}):
        return value
    return msgspec.structs.replace(
        value, mode=None, requested_schema={**schema, "properties": fields}
    )


def _plain_field(
    name: str, definition: dict[str, Any], dialect: Dialect, report: Report
) -> dict[str, Any]:
    kind = definition.get("type")
    if kind == "array":
        raise CannotLower(f"the multiple choice {name!r}", dialect.wire)
    if "oneOf" in definition:
        report(Loss("ElicitParams", name, "enum with enumNames"))
        plain: dict[str, Any] = {
            key: definition[key] for key in ("title", "description") if key in definition
        }
        options = definition["oneOf"]
        return {
            "type": "string",
            **plain,
            "enum": [option["const"] for option in options],
            "enumNames": [option.get("title", option["const"]) for option in options],
        }
    if "enum" in definition:
        known = {"type", "title", "description", "enum", "enumNames"}
    else:
        known = _PLAIN_KEYWORDS.get(str(kind), set(definition))
    lost = set(definition) - known
    if not lost:
        return definition
    report(Loss("ElicitParams", name, f"without {', '.join(sorted(lost))}"))
    return {key: item for key, item in definition.items() if key in known}
