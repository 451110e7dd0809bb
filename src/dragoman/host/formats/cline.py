"""Cline: `cline_mcp_settings.json`, which its extension and its command line share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from dragoman.host.formats.documents import Document
from dragoman.host.formats.places import home, settings_folder
from dragoman.host.formats.portable import Kind, Portable, Syntax
from dragoman.host.formats.shape import Format, Reading

__all__ = ["Cline"]

FILE = "cline_mcp_settings.json"

# What it takes a timeout for that is shorter or longer.
LEAST_S, MOST_S = 1.0, 3600.0

# Before there was a "type".
_OLD_TYPES: Mapping[Any, Kind] = {"http": "http", "streamableHttp": "http"}


class Cline(Format):
    """Servers under `mcpServers`, with tools that run without asking, and `${env:NAME}`.

    A URL without a type is one of HTTP+SSE. Its command line puts the type and what belongs to it
    into an object `transport`, which is read as if it stood outside.
    """

    name = "cline"
    title = "Cline"
    kinds: ClassVar[Mapping[Kind, str]] = {"stdio": "stdio", "http": "streamableHttp", "sse": "sse"}
    syntax = Syntax(env=lambda name: f"${{env:{name}}}")
    holds = frozenset({"cwd", "disabled", "timeout"})
    # The second is what its documentation called it once; it is read by nothing any more.
    allowed_members = ("autoApprove", "alwaysAllow")

    def files(
        self, environ: Mapping[str, str], project: Path, *, platform: str = "linux"
    ) -> list[Path]:
        """The user's own: that of today, and that of the extension before."""
        if said := environ.get("CLINE_MCP_SETTINGS_PATH", "").strip():
            return [Path(said)]
        data = environ.get("CLINE_DATA_DIR", "").strip()
        folder = environ.get("CLINE_DIR", "").strip()
        own = Path(folder) if folder else home(environ, platform) / ".cline"
        storage = settings_folder(environ, platform) / "Code" / "User" / "globalStorage"
        return [
            (Path(data) if data else own / "data") / "settings" / FILE,
            storage / "saoudrizwan.claude-dev" / "settings" / FILE,
        ]

    def server(self, name: str, raw: Any) -> Portable:
        """One server's settings as they stand there. Raises NotPortable."""
        inner = _nested(raw)
        if inner is not None:
            raw = {key: value for key, value in raw.items() if key != "transport"} | inner
        return super().server(name, raw)

    def kind(self, reading: Reading) -> Kind:
        """By its type, or what stood for one. Raises NotPortable."""
        old = reading.take("transportType")
        if not reading.has("type", "command") and reading.has("url"):
            return _OLD_TYPES.get(old if isinstance(old, str) else None, "sse")
        return super().kind(reading)

    def read_more(self, reading: Reading, members: dict[str, Any]) -> None:
        """The timeout, as Cline takes it."""
        if members["timeout_s"] is not None:
            members["timeout_s"] = min(max(members["timeout_s"], LEAST_S), MOST_S)

    def _edit(
        self,
        document: Document,
        way: tuple[str, ...],
        existing: Any,
        old: Mapping[str, Any],
        new: Mapping[str, Any],
    ) -> None:
        if _nested(existing) is not None:
            # Both shapes at once would be two servers in one; what stood inside is written anew.
            document.remove((*way, "transport"))
            old = {key: value for key, value in old.items() if key in existing}
        super()._edit(document, way, existing, old, new)


def _nested(raw: Any) -> dict[str, Any] | None:
    inner = raw.get("transport") if isinstance(raw, dict) else None
    return inner if isinstance(inner, dict) else None
