"""Sampling: a tool that asks the client's model, and the client's side of it."""

import asyncio

from dragoman import (
    Client,
    Context,
    CreateMessageParams,
    Refused,
    RemoteFailure,
    Server,
    TextContent,
    ToolError,
)

server = Server("poet")


@server.tool
async def poem(topic: str, ctx: Context) -> str:
    """Have the client's model write a poem."""
    try:
        answer = await ctx.sample(
            f"Write one line about {topic}.",
            system_prompt="You are a poet.",
            max_tokens=60,
            model_preferences=["small"],
        )
    except RemoteFailure as refusal:
        raise ToolError(f"no poem: {refusal.message}") from None
    return f"{answer.text} ({answer.model})"


def think(request: CreateMessageParams) -> str:
    """Stand in for a model. A real client shows the request to its user before it answers."""
    block = request.messages[-1].content
    asked = block.text if isinstance(block, TextContent) else ""
    if "war" in asked:
        raise Refused("not that topic", "a poem")
    return f"Roses are red, as I was told: {asked}"


async def main() -> None:
    """Both sides in one process; over stdio nothing changes."""
    async with Client(server, sampling_handler=think) as client:
        print((await client.call_tool("poem", {"topic": "rain"})).text)
        try:
            await client.call_tool("poem", {"topic": "war"})
        except ToolError as error:
            print("failed:", error)


if __name__ == "__main__":
    asyncio.run(main())
