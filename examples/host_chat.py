"""A chat with a model that uses a server's tools: the host asks before anything happens.

Run it with `python examples/host_chat.py`. It needs no network and no key: the model follows a
script. Put "anthropic:NAME" or "openai:NAME" in its place for a real one.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from dragoman.host import ApprovalRequest, Decision, Host, Scope
from dragoman.host.chat import ChatEvent, Notice, TextDelta, ToolFinished, ToolProgress, TurnEnded
from dragoman.host.models.scripted import Call, ScriptedModel, Turn

SERVER = Path(__file__).with_name("weather_server.py")

SCRIPT = [
    Turn(
        text="I ask the server.\n",
        calls=(
            Call(tool="weather__forecast", arguments={"city": "Lisbon", "days": 2}),
            Call(tool="weather__collect_readings", arguments={"city": "Lisbon", "stations": 2}),
            Call(tool="weather__summarise", arguments={"city": "Lisbon"}),
        ),
    ),
    Turn(text="This is what I was given:\n{last}\n"),
]


async def decide(request: ApprovalRequest) -> Decision:
    """Say yes to all but one; a terminal would show the whole `request.view`, and wait."""
    print(f"? {request.view.headline}")
    if request.intent.object == "summarise":
        return request.deny(note="figures are enough")
    return request.allow(Scope.SESSION)


def load(folder: Path) -> Host:
    """A host with one server, and its state in a folder of its own."""
    config = folder / "mcp.json"
    servers = {"weather": {"command": sys.executable, "args": [str(SERVER)]}}
    config.write_text(json.dumps({"mcpServers": servers}))
    return Host.load(
        config, approver=decide, state=folder / "state", models=[ScriptedModel(SCRIPT)]
    )


def show(event: ChatEvent) -> None:
    """Print what happens as it happens."""
    match event:
        case TextDelta():
            print(event.text, end="")
        case ToolProgress():
            print(f"  {event.tool}: {event.progress:g} of {event.total or 0:g}")
        case ToolFinished(result=None):
            print(f"  {event.tool}: {event.error}")
        case ToolFinished():
            print(f"  {event.tool}: done")
        case Notice():
            print(f"  note: {event.text}")
        case TurnEnded():
            print(f"the turn is over: {event.reason}")


async def main() -> None:
    """One turn."""
    with tempfile.TemporaryDirectory() as folder:
        async with load(Path(folder)) as host:
            conversation = host.conversation()
            async for event in conversation.send("How is the weather in Lisbon?"):
                show(event)
            print(f"words of these servers are in it: {', '.join(conversation.taint)}")


if __name__ == "__main__":
    asyncio.run(main())
