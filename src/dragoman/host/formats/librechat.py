"""LibreChat: `librechat.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from dragoman.host.formats.documents import Document, YamlDocument
from dragoman.host.formats.portable import Kind, Syntax
from dragoman.host.formats.shape import Format, Reading, Writing

__all__ = ["LibreChat"]


class LibreChat(Format):
    """Servers under `mcpServers`, with `${VAR}`; timeouts in milliseconds.

    What it fills in for each of its users (`{{...}}`) is text to everybody else.
    """

    name = "librechat"
    title = "LibreChat"
    syntax = Syntax(env=lambda name: f"${{{name}}}")
    kinds: ClassVar[Mapping[Kind, str]] = {
        "stdio": "stdio",
        "http": "streamable-http",
        "sse": "sse",
    }
    says_stdio = True
    holds = frozenset({"timeout", "start_timeout"})
    timeout_scale = 1000.0

    def document(self, text: str, path: Path) -> Document:
        """The text, open for changes. Raises Misconfigured."""
        return YamlDocument(text, path)

    def files(
        self, environ: Mapping[str, str], project: Path, *, platform: str = "linux"
    ) -> list[Path]:
        """The one beside the program."""
        return [project / "librechat.yaml"]

    def read_more(self, reading: Reading, members: dict[str, Any]) -> None:
        """How long a server may take to start."""
        members["start_timeout_s"] = reading.seconds("initTimeout", 1000.0)

    def write_more(self, writing: Writing) -> None:
        """How long a server may take to start."""
        writing.seconds("initTimeout", writing.server.start_timeout_s, 1000.0)
