"""A server that does everything the command line has to cope with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

from dragoman import Context, Image, RemoteFailure, Server, ToolError
from dragoman.model.content import ResourceLink

print("a banner that must not reach the client")

# What a terminal would obey: clear the screen, another title, right to left, a hidden letter.
HOSTILE = "\x1b[2J\x1b]0;gone\x07\u202edlrow\u200b\x9b31m\U000e0041!"

server = Server("odd", version="9", instructions=f"Use it well. {HOSTILE}")


@dataclass
class Place:
    """Where something is."""

    city: str
    floor: int = 0


@dataclass
class Answer:
    """A form."""

    name: str
    size: Literal["small", "large"] = "small"
    age: int | None = None


@server.tool
def echo(
    text: str,
    count: int = 1,
    tags: list[str] | None = None,
    place: Place | None = None,
    is_loud: bool = False,
) -> str:
    """Give everything back."""
    return f"{text!r} {count} {tags} {place} {is_loud}"


@server.tool(description=f"Says hello. {HOSTILE}")
def hostile() -> str:
    return f"hello {HOSTILE}"


@server.tool
def fail() -> str:
    """Fail as a tool may."""
    raise ToolError(f"it cannot be done {HOSTILE}")


@server.tool
async def hang(ctx: Context) -> str:
    """Report once, and never answer."""
    await ctx.report_progress(1, 4, "hanging")
    await asyncio.Event().wait()
    return "never"


@server.tool
async def steps(ctx: Context) -> str:
    """Report four times."""
    for number in range(1, 5):
        await ctx.report_progress(number, 4, f"step {number}")
        await asyncio.sleep(0.05)
    return "walked"


@server.tool
def picture() -> list[str | Image | ResourceLink]:
    """A picture, and more."""
    return [
        "look:",
        Image(b"\x89PNG\r\n\x1a\n" + bytes(92)),
        ResourceLink(uri="odd://text", name="text"),
    ]


@server.tool
async def ask_model(ctx: Context) -> str:
    """Sample."""
    await ctx.report_progress(1, 2, "asking")
    try:
        return (await ctx.sample(f"Who is there? {HOSTILE}", system_prompt="Knock knock.")).text
    except RemoteFailure as refusal:
        raise ToolError(f"refused: {refusal.code}") from None


@server.tool
async def ask_person(ctx: Context) -> str:
    """Elicit a form."""
    answer = await ctx.elicit("Who are you?", Answer)
    return f"{answer.action} {answer.data}"


@server.tool
async def ask_visit(ctx: Context) -> str:
    """Elicit a visit."""
    return (await ctx.elicit_url("Please pay", "https://example.com/pay")).action


@server.tool
async def roots(ctx: Context) -> list[str]:
    """The client's roots."""
    return [root.uri for root in await ctx.list_roots()]


@server.tool
async def chatter(ctx: Context) -> str:
    """Log at three levels."""
    await ctx.debug("a detail")
    await ctx.warning(f"a warning {HOSTILE}")
    await ctx.error({"code": 7})
    return "said"


@server.tool
async def die(ctx: Context) -> str:
    """End the process at once."""
    import os
    import sys

    sys.stderr.write(f"dying now {HOSTILE}\n")
    sys.stderr.flush()
    os._exit(3)


@server.resource("odd://text", mime_type="text/plain")
def text() -> str:
    """A text."""
    return f"first\nsecond {HOSTILE}"


@server.resource("odd://bytes", mime_type="image/png")
def binary() -> bytes:
    """Some bytes."""
    return bytes(range(256))


@server.resource("odd://{name}/part")
def part(name: str) -> str:
    """A part."""
    return f"part of {name}"


@server.prompt
def greet(name: str, tone: Literal["warm", "cold"] = "warm") -> str:
    """Greet somebody."""
    return f"Greet {name} in a {tone} way."


@server.completion("odd://{name}/part")
def names(argument: str, value: str, context: dict[str, str]) -> list[str]:
    if context.get("many"):
        return [f"{value}{number}" for number in range(150)]
    return [f"{value}a", f"{value}b\x1b[31m"]


if __name__ == "__main__":
    server.run()
