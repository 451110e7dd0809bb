"""A server with a bit of everything, which notes what reached it in the file REACHED names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from dragoman import Context, Server, ToolAnnotations

server = Server("plain", version="1.0", instructions="Use add for sums.")


def reached(what: str, value: Any) -> None:
    """Note a call, so that a test can count on this side."""
    with Path(os.environ["REACHED"]).open("a") as file:
        file.write(json.dumps([what, value]) + "\n")


@server.tool(annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))
def add(a: int, b: int) -> int:
    """Add two numbers."""
    reached("add", [a, b])
    return a + b


@server.tool
def delete(path: str) -> str:
    """Delete a file."""
    reached("delete", path)
    return f"deleted {path}"


@server.tool
def fail(reason: str) -> str:
    """Fail."""
    from dragoman import ToolError

    raise ToolError(reason)


@server.tool
async def think(question: str, ctx: Context) -> str:
    """Ask the client's model."""
    reached("think", question)
    return (await ctx.sample(question, max_tokens=100)).text


@server.tool
async def roots(ctx: Context) -> list[str]:
    """The client's roots."""
    return [root.uri for root in await ctx.list_roots()]


@server.tool
def grow() -> str:
    """Offer one tool more from now on."""

    @server.tool
    def grown() -> str:
        """It was not there before."""
        reached("grown", None)
        return "grown"

    return "done"


@server.resource("note://{name}")
def note(name: str) -> str:
    """A note."""
    reached("note", name)
    return f"the note {name}"


@server.prompt
def greet(name: str) -> str:
    """Greet somebody."""
    reached("greet", name)
    return f"Say hello to {name}."


@server.completion("greet")
def names(argument: str, value: str) -> list[str]:
    """Names to greet."""
    return [name for name in ("Ada", "Alan") if name.startswith(value)]


if __name__ == "__main__":
    server.run()
