"""What goes over the wire, as lines for a person: → sent, ← received."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.text import Text

from dragoman.cli.printable import compact_json, one_line, printable

__all__ = ["WireView"]

ARROWS = {"sent": ("→", "cyan"), "received": ("←", "green")}


class WireView:
    """Prints every frame; pass it as a client's `on_wire`.

    A compact view gives each frame one line: the id, the method, and as much of the parameters or
    of the result as fits. Otherwise frames are printed whole.
    """

    def __init__(self, console: Console, *, is_compact: bool = False, indent: str = "") -> None:
        self._console = console
        self._is_compact = is_compact
        self._indent = indent

    def __call__(self, direction: str, frame: bytes) -> None:
        """Print one frame."""
        arrow, colour = ARROWS[direction]
        line = Text(self._indent)
        line.append(f"{arrow} ", style=f"bold {colour}")
        if self._is_compact:
            line.append_text(_compact(frame, colour))
            # One column short of the edge: some terminals wrap a full line.
            line.truncate(self._console.width - 1, overflow="ellipsis")
        else:
            line.append(printable(frame.decode("utf-8", "backslashreplace")))
        self._console.print(line, soft_wrap=True)


def _compact(frame: bytes, colour: str) -> Text:
    try:
        message = json.loads(frame)
    except ValueError:
        return Text(one_line(frame.decode("utf-8", "backslashreplace")))
    if not isinstance(message, dict):
        return Text(compact_json(message), style="dim")
    line = Text()
    if "id" in message:
        line.append(f"#{one_line(str(message['id']))} ", style="dim")
    if "method" in message:
        line.append(one_line(str(message["method"])), style=colour)
        body: Any = message.get("params")
    elif "error" in message:
        line.append("error", style="bold red")
        body = message["error"]
    else:
        line.append("result", style=colour)
        body = message.get("result")
    if body:
        line.append(f" {compact_json(body)}", style="dim")
    return line
