"""A folder that is opened to a server in a real sandbox: there from the next start on."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import dragoman
from dragoman.host import ApprovalRequest, Host, Scope
from dragoman.host.asks.roots import NOT_SHOWN
from tests.host.test_sandbox import needs_bubblewrap
from tests.support import run

pytestmark = [pytest.mark.long, needs_bubblewrap]

SERVER = """
import os
from dragoman import Context, Server

server = Server("files")

@server.tool
def look(path: str) -> str:
    try:
        return ",".join(os.listdir(path))
    except OSError as error:
        return type(error).__name__

@server.tool
async def roots(ctx: Context) -> list[str]:
    return [root.uri for root in await ctx.list_roots()]

server.run()
"""


@pytest.mark.parametrize("agrees", [True, False])
def test_it_is_in_the_sandbox_when_the_server_was_started_again(
    tmp_path: Path, agrees: bool
) -> None:
    script, data, added = tmp_path / "files.py", tmp_path / "data", tmp_path / "added"
    script.write_text(SERVER)
    for folder in (data, added):
        folder.mkdir()
        (folder / "a.txt").write_text("a")
    source = Path(dragoman.__file__).parent.parent
    packages = [path for path in sys.path if path.endswith("site-packages")]
    entry = {
        "command": sys.executable,
        "args": [str(script)],
        "env": {"PYTHONPATH": str(source)},
        "roots": ["data"],
        "sandbox": {"read": [str(source), *packages]},
    }
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"files": entry}}))
    asked: list[tuple[str, str]] = []

    async def person(request: ApprovalRequest) -> Any:
        asked.append((request.action.value, request.intent.object))
        if request.intent.object == added.as_uri():
            return agrees
        return Scope.ALWAYS if Scope.ALWAYS in request.scopes else True

    async def look(host: Host, path: Path) -> str:
        return (await host.call_tool("files", "look", {"path": str(path)})).text

    async def main() -> None:
        async with Host.load(config, approver=person, state=tmp_path / "state", environ={}) as host:
            assert await look(host, data) == "a.txt"
            state = host.add_root("files", added)
            assert state.fault == NOT_SHOWN
            assert await look(host, added) == "FileNotFoundError"
            assert (await host.call_tool("files", "roots", {})).data == [data.as_uri()]
            assert ("roots.expose", added.as_uri()) not in asked

            await host.reconnect("files")
            await host.ready()
            assert ("roots.expose", added.as_uri()) in asked
            told = [data.as_uri()]
            if agrees:
                assert await look(host, added) == "a.txt"
                told.append(added.as_uri())
            else:
                assert await look(host, added) == "FileNotFoundError"
            assert (await host.call_tool("files", "roots", {})).data == told
            faults = [one.fault for one in host.root_states("files")]
            assert faults == ["", "" if agrees else NOT_SHOWN]
            # Nothing of it made the server another one.
            assert host.server("files").state == "connected"

    run(asyncio.wait_for(main(), 15))
