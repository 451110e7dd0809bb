"""What others say, made fit for a model: what nobody sees taken out, what is large kept aside."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from dragoman.client.results import ToolResult
from dragoman.host.chat.events import News, Notice
from dragoman.host.chat.needs import Bounds
from dragoman.host.handles import PAGE_CHARS, Handles, Page
from dragoman.host.models.base import ChatModel, ToolUse
from dragoman.host.models.words import IMAGE_TYPES, as_text, read_arguments
from dragoman.host.toolbox import READ_RESULT
from dragoman.host.transcript import IMAGE_TOKENS, MAX_PICTURES
from dragoman.model.content import (
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceContents,
    SamplingBlock,
    TextContent,
    ToolResultContent,
)
from dragoman.model.unseen import one_line

__all__ = ["Given", "failed", "succeeded"]

# Tags and variation selectors beyond the first 16: letters that a model reads and nobody sees.
_HIDDEN = re.compile("[\U000e0000-\U000e0fff]")

# 5 MB of base64: what providers take for one picture.
MAX_IMAGE_CHARS = 5_000_000
# 64 tokens of a text are given however little room there is: enough to know what it is.
MIN_TOKENS = 64
# 2,000 characters of an error, or of what is wrong with a result: nothing is looked up in those.
REMARK_CHARS = 2_000
# How the files begin that providers take as pictures; one of another kind would be refused, and
# with it every request from then on.
_BEGINNINGS = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/gif": re.compile(rb"GIF8[79]a"),
    "image/webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
}


def failed(use: ToolUse, text: str) -> ToolResultContent:
    """The answer to a call that did not come about."""
    content: list[ContentBlock] = [TextContent(text=text)]
    return ToolResultContent(tool_use_id=use.id, content=content, is_error=True)


def succeeded(use: ToolUse, text: str) -> ToolResultContent:
    """The answer to a call of one of our own tools."""
    return ToolResultContent(tool_use_id=use.id, content=[TextContent(text=text)])


class Given:
    """Results, resources and prompts as a conversation's model gets them.

    `free` says how many tokens the context has for what was said, tools and answer taken off.
    """

    def __init__(
        self, model: ChatModel, handles: Handles, bounds: Bounds, free: Callable[[], int]
    ) -> None:
        self._model = model
        self._handles = handles
        self._bounds = bounds
        self._free = free

    def share(self, count: int, used: int = 0) -> int:
        """How many tokens each of so many texts may take that come at the same time.

        Together at most half of what is free, when `used` has to stay: the model has to have seen
        them before they may go.
        """
        each = (self._free() - used) // 2 // max(count, 1)
        return min(self._bounds.result_tokens, max(each, MIN_TOKENS))

    # --- what servers give ------------------------------------------------------------------------

    def result(self, server: str, result: ToolResult, share: int, news: News) -> list[ContentBlock]:
        """The result of a tool, its text in at most `share` tokens."""
        content: list[ContentBlock] = list(result.content)
        pictures, others = self._parted(content)
        found = [as_text(one) for one in others]
        if result.structured_content is not None and not _says(found, result.structured_content):
            found.append(_json(result.structured_content))
        text = "\n".join(found)
        blocks: list[ContentBlock] = []
        if text.strip():
            blocks.append(TextContent(text=self.text(server, text, share, news)))
        blocks += pictures
        return blocks or [TextContent(text="(the result is empty)")]

    def resource(
        self, server: str, part: ResourceContents, share: int, news: News
    ) -> list[SamplingBlock]:
        """A part of a resource that the person brought along."""
        if part.blob is not None and part.mime_type:
            picture = ImageContent(data=part.blob, mime_type=part.mime_type)
            if _is_picture(picture):
                return [picture]
        text = self.text(server, as_text(EmbeddedResource(resource=part)), share, news)
        uri = one_line(part.uri, REMARK_CHARS)
        return [TextContent(text=f"The resource {uri} of the server {server!r}:\n{text}")]

    def said(self, server: str, block: ContentBlock, share: int, news: News) -> list[SamplingBlock]:
        """A block of a prompt's message; none for a blank one."""
        pictures, others = self._parted([block])
        text = "\n".join(as_text(one) for one in others)
        blocks: list[SamplingBlock] = [*pictures]
        if text.strip():
            blocks.append(TextContent(text=self.text(server, text, share, news)))
        return blocks

    def remark(self, text: str) -> str:
        """A short text in which a stranger's words may stand: an error, a flag."""
        clear = _HIDDEN.sub("", text)
        return clear if len(clear) <= REMARK_CHARS else clear[: REMARK_CHARS - 1] + "…"

    def text(self, server: str, text: str, share: int, news: News) -> str:
        """A text in at most about `share` tokens; what is longer is kept, to be read on."""
        clear = _HIDDEN.sub("", text)
        if clear != text:
            count = len(text) - len(clear)
            news.add(Notice(text=f"{count} hidden characters of {server} were left out"))
        beginning = self._beginning(clear, share)
        if len(beginning) == len(clear):
            return clear
        handle = self._handles.keep(clear, server)
        if handle is None:
            rest = "the rest was too large to be kept"
        else:
            rest = f"read on with {READ_RESULT}: handle {handle}, offset {len(beginning)}"
        return f"{beginning}\n[{len(clear)} characters in all; {rest}]"

    def _beginning(self, text: str, share: int) -> str:
        """As much of a text as costs so many tokens, or all of it."""
        # An estimate is at most one token a character: what is short is not even counted.
        if len(text) <= share or self._model.count_tokens(text) <= share:
            return text
        size = share * 3
        while size > 1 and self._model.count_tokens(text[:size]) > share:
            size //= 2
        return text[:size]

    def _parted(
        self, content: Sequence[ContentBlock]
    ) -> tuple[list[ImageContent], list[ContentBlock]]:
        """The pictures that there is room for, and all the rest."""
        # One picture is looked at even where there is little room; a provider says if it is too much.
        most = min(MAX_PICTURES, max(self._free() // 2 // IMAGE_TOKENS, 1))
        pictures: list[ImageContent] = []
        others: list[ContentBlock] = []
        for one in content:
            if isinstance(one, ImageContent) and len(pictures) < most and _is_picture(one):
                pictures.append(one)
            else:
                others.append(one)
        return pictures, others

    # --- reading on -------------------------------------------------------------------------------

    def read_on(self, use: ToolUse, share: int, news: News) -> ToolResultContent:
        """Answer a call of `read_result`: a page of what was kept, or where a text occurs."""
        given = read_arguments(use.arguments) or {}
        handle = str(given.get("handle", ""))
        server = self._handles.server_of(handle)
        if server is None:
            shown = one_line(handle, 40)
            return failed(use, f"There is no result {shown!r} any more; call the tool again.")
        news.add(Notice(text=f"the model reads on in a large result of {server}"))
        wanted = given.get("search")
        if isinstance(wanted, str) and wanted:
            pages = self._handles.search(handle, wanted) or []
            if not pages:
                return succeeded(use, f"{one_line(wanted, 200)!r} does not occur in {handle}.")
        else:
            offset = _whole(given.get("offset"), 0)
            length = _whole(given.get("length"), share * 3)
            pages = [self._page(handle, offset, length, share)]
        return succeeded(use, self._beginning("\n\n".join(map(_shown, pages)), share + MIN_TOKENS))

    def _page(self, handle: str, offset: int, length: int, share: int) -> Page:
        page = self._handles.read(handle, offset, min(length, PAGE_CHARS))
        assert page is not None
        text = self._beginning(page.text, share)
        return Page(text, page.offset, page.total)


def _is_picture(block: ImageContent) -> bool:
    """Whether a provider takes it as a picture: of a known kind, not too large, and really one."""
    if len(block.data) > MAX_IMAGE_CHARS or block.mime_type not in IMAGE_TYPES:
        return False
    try:
        data = base64.b64decode(block.data, validate=True)
    except (binascii.Error, ValueError):
        return False
    return _BEGINNINGS[block.mime_type].match(data) is not None


def _says(texts: Sequence[str], data: dict[str, Any]) -> bool:
    """Whether the data of a result stand in its text as well, as they should."""
    found = [_read(text) for text in texts]
    if data in found:
        return True
    if list(data) != ["result"]:
        return False
    # How servers write what is no object: the value as JSON or plain, a list's in many texts.
    value = data["result"]
    return value in found or value in texts or value == found or value == list(texts)


def _read(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return text


def _json(data: dict[str, Any]) -> str:
    try:
        return json.dumps(data, ensure_ascii=False)
    except RecursionError:
        return "(its data are nested too deeply to be shown)"


def _whole(value: Any, default: int) -> int:
    """A number as models write one: 3, 3.0 or "3"."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return default


def _shown(page: Page) -> str:
    end = page.offset + len(page.text)
    if not page.text:
        return f"[nothing: the result ends at character {page.total}]"
    rest = page.next_offset
    more = "the end" if rest is None else f"read on from offset {rest}"
    return f"[characters {page.offset} to {end} of {page.total}; {more}]\n{page.text}"
