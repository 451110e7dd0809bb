"""Pages, tables and the view of the wire, whatever a server says of itself."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console, RenderableType

from dragoman.cli.show import Listing, ServerPage, listing_tables, page
from dragoman.cli.wire import WireView
from dragoman.model.base import Implementation
from dragoman.model.capabilities import ServerCapabilities, ToolsCapability
from dragoman.model.prompts import Prompt, PromptArgument
from dragoman.model.resources import Resource, ResourceTemplate
from dragoman.model.tools import Tool, ToolAnnotations
from tests.cli.aids import assert_harmless

HOSTILE = "\x1b[2J\u202e[bold]\u200b"
SHOWN = "\\x1b[2J\\u202e[bold]\\u200b"


def console() -> Console:
    return Console(
        file=io.StringIO(), markup=False, highlight=False, emoji=False, width=100, no_color=True
    )


def printed(what: RenderableType) -> str:
    target = console()
    target.print(what)
    assert isinstance(target.file, io.StringIO)
    return target.file.getvalue()


def everywhere(words: str) -> Listing:
    """A listing that has these words in every place that holds text."""
    schema = {
        "type": "object",
        "properties": {
            words: {
                "type": "string",
                "description": words,
                "default": words,
                "enum": [words],
            }
        },
    }
    tool = Tool(
        name=words, title=words, description=words, input_schema=schema, output_schema=schema
    )
    resource = Resource(
        uri=words, name=words, title=words, description=words, mime_type=words, size=1234
    )
    family = ResourceTemplate(uri_template=words, name=words, description=words, mime_type=words)
    argument = PromptArgument(name=words, description=words, required=True)
    prompt = Prompt(name=words, title=words, description=words, arguments=[argument])
    return Listing([tool], [resource], [family], [prompt])


def page_with(listing: Listing, words: str = "x") -> ServerPage:
    return ServerPage(
        info=Implementation(
            name=words, version=words, title=words, description=words, website_url=words
        ),
        target="server.py",
        revision="1",
        capabilities=ServerCapabilities(
            tools=ToolsCapability(list_changed=True), experimental={words: {words: True}}
        ),
        instructions=words,
        listing=listing,
    )


def test_no_word_of_a_server_is_obeyed_anywhere() -> None:
    listing = everywhere(HOSTILE)
    for what in (listing_tables(listing), page(page_with(listing, HOSTILE))):
        text = printed(what)
        assert_harmless(text)
        assert SHOWN in text


def test_a_list_gives_sizes_and_first_paragraphs_only() -> None:
    listing = Listing(
        tools=[
            Tool(name="t", description="First.\nStill.\n\nSecond.", input_schema={"type": "object"})
        ],
        resources=[
            Resource(uri="a://b", name="n", size=1_234_567),
            Resource(uri="a://c", name="n", mime_type="text/plain", size=2),
        ],
    )
    text = printed(listing_tables(listing))
    assert "First. Still." in text
    assert "Second" not in text
    assert "1,234,567 bytes" in text
    assert "text/plain, 2 bytes" in text


def test_a_server_that_offers_nothing_says_so() -> None:
    assert "nothing" in printed(listing_tables(Listing()))
    empty = ServerPage(
        info=Implementation(name="n", version="1"),
        target="t",
        revision="1",
        capabilities=ServerCapabilities(),
        instructions=None,
    )
    assert "nothing" in printed(page(empty))
    assert set(empty.document()) == {"serverInfo", "protocolVersion", "capabilities"}


def test_a_tools_page_has_its_hints_and_what_it_takes_and_returns() -> None:
    hints = ToolAnnotations(title="Delete everything", destructive_hint=True, idempotent_hint=False)
    tool = Tool(
        name="wipe",
        annotations=hints,
        input_schema={"type": "object"},
        output_schema={"type": "array", "items": {"type": "integer"}},
    )
    text = printed(page(page_with(Listing(tools=[tool]))))
    assert "wipe  Delete everything" in text
    assert "says it is destructive, not idempotent" in text
    assert "takes no arguments" in text
    assert "returns list of integer" in text


def test_a_document_leaves_out_what_was_not_declared_and_keeps_what_is_empty() -> None:
    assert Listing(tools=[]).document() == {"tools": []}


def view(frame: bytes, *, is_compact: bool) -> str:
    target = console()
    WireView(target, is_compact=is_compact, indent="  ")("received", frame)
    assert isinstance(target.file, io.StringIO)
    return target.file.getvalue()


@pytest.mark.parametrize(
    ("frame", "line"),
    [
        (b'{"jsonrpc":"2.0","id":7,"method":"ping"}', "  ← #7 ping\n"),
        (b'{"jsonrpc":"2.0","id":"a","result":{"x":1}}', '  ← #a result {"x":1}\n'),
        (b'{"id":1,"error":{"code":-1}}', '  ← #1 error {"code":-1}\n'),
        (b'{"method":"notifications/x","params":{}}', "  ← notifications/x\n"),
        (b'[{"id":1}]', '  ← [{"id":1}]\n'),
        (b"no json \xff\x1b", "  ← no json \\xff\\x1b\n"),
        (b'{"id":"\\u001b","method":"\\u202e"}', "  ← #\\x1b \\u202e\n"),
    ],
)
def test_a_compact_view_names_what_a_message_is(frame: bytes, line: str) -> None:
    assert view(frame, is_compact=True) == line


def test_a_compact_view_keeps_to_one_line_and_a_whole_one_does_not() -> None:
    frame = json.dumps({"id": 1, "result": {"text": "word " * 100}}).encode()
    compact = view(frame, is_compact=True)
    assert len(compact.rstrip("\n")) == 99
    assert compact.endswith("…\n")
    assert view(frame, is_compact=False) == f"  ← {frame.decode()}\n"
