"""Claude Code: `.mcp.json` of a project and `~/.claude.json` of the user."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dragoman.errors import Misconfigured
from dragoman.host.formats.places import home
from dragoman.host.formats.portable import Syntax
from dragoman.host.formats.shape import Format
from dragoman.host.located import locate

__all__ = ["ClaudeCode", "read_permissions"]


class ClaudeCode(Format):
    """Servers under `mcpServers`, with `${VAR}` and `${VAR:-default}`; timeouts in milliseconds.

    Of `~/.claude.json` the servers for all projects are read; those it keeps for one project stay
    where they are.
    """

    name = "claude-code"
    title = "Claude Code"
    syntax = Syntax(env=lambda name: f"${{{name}}}", has_default=True)
    says_stdio = True
    holds = frozenset({"timeout"})
    timeout_scale = 1000.0

    def files(
        self, environ: Mapping[str, str], project: Path, *, platform: str = "linux"
    ) -> list[Path]:
        """The project's and the user's own."""
        return [project / ".mcp.json", home(environ, platform) / ".claude.json"]


def read_permissions(text: str, path: Path) -> dict[str, tuple[str, ...]]:
    """The tools that `.claude/settings.json` allows without asking, by server.

    A permission for a whole server (`mcp__SERVER`) is the tool "*".

    Raises:
        Misconfigured: it is no such file.
    """
    whole = locate(text, path).value
    permissions = whole.get("permissions", {}) if isinstance(whole, dict) else None
    if not isinstance(permissions, dict):
        raise Misconfigured(f"{path}: is no settings file of Claude Code")
    allow = permissions.get("allow", [])
    found: dict[str, dict[str, None]] = {}
    for one in allow if isinstance(allow, list) else ():
        if isinstance(one, str) and one.startswith("mcp__"):
            server, _, tool = one.removeprefix("mcp__").partition("__")
            found.setdefault(server, {})[tool or "*"] = None
    return {server: tuple(tools) for server, tools in found.items()}
