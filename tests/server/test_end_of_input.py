"""A client that ends its direction first still gets the answers to what it asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SERVER = """
import threading, time
from dragoman import Server

server = Server("end")
NEVER = threading.Event()

@server.tool
def soon() -> str:
    time.sleep(0.1)
    return "done"

@server.tool
async def stuck() -> str:
    import asyncio
    await asyncio.Event().wait()
    return "never"

server.run()
"""


def converse(tmp_path: Path, *calls: str) -> list[dict[str, object]]:
    """Send everything at once, end the input, and read what comes until the server ends."""
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    hello = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "pipe", "version": "1"},
    }
    messages: list[dict[str, object]] = [
        {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
    ]
    for number, name in enumerate(calls, start=1):
        params = {"name": name, "arguments": {}}
        messages.append({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
    done = subprocess.run(
        [sys.executable, str(script)],
        input="".join(json.dumps(message) + "\n" for message in messages),
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_answers_are_written_after_the_input_has_ended(tmp_path: Path) -> None:
    answers = converse(tmp_path, "soon", "soon")
    assert sorted(str(answer["id"]) for answer in answers) == ["0", "1", "2"]


def test_a_handler_that_never_returns_does_not_keep_the_server_alive(tmp_path: Path) -> None:
    answers = converse(tmp_path, "stuck", "soon")
    assert sorted(str(answer["id"]) for answer in answers) == ["0", "2"]
