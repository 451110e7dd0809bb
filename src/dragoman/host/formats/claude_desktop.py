"""Claude Desktop: `claude_desktop_config.json`. Local servers only, and no variables in texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from dragoman.host.formats.places import home, settings_folder
from dragoman.host.formats.portable import Kind
from dragoman.host.formats.shape import Format

__all__ = ["ClaudeDesktop"]

FILE = "claude_desktop_config.json"


class ClaudeDesktop(Format):
    """Servers under `mcpServers`; those at a URL are added in the program itself."""

    name = "claude-desktop"
    title = "Claude Desktop"
    kinds: ClassVar[Mapping[Kind, str]] = {"stdio": "stdio"}
    holds = frozenset()

    def files(
        self, environ: Mapping[str, str], project: Path, *, platform: str = "linux"
    ) -> list[Path]:
        """The user's own."""
        found = [settings_folder(environ, platform) / "Claude" / FILE]
        if platform == "win32":
            # As a package of the store it sees a settings folder of its own, and not the other.
            said = environ.get("LOCALAPPDATA")
            local = Path(said) if said else home(environ, platform) / "AppData" / "Local"
            packages = sorted((local / "Packages").glob("Claude_*"))
            found[:0] = [one / "LocalCache" / "Roaming" / "Claude" / FILE for one in packages]
        return found
