"""A server that asks for the person's name by itself, once it is told to: `later.py FIFO`."""

import json
import sys
import threading
from pathlib import Path
from typing import Any


def say(message: dict[str, Any]) -> None:
    """One line."""
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def ask() -> None:
    """Wait for the word, then ask."""
    Path(sys.argv[1]).read_text()
    form = {"type": "object", "properties": {"name": {"type": "string"}}}
    params = {"message": "Who are you?", "requestedSchema": form}
    say({"id": "ask", "method": "elicitation/create", "params": params})


for line in sys.stdin:
    got = json.loads(line)
    if got.get("method") == "initialize":
        info = {"name": "later", "version": "1"}
        version = {"protocolVersion": "2025-06-18"}
        say({"id": got["id"], "result": version | {"capabilities": {}, "serverInfo": info}})
        threading.Thread(target=ask, daemon=True).start()
    elif "id" in got and "method" in got:
        say({"id": got["id"], "error": {"code": -32601, "message": "there is no such method"}})
