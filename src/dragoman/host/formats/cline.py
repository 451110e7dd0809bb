"""Cline: `cline_mcp_settings.json`, which the extension keeps beside VS Code's own settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from dragoman.host.formats.places import settings_folder
from dragoman.host.formats.portable import Kind
from dragoman.host.formats.shape import Format

__all__ = ["Cline"]


class Cline(Format):
    """Servers under `mcpServers`, with tools that run without asking; no variables in texts."""

    name = "cline"
    title = "Cline"
    kinds: ClassVar[Mapping[Kind, str]] = {"stdio": "stdio", "http": "streamableHttp", "sse": "sse"}
    holds = frozenset({"cwd", "disabled", "timeout"})
    allowed_members = ("alwaysAllow", "autoApprove")

    def files(
        self, environ: Mapping[str, str], project: Path, *, platform: str = "linux"
    ) -> list[Path]:
        """The user's own."""
        storage = settings_folder(environ, platform) / "Code" / "User" / "globalStorage"
        extension = storage / "saoudrizwan.claude-dev" / "settings"
        return [extension / "cline_mcp_settings.json"]
