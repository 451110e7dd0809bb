"""What a server wants done before it runs a request: read from its error, or refused."""

from __future__ import annotations

from typing import Any

import pytest

from dragoman import Client, Server
from dragoman.errors import PeerError, RemoteFailure, RequestError
from tests.requirements.duties import duty
from tests.support import run

PAGE = {"mode": "url", "message": "Go", "elicitationId": "e1", "url": "https://a.example/"}


def refused(data: Any, code: int = -32042, **options: Any) -> list[Any]:
    """What a client reads of such an error."""
    server = Server("bank")

    class Refusal(RequestError):
        pass

    Refusal.code = code

    @server.tool
    def pay() -> str:
        raise Refusal("first", data=data)

    async def main() -> list[Any]:
        given: dict[str, Any] = {"elicitation_handler": lambda params: None}
        async with Client(server, **given | {"elicitation_url": True} | options) as client:
            with pytest.raises(RemoteFailure) as caught:
                await client.call_tool("pay")
            return client.required_elicitations(caught.value)

    return run(main())


@duty("elicitation.required.list", "elicitation.required.url-mode")
def test_the_elicitations_are_read_from_the_error() -> None:
    other = PAGE | {"elicitationId": "e2"}
    found = refused({"elicitations": [PAGE, other]})
    assert [(one.elicitation_id, one.url) for one in found] == [
        ("e1", "https://a.example/"),
        ("e2", "https://a.example/"),
    ]


def test_another_error_requires_nothing() -> None:
    assert refused({"elicitations": [PAGE]}, code=-32001) == []


@duty("elicitation.required.url-mode")
@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"elicitations": []},
        {"elicitations": PAGE},
        {"elicitations": [PAGE, PAGE]},
        {"elicitations": [PAGE | {"mode": "form"}]},
        {"elicitations": [PAGE | {"url": "nowhere"}]},
        {"elicitations": [PAGE | {"elicitationId": 4}]},
        {"elicitations": [{"mode": "url", "message": "Go", "url": "https://a.example/"}]},
    ],
)
def test_what_is_no_list_of_addresses_is_a_fault_of_the_server(data: Any) -> None:
    with pytest.raises(PeerError, match="cannot be followed"):
        refused(data)


@pytest.mark.parametrize(
    "options",
    [
        {"elicitation_url": False},
        {"elicitation_handler": None, "elicitation_url": False},
        {"revision": "2025-06-18"},
        {"revision": "2024-11-05"},
    ],
)
def test_where_it_was_not_agreed_on_the_number_means_nothing(options: dict[str, Any]) -> None:
    assert refused({"elicitations": [PAGE]}, **options) == []
    assert refused("its own meaning", **options) == []
