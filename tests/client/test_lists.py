"""Lists: whole or page by page, whatever the server's pages look like."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dragoman import PeerError
from dragoman.client import client as client_module
from tests.requirements.duties import duty
from tests.scripted import scripted_server
from tests.support import run

EVERYTHING: dict[str, Any] = {"tools": {}, "resources": {}, "prompts": {}}
LISTS: dict[str, tuple[str, str, Any]] = {
    "list_tools": ("tools/list", "tools", {"inputSchema": {"type": "object"}}),
    "list_resources": ("resources/list", "resources", {"uri": "a:b"}),
    "list_resource_templates": (
        "resources/templates/list",
        "resourceTemplates",
        {"uriTemplate": "a:{b}"},
    ),
    "list_prompts": ("prompts/list", "prompts", {}),
}


async def listed(
    method: str, pages: list[tuple[list[str], str | None]]
) -> tuple[list[str], list[Any]]:
    """The names a client lists from these pages, and the cursors it asked with."""
    wire_method, member, filling = LISTS[method]
    async with scripted_server(EVERYTHING) as (client, peer):
        asking = asyncio.ensure_future(getattr(client, method)())
        cursors = []
        for names, cursor in pages:
            asked = await peer.expect(wire_method)
            cursors.append(asked.get("params", {}).get("cursor"))
            page: dict[str, Any] = {member: [{"name": name, **filling} for name in names]}
            if cursor is not None:
                page["nextCursor"] = cursor
            peer.answer(asked, page)
        return [one.name for one in await asking], cursors


@duty(
    "pagination.both-flows",
    "pagination.end",
    "pagination.page-size",
    "pagination.opaque.unchanged",
    "pagination.opaque.format",
    "prompts.pages",
)
@pytest.mark.parametrize("method", LISTS)
@pytest.mark.parametrize(
    "pages",
    [
        [(["a", "b"], None)],
        [([], None)],
        [(["a"], "2"), (["b", "c"], "3"), (["d"], None)],
        [([], "2"), ([], "3"), (["a"], None)],
        [(["a"], ""), (["b"], " "), (["c"], "\x00é\n{}"), (["d"], "x" * 5_000), ([], None)],
    ],
)
def test_every_page_is_read_to_the_end_and_every_cursor_goes_back_as_it_came(
    method: str, pages: list[tuple[list[str], str | None]]
) -> None:
    async def main() -> None:
        names, cursors = await listed(method, pages)
        assert names == [name for page, _ in pages for name in page]
        assert cursors == [None, *(cursor for _, cursor in pages[:-1])]

    run(main())


@duty("pagination.end")
def test_a_null_cursor_ends_a_list_too() -> None:
    async def main() -> None:
        async with scripted_server(EVERYTHING) as (client, peer):
            asking = asyncio.ensure_future(client.list_tools())
            peer.answer(await peer.expect("tools/list"), {"tools": [], "nextCursor": None})
            assert await asking == []

    run(main())


@duty("pagination.both-flows", "pagination.opaque.unchanged")
def test_a_caller_may_turn_the_pages_by_hand() -> None:
    async def main() -> None:
        async with scripted_server(EVERYTHING) as (client, peer):
            asking = asyncio.ensure_future(client.list_prompts_page())
            asked = await peer.expect("prompts/list")
            assert "params" not in asked
            peer.answer(asked, {"prompts": [{"name": "a"}], "nextCursor": "{2}"})
            page = await asking
            assert page.next_cursor == "{2}"
            asking = asyncio.ensure_future(client.list_prompts_page(page.next_cursor))
            asked = await peer.expect("prompts/list")
            assert asked["params"] == {"cursor": "{2}"}
            peer.answer(asked, {"prompts": []})
            assert (await asking).next_cursor is None

    run(main())


def test_a_list_that_goes_in_circles_is_a_typed_error() -> None:
    async def main() -> None:
        with pytest.raises(PeerError, match="repeats"):
            await listed("list_tools", [(["a"], "1"), (["b"], "2"), (["c"], "1")])

    run(main())


def test_a_list_that_never_ends_is_a_typed_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_PAGES", 3)

    async def main() -> None:
        with pytest.raises(PeerError, match="3 pages"):
            await listed("list_tools", [(["a"], str(n)) for n in range(3)])

    run(main())


@duty("pagination.opaque.session")
def test_a_new_session_begins_without_a_cursor() -> None:
    async def main() -> None:
        for _ in range(2):
            _, cursors = await listed("list_tools", [(["a"], "next"), (["b"], None)])
            assert cursors == [None, "next"]

    run(main())
