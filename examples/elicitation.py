"""Elicitation: a tool that asks the user a form before it acts."""

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

from dragoman import Client, Context, ElicitParams, Server

server = Server("bakery")


@dataclass
class Order:
    """What the form asks for: plain fields only."""

    cake: Literal["apple", "cheese", "chocolate"]
    pieces: int = 1


@server.tool
async def order_cake(ctx: Context) -> str:
    """Ask which cake, and order it."""
    answer = await ctx.elicit("Which cake would you like?", Order)
    if answer.data is None:
        return f"no cake was ordered ({answer.action})"
    return f"{answer.data.pieces} of {answer.data.cake} cake ordered"


async def main() -> None:
    """Answer once, and decline once."""
    answers: list[dict[str, Any] | None] = [{"cake": "apple", "pieces": 2}, None]

    def fill_in(form: ElicitParams) -> dict[str, Any] | None:
        print("asked:", form.message, sorted((form.requested_schema or {})["properties"]))
        return answers.pop(0)

    async with Client(server, elicitation_handler=fill_in) as client:
        print((await client.call_tool("order_cake")).text)
        print((await client.call_tool("order_cake")).text)


if __name__ == "__main__":
    asyncio.run(main())
