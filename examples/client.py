"""A client: start a server, see what it has, call a tool and follow its progress."""

import asyncio
from pathlib import Path

from dragoman import Client, ToolError

SERVER = Path(__file__).with_name("weather_server.py")


async def main() -> None:
    """Talk to the weather server, which runs as a child process until the block ends."""
    async with Client(SERVER) as client:
        print("connected to", client.server_info.name, client.server_info.version)
        for tool in await client.list_tools():
            print("tool:", tool.name)

        result = await client.call_tool("forecast", {"city": "Paris", "days": 1})
        print("structured:", result.data["days"][0]["sky"])

        await client.call_tool(
            "collect_readings",
            {"city": "Oslo", "stations": 2},
            on_progress=lambda update: print(f"progress: {update.progress:g}/{update.total:g}"),
        )

        try:
            await client.call_tool("forecast", {"city": "Atlantis"})
        except ToolError as error:
            print("failed:", error)


asyncio.run(main())
