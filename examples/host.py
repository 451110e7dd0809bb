"""A host with an approver of its own: who is asked, what is remembered, what is on record.

Run it with `python examples/host.py`. At a terminal you are asked; elsewhere it answers for you: yes
to what is only read, no to everything else.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from dragoman.host import Action, ApprovalRequest, Decision, Denied, Host, Scope
from dragoman.host.audit import read, verify

SERVER = Path(__file__).with_name("weather_server.py")


async def decide(request: ApprovalRequest) -> Decision:
    """Show the whole of it, and answer."""
    print(f"\n? {request.view.headline}")
    if request.action is Action.TOOL_CALL:
        print(f"  {request.view.payload.decode()}")
    for risk in request.risks:
        print(f"  ! {risk.text}")
    if sys.stdin.isatty():
        # Elsewhere than in the event loop, so that a deadline or Ctrl-C can end the question.
        answer = await asyncio.to_thread(input, "  yes, always or no? ")
    else:
        answer = "no" if request.intent.object == "summarise" else "always"
        print(f"  {answer}")
    match answer.strip():
        case "always":
            return request.allow(Scope.ALWAYS)
        case "yes":
            return request.allow()
        case _:
            return request.deny(note="not today")


def load(folder: Path) -> Host:
    """A host with one server, one rule, and its state in a folder of its own."""
    config = folder / "mcp.json"
    weather = {"command": sys.executable, "args": [str(SERVER)]}
    config.write_text(json.dumps({"mcpServers": {"weather": weather}}))
    rules = ["deny tool(weather/collect_readings)"]
    return Host.load(config, approver=decide, rules=rules, state=folder / "state")


async def main() -> None:
    """Four calls: two are asked about, one is remembered, one a rule refuses."""
    with tempfile.TemporaryDirectory() as folder:
        async with load(Path(folder)) as host:
            tools = await host.list_tools()
            print("\ntools:", ", ".join(f"{one.server}/{one.name}" for one in tools))
            for tool, arguments in (
                ("forecast", {"city": "Oslo", "days": 1}),
                ("forecast", {"city": "Paris", "days": 1}),
                ("summarise", {"city": "Oslo"}),
                ("collect_readings", {"city": "Oslo"}),
            ):
                try:
                    result = await host.call_tool("weather", tool, arguments)
                except Denied as denied:
                    print(f"{tool}: refused ({denied.code}): {denied.rule}")
                else:
                    print(f"{tool}: {result.data['days'][0]['sky']} in {arguments['city']}")
            for line in host.explain(Action.TOOL_CALL, "weather", "collect_readings").trail:
                print("explained:", line)
            for grant in host.remembered():
                print(f"remembered: {grant.effect} {grant.action} {grant.object}".rstrip())
        log = host.state.audit
        for record in read(log, where={"kind": "decision", "action": "tool.call"}):
            print("on record:", record["effect"], record["object"])
        print("the log is as it was written:", verify(log).is_intact)


if __name__ == "__main__":
    asyncio.run(main())
