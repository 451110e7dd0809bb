"""Content blocks for a person: text as it is, everything else in a line, or in a file."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from dragoman.cli.printable import compact_json, one_line
from dragoman.client.results import ToolResult
from dragoman.errors import Misconfigured
from dragoman.model.content import (
    AudioContent,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceContents,
    ResourceLink,
    SamplingBlock,
    TextContent,
    ToolUseContent,
)

__all__ = ["Saver", "block_text", "part_text", "result_document", "summary"]

_SUFFIXES = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/gif": ".gif",
    "image/webp": ".webp",
    "image/svg+xml": ".svg",
    "audio/wav": ".wav",
    "audio/x-wav": ".wav",
    "audio/mpeg": ".mp3",
    "audio/ogg": ".ogg",
    "audio/flac": ".flac",
    "application/json": ".json",
    "application/pdf": ".pdf",
    "application/zip": ".zip",
    "text/plain": ".txt",
    "text/html": ".html",
    "text/markdown": ".md",
    "text/csv": ".csv",
}

# A folder full of one name is a loop, not a use.
MAX_TRIES = 10_000


class Saver:
    """Writes binary content into a folder, one new file each; nothing is ever overwritten.

    `stem` begins every name; a server's words never become a path.
    """

    def __init__(self, folder: str | Path, stem: str) -> None:
        self._folder = Path(folder)
        self._stem = re.sub(r"[^A-Za-z0-9_]+", "-", stem)[-60:].strip("-") or "content"

    def save(self, data: bytes, mime_type: str | None) -> Path:
        """Write one file and say where. Raises Misconfigured when the folder takes none."""
        suffix = _SUFFIXES.get((mime_type or "").split(";")[0].strip().lower(), ".bin")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for number in range(1, MAX_TRIES):
                path = self._folder / f"{self._stem}-{number}{suffix}"
                try:
                    with path.open("xb") as file:
                        file.write(data)
                except FileExistsError:
                    continue
                return path
        except OSError as error:
            raise Misconfigured(f"cannot save into {str(self._folder)!r}: {error}") from None
        raise Misconfigured(f"{str(self._folder)!r} is full of {self._stem}-…{suffix}")


def block_text(block: ContentBlock, saver: Saver | None = None) -> str:
    """What to print for one block of a result or a prompt."""
    match block:
        case TextContent():
            return block.text
        case ImageContent():
            return _binary("image", block.mime_type, block.data, saver)
        case AudioContent():
            return _binary("audio", block.mime_type, block.data, saver)
        case ResourceLink():
            kind = f", {block.mime_type}" if block.mime_type else ""
            about = f": {block.description}" if block.description else ""
            return one_line(f"[link to {block.uri} ({block.name}{kind}){about}]")
        case EmbeddedResource():
            return part_text(block.resource, saver)


def part_text(part: ResourceContents, saver: Saver | None = None) -> str:
    """What to print for one part of a resource."""
    if part.text is not None:
        return part.text
    return _binary(f"{part.uri}:", part.mime_type, part.blob or "", saver)


def summary(block: SamplingBlock) -> str:
    """What to print for one block of a sampling request."""
    match block:
        case TextContent():
            return block.text
        case ImageContent():
            return _binary("image", block.mime_type, block.data, None)
        case AudioContent():
            return _binary("audio", block.mime_type, block.data, None)
        case ToolUseContent():
            return one_line(f"[uses {block.name} {compact_json(block.input)}]")
        case _:
            inside = " ".join(_texts(block.content))
            failed = "failure" if block.is_error else "result"
            return one_line(f"[{failed} of {block.tool_use_id}] {inside}")


def _texts(blocks: Iterable[ContentBlock]) -> list[str]:
    return [block_text(block) for block in blocks]


def _binary(what: str, mime_type: str | None, data: str, saver: Saver | None) -> str:
    kind = mime_type or "of no stated type"
    try:
        decoded = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return one_line(f"[{what} {kind}, which is not base64]")
    size = f"{len(decoded):,} bytes"
    if saver is None:
        return one_line(f"[{what} {kind}, {size}]")
    return f"{one_line(f'[{what} {kind}, {size}')}, saved as {saver.save(decoded, mime_type)}]"


def result_document(result: ToolResult) -> dict[str, Any]:
    """A tool's result with the protocol's own names."""
    document: dict[str, Any] = {
        "content": msgspec.to_builtins(result.content),
        "isError": result.is_error,
    }
    if result.structured_content is not None:
        document["structuredContent"] = result.structured_content
    if result.meta:
        document["_meta"] = result.meta
    return document
