"""What a handler returns, as the content that goes to the peer.

`str` is text, `bytes` and the helpers `Image`, `Audio` and `File` are base64, content blocks are
themselves, and a list that holds any of them is a list of blocks in the same order. Everything
else is data: its JSON text, and structured content where it has an object's form.

Spec: server/tools#structured-content
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import msgspec

from dragoman.errors import Misconfigured
from dragoman.model.base import JSON, Annotations
from dragoman.model.checks import check_content
from dragoman.model.content import (
    AudioContent,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceContents,
    ResourceLink,
    TextContent,
)
from dragoman.model.faults import preview
from dragoman.model.tools import CallToolResult
from dragoman.server.schemas import Schema, from_text, to_text

__all__ = [
    "NO_OUTPUT",
    "Audio",
    "File",
    "Image",
    "Output",
    "as_blocks",
    "checked_block",
    "is_content",
    "to_data",
    "to_result",
]

BLOCKS = (TextContent, ImageContent, AudioContent, ResourceLink, EmbeddedResource)

# The first bytes of what tools return most; longer tables belong to libraries made for it.
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"%PDF-", "application/pdf"),
)
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}
# Formats whose media type is not their name.
_SUBTYPES = {"jpg": "jpeg", "svg": "svg+xml", "mp3": "mpeg"}


class _Media:
    """Bytes with a media type, given as bytes or as a file to read when the result is built."""

    family = "application"
    fallback = "application/octet-stream"
    name: str | None = None

    def __init__(
        self,
        data: bytes | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        format: str | None = None,
        annotations: Annotations | None = None,
    ) -> None:
        if (data is None) == (path is None):
            raise Misconfigured(f"{type(self).__name__} takes either data= or path=")
        self.data = data
        self.path = None if path is None else os.fspath(path)
        self.format = format
        self.annotations = annotations

    def read(self) -> bytes:
        """The bytes. Raises OSError when the file cannot be read."""
        if self.data is not None:
            return self.data
        assert self.path is not None
        with open(self.path, "rb") as file:
            return file.read()

    def mime_type(self, data: bytes) -> str:
        """From `format`, else the suffix of the file or the name, else the first bytes."""
        if self.format is not None:
            if "/" in self.format:
                return self.format
            name = self.format.lower().removeprefix(".")
            return self.of_format(name)
        for file in (self.path, self.name):
            if file is not None and (guess := _guess(file)):
                return guess
        return _sniff(data) or self.fallback

    def of_format(self, name: str) -> str:
        return f"{self.family}/{_SUBTYPES.get(name, name)}"


class Image(_Media):
    """A picture to return: `Image(data)`, `Image(path="chart.png")`, `Image(data, format="webp")`.

    Without `format` the media type comes from the file's suffix, or from the first bytes.
    """

    family = "image"
    fallback = "image/png"

    def block(self) -> ImageContent:
        """As a content block."""
        data = self.read()
        made = ImageContent.of(data, self.mime_type(data))
        return msgspec.structs.replace(made, annotations=self.annotations)


class Audio(_Media):
    """Sound to return; the same parameters as `Image`."""

    family = "audio"
    fallback = "audio/wav"

    def block(self) -> AudioContent:
        """As a content block."""
        data = self.read()
        made = AudioContent.of(data, self.mime_type(data))
        return msgspec.structs.replace(made, annotations=self.annotations)


class File(_Media):
    """Any file to return, as an embedded resource.

    `name` is what the reader sees; `uri` defaults to `resource:///` and that name, encoded. Text (by its
    media type, and UTF-8 all through) travels as text, everything else as base64.
    """

    def __init__(
        self,
        data: bytes | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        format: str | None = None,
        annotations: Annotations | None = None,
        name: str | None = None,
        uri: str | None = None,
    ) -> None:
        super().__init__(data, path=path, format=format, annotations=annotations)
        self.name = name
        self.uri = uri

    def of_format(self, name: str) -> str:
        return _guess(f"file.{name}") or f"application/{name}"

    def block(self) -> EmbeddedResource:
        """As a content block."""
        data = self.read()
        mime_type = self.mime_type(data)
        name = self.name or os.path.basename(self.path or "") or _file_name(mime_type)
        uri = self.uri or f"resource:///{quote(name)}"
        text = _as_text(data, mime_type)
        if text is None:
            contents = ResourceContents.of(uri, data, mime_type)
        else:
            contents = ResourceContents(uri=uri, text=text, mime_type=mime_type)
        return EmbeddedResource(resource=contents, annotations=self.annotations)


def _guess(name: str) -> str | None:
    # Loaded only where a file is returned; it reads the system's tables.
    import mimetypes

    return mimetypes.guess_type(name)[0]


def _file_name(mime_type: str) -> str:
    import mimetypes

    return f"result{mimetypes.guess_extension(mime_type) or '.bin'}"


def _as_text(data: bytes, mime_type: str) -> str | None:
    textual = ("application/json", "application/xml", "application/yaml", "application/toml")
    if not mime_type.startswith("text/") and mime_type not in textual:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _sniff(data: bytes) -> str | None:
    if data[:4] == b"RIFF":
        return _RIFF.get(data[8:12])
    return next((mime for magic, mime in _MAGIC if data.startswith(magic)), None)


# --- data -------------------------------------------------------------------------------------


class Output:
    """What a return annotation promises.

    `schema` is the output schema of the tool, or None when it promises no data. `wraps` says that
    the value travels as `{"result": value}`, since structured content must be an object.
    """

    __slots__ = ("annotation", "check", "dump", "schema", "wraps")

    def __init__(
        self,
        schema: Schema | None = None,
        *,
        wraps: bool = False,
        annotation: Any = Any,
        dump: Callable[[Any], JSON] | None = None,
    ) -> None:
        self.schema = schema
        self.wraps = wraps
        self.annotation = annotation
        self.dump = dump
        # The type checks what an encoder lets through: a dict that misses a member, a text where a
        # number was promised. Reading back what was written is the fastest way to do it.
        self.check = (
            None
            if schema is None or dump is not None
            else msgspec.json.Decoder(annotation, dec_hook=from_text).decode
        )

    def write(self, value: Any) -> tuple[JSON, str]:
        """The value as JSON holds it, and its JSON text, checked against the annotation.

        Raises:
            Misconfigured: the value is not what the annotation says, or JSON cannot hold it.
        """
        try:
            plain = to_data(value) if self.dump is None else self.dump(value)
            encoded = msgspec.json.encode(plain)
            # The encoder writes NaN and infinities as null, which says something else.
            if b"null" in encoded and (odd := _not_finite(plain)) is not None:
                raise Misconfigured(
                    f"the value returned holds {odd}, which JSON cannot hold; use None"
                )
            if self.check is not None:
                self.check(encoded)
        except (ValueError, msgspec.MsgspecError) as error:
            raise Misconfigured(
                f"the value returned does not fit the return annotation: {error}"
            ) from error
        return plain, encoded.decode("utf-8")


NO_OUTPUT = Output()
"""For a function without a return annotation, or one that returns content."""


def is_content(cls: type) -> bool:
    """Whether a class stands for content, not data, in a return annotation."""
    return issubclass(
        cls, (*BLOCKS, ResourceContents, CallToolResult, _Media, bytes, bytearray, memoryview)
    )


def to_result(value: Any, output: Output = NO_OUTPUT) -> CallToolResult:
    """Build the result of a call from what its handler returned.

    None is no content. A `CallToolResult` is passed through. Text that goes with structured
    content is the JSON of the value itself (a `str` as it is).

    Raises:
        Misconfigured: the value does not fit the annotation, holds NaN or an infinity, or has no
            JSON form. It is the author's to mend, so the peer is not told.
    """
    schema = output.schema
    if schema is not None:
        cls = value.__class__
        # Exactly what was promised, of a kind that needs no look inside.
        if cls is output.annotation and (cls is int or cls is str or cls is bool):
            return CallToolResult(
                content=[TextContent(text=_scalar_text(value))],
                structured_content={"result": value},
            )
    if isinstance(value, CallToolResult):
        return value
    if schema is None:
        if value is None:
            return CallToolResult(content=[])
        if (blocks := _blocks(value)) is not None:
            return CallToolResult(content=blocks)
        plain, text = output.write(value)
        return CallToolResult(
            content=[TextContent(text=text)],
            structured_content=plain if isinstance(plain, dict) else None,
        )
    plain, text = output.write(value)
    return CallToolResult(
        content=[TextContent(text=plain if isinstance(plain, str) else text)],
        structured_content={"result": plain} if output.wraps else plain,
    )


def _blocks(value: Any) -> list[ContentBlock] | None:
    """The value as content blocks; None when it is data."""
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        if not any(_is_block_like(item) for item in value):
            return None
        return [block for item in value for block in as_blocks(item)]
    return as_blocks(value) if isinstance(value, str) or _is_block_like(value) else None


def _is_block_like(value: Any) -> bool:
    return isinstance(value, (*BLOCKS, ResourceContents, _Media, bytes, bytearray, memoryview))


def as_blocks(value: Any) -> list[ContentBlock]:
    """One value as content blocks: none for None; data as its JSON text."""
    match value:
        case None:
            return []
        case str():
            return [TextContent(text=value)]
        case Image() | Audio() | File():
            return [value.block()]
        case bytes() | bytearray() | memoryview():
            return [_of_bytes(bytes(value))]
        case TextContent():
            return [value]
        case ResourceContents():
            return [checked_block(EmbeddedResource(resource=value))]
        case ImageContent() | AudioContent() | ResourceLink() | EmbeddedResource():
            return [checked_block(value)]
        case _:
            return [TextContent(text=NO_OUTPUT.write(value)[1])]


def checked_block(block: ContentBlock) -> ContentBlock:
    """A block of the author's own, with a media type where an embedded resource lacks one.

    Raises:
        Misconfigured: it is not what it says: no base64, no URI.
    """
    if isinstance(block, EmbeddedResource) and block.resource.mime_type is None:
        kind = "text/plain" if block.resource.text is not None else "application/octet-stream"
        resource = msgspec.structs.replace(block.resource, mime_type=kind)
        block = msgspec.structs.replace(block, resource=resource)
    try:
        check_content(block)
    except ValueError as fault:
        raise Misconfigured(str(fault)) from None
    return block


def _of_bytes(data: bytes) -> ContentBlock:
    mime_type = _sniff(data) or ""
    if mime_type.startswith("image/"):
        return ImageContent.of(data, mime_type)
    if mime_type.startswith("audio/"):
        return AudioContent.of(data, mime_type)
    return File(data).block()


def to_data(value: Any) -> JSON:
    """Any data as JSON values.

    Raises:
        Misconfigured: JSON has no form for it.
    """
    dump = getattr(value, "model_dump", None)
    try:
        # A model of pydantic's that no annotation promised; it brings its own way out.
        if dump is not None and hasattr(value, "__pydantic_serializer__"):
            return dump(mode="json", by_alias=True)
        return msgspec.to_builtins(value, str_keys=True, enc_hook=_to_text)
    except (TypeError, ValueError, NotImplementedError, RecursionError) as error:
        raise Misconfigured(
            f"a {type(value).__name__} was returned that has no JSON form: {error}; return text, "
            "content blocks, or data made of dicts, lists, numbers and records"
        ) from error


def _to_text(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if dump is not None and hasattr(value, "__pydantic_serializer__"):
        return dump(mode="json", by_alias=True)
    return to_text(value)


def _scalar_text(value: str | int | bool) -> str:
    if value.__class__ is str:
        return value
    if value is True:
        return "true"
    return "false" if value is False else str(value)


def _not_finite(plain: JSON) -> str | None:
    waiting = [plain]
    while waiting:
        item = waiting.pop()
        if isinstance(item, float) and not math.isfinite(item):
            return preview(item)
        if isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, (list, tuple)):
            waiting.extend(item)
    return None
