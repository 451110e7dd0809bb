"""The client that the official suite looks at: an ordinary dragoman client.

The suite starts it once per scenario, with the address of a mock server as its last argument and the
scenario's name in MCP_CONFORMANCE_SCENARIO. It does what the scenario asks for, prints `DONE` and ends.

    python conformance/client.py [--http LIBRARY] URL
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from dragoman import Client, ElicitParams
from dragoman.transport.http.client import HttpOptions

# What the runner waits for (DONE in legs.py).
DONE = "scenario done"

NEWEST = "2025-11-25"


def fill_in(asked: ElicitParams) -> dict[str, Any]:
    """Accept a form as it was filled in by whoever asks."""
    fields = (asked.requested_schema or {}).get("properties", {})
    return {name: field["default"] for name, field in fields.items() if "default" in field}


async def connect_only(client: Client) -> None:
    """The handshake is all that is looked at."""
    print(f"connected to {client.server_info.name} in {client.protocol_version}")


async def add_numbers(client: Client) -> None:
    """List the tools and call the one that adds."""
    await client.list_tools()
    print((await client.call_tool("add_numbers", {"a": 5, "b": 3})).text)


async def take_defaults(client: Client) -> None:
    """Call a tool that asks the user; the question comes by a stream of its own."""
    await client.list_tools()
    print((await client.call_tool("test_client_elicitation_defaults")).text)


async def reconnect(client: Client) -> None:
    """Call a tool whose stream ends before its answer."""
    await client.list_tools()
    print((await client.call_tool("test_reconnection")).text)


async def echo_schema(client: Client) -> None:
    """Send a tool's input schema back as it came."""
    (tool,) = [one for one in await client.list_tools() if one.name == "json_schema_2020_12_tool"]
    print((await client.call_tool("json_schema_echo", {"schema": tool.input_schema})).text)


async def use_first_tool(client: Client) -> None:
    """What every scenario about authorization wants: a request beside the handshake."""
    tools = await client.list_tools()
    print((await client.call_tool(tools[0].name, {}, raise_on_error=False)).text)


SCENARIOS: dict[str, Callable[[Client], Awaitable[None]]] = {
    "initialize": connect_only,
    "tools_call": add_numbers,
    "elicitation-sep1034-client-defaults": take_defaults,
    "sse-retry": reconnect,
    "json-schema-2020-12-preservation": echo_schema,
}


async def run(scenario: str, url: str, revision: str | None, http: HttpOptions) -> None:
    """Connect and do what the scenario asks for."""
    act = SCENARIOS.get(scenario, use_first_tool)
    async with Client(
        url,
        name="dragoman-conformance",
        version="1",
        revision=revision,
        http=http,
        elicitation_handler=fill_in,
    ) as client:
        await act(client)


def main() -> None:
    """Do the scenario that the suite names. Whatever goes wrong ends the process with a traceback."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--http", choices=["httpx2", "aiohttp"], help="make requests with this")
    parser.add_argument("url")
    options = parser.parse_args()
    scenario = os.environ["MCP_CONFORMANCE_SCENARIO"]
    wire = os.environ["MCP_CONFORMANCE_PROTOCOL_VERSION"]
    # Older ones are pinned, which proves more than the suite asks; at the newest the client takes
    # what it is given, since one of the mock servers answers in an older revision.
    revision = None if wire == NEWEST else wire
    asyncio.run(run(scenario, options.url, revision, HttpOptions(backend=options.http)))
    print(DONE)


if __name__ == "__main__":
    main()
