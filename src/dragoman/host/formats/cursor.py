"""Cursor: `.cursor/mcp.json` of a project and of the user."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dragoman.host.formats.own import PLACES
from dragoman.host.formats.places import home
from dragoman.host.formats.portable import Syntax
from dragoman.host.formats.shape import Format

__all__ = ["Cursor"]


class Cursor(Format):
    """Servers under `mcpServers`, with `${env:NAME}` and the folders' variables."""

    name = "cursor"
    title = "Cursor"
    syntax = Syntax(env=lambda name: f"${{env:{name}}}", places=PLACES)
    says_stdio = True
    holds = frozenset({"env_file"})

    def files(
        self, environ: Mapping[str, str], project: Path, *, platform: str = "linux"
    ) -> list[Path]:
        """The project's and the user's own."""
        return [
            project / ".cursor" / "mcp.json",
            home(environ, platform) / ".cursor" / "mcp.json",
        ]
