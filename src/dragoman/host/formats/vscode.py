"""VS Code: `.vscode/mcp.json` of a workspace and `mcp.json` of a profile."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dragoman.host.formats.own import PLACES
from dragoman.host.formats.places import settings_folder
from dragoman.host.formats.portable import Syntax
from dragoman.host.formats.shape import Format

__all__ = ["VSCode"]


class VSCode(Format):
    """Servers under `servers`, questions to the person under `inputs`, and variables of its own."""

    name = "vscode"
    title = "VS Code"
    shapes = (("servers",),)
    syntax = Syntax(env=lambda name: f"${{env:{name}}}", places=PLACES, kinds=("input",))
    says_stdio = True
    holds = frozenset({"cwd", "env_file"})
    has_inputs = True

    def files(
        self, environ: Mapping[str, str], project: Path, *, platform: str = "linux"
    ) -> list[Path]:
        """The workspace's and the default profile's."""
        return [
            project / ".vscode" / "mcp.json",
            settings_folder(environ, platform) / "Code" / "User" / "mcp.json",
        ]
