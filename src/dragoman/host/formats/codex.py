"""Codex: `config.toml`. Texts hold no variables; lists name those that are handed on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from dragoman.client.config import Variable
from dragoman.host.formats.documents import Document, TomlDocument
from dragoman.host.formats.places import home
from dragoman.host.formats.portable import Kind, NotPortable, Text, variable
from dragoman.host.formats.shape import Format, Reading, Writing

__all__ = ["Codex"]

_APPROVED = "approve"


class Codex(Format):
    """Tables `[mcp_servers.NAME]`.

    A variable that is handed on as it is stands in `env_vars`, one that is a header's whole value
    in `env_http_headers`, and one after "Bearer " in `bearer_token_env_var`.
    """

    name = "codex"
    title = "Codex"
    shapes = (("mcp_servers",),)
    kinds: ClassVar[Mapping[Kind, str]] = {"stdio": "stdio", "http": "http"}
    holds = frozenset({"cwd", "timeout", "start_timeout", "only", "hidden", "allowed", "disabled"})
    switch = ("enabled", False)
    timeout_member = "tool_timeout_sec"

    def document(self, text: str, path: Path) -> Document:
        """The text, open for changes. Raises Misconfigured."""
        return TomlDocument(text, path)

    def files(
        self, environ: Mapping[str, str], project: Path, *, platform: str = "linux"
    ) -> list[Path]:
        """The project's and the user's own."""
        said = environ.get("CODEX_HOME")
        own = Path(said) if said else home(environ, platform) / ".codex"
        return [project / ".codex" / "config.toml", own / "config.toml"]

    def kind(self, reading: Reading) -> Kind:
        """By what it has: there is no type. Raises NotPortable."""
        if reading.has("command"):
            return "stdio"
        if reading.has("url"):
            return "http"
        raise NotPortable("it has neither a command nor a URL")

    def reached(self, reading: Reading, kind: Kind) -> dict[str, Any]:
        """What it takes to start or reach it. Raises NotPortable."""
        if kind == "stdio":
            env: dict[str, Text] = dict(reading.table("env"))
            for name in reading.names("env_vars") or ():
                env[name] = (variable("env", name),)
            command, args = reading.text("command"), reading.texts("args")
            return {"command": command, "args": args, "env": env, "cwd": reading.text("cwd")}
        headers: dict[str, Text] = dict(reading.table("http_headers"))
        for name, text in reading.table("env_http_headers").items():
            headers[name] = (variable("env", _whole(text)),)
        token = _whole(reading.text("bearer_token_env_var"))
        if token:
            headers["Authorization"] = ("Bearer ", variable("env", token))
        return {"url": reading.text("url"), "headers": headers}

    def write_reached(self, writing: Writing) -> None:
        """Say what it takes to start or reach it. Raises NotPortable."""
        server = writing.server
        if server.kind != "stdio":
            writing.put("url", writing.must(server.url, "its URL"))
            self._write_headers(writing, server.headers)
            return
        writing.put("command", writing.must(server.command, "its command"))
        writing.put("args", [writing.must(one, "an argument") for one in server.args])
        if server.cwd:
            writing.put("cwd", writing.must(server.cwd, "its folder"))
        handed_on = [name for name, text in server.env.items() if _variable(text) == name]
        literal = {name: text for name, text in server.env.items() if name not in handed_on}
        writing.put("env", writing.table(literal, "env"))
        writing.put("env_vars", handed_on)
        if server.env_file:
            writing.lose("envFile", "Codex has no place for it")

    def _write_headers(self, writing: Writing, headers: Mapping[str, Text]) -> None:
        literal: dict[str, Text] = {}
        named: dict[str, str] = {}
        for name, text in headers.items():
            one = _variable(text)
            token = _variable(text[1:]) if text[:1] == ("Bearer ",) else None
            if token and name.lower() == "authorization":
                writing.put("bearer_token_env_var", token)
            elif one:
                named[name] = one
            else:
                literal[name] = text
        writing.put("http_headers", writing.table(literal, "headers"))
        writing.put("env_http_headers", named)

    def read_more(self, reading: Reading, members: dict[str, Any]) -> None:
        """Its lists of tools, and how it asks about each."""
        members["start_timeout_s"] = reading.seconds("startup_timeout_sec")
        members["only"] = reading.names("enabled_tools")
        members["hidden"] = reading.names("disabled_tools") or ()
        tools = reading.take("tools") or {}
        if not isinstance(tools, dict) or not all(isinstance(one, dict) for one in tools.values()):
            raise NotPortable("'tools' is no table of tables")
        approved, rest = [], {}
        for tool, settings in tools.items():
            more = dict(settings)
            if more.get("approval_mode") == _APPROVED:
                approved.append(tool)
                del more["approval_mode"]
            if more:
                rest[tool] = more
        members["allowed"] = tuple(approved)
        if rest:
            members["extras"] = {self.name: {"tools": rest}}

    def write_more(self, writing: Writing) -> None:
        """Its lists of tools, and how it asks about each."""
        server = writing.server
        writing.seconds("startup_timeout_sec", server.start_timeout_s)
        if server.only is not None:
            writing.raw["enabled_tools"] = list(server.only)
        writing.put("disabled_tools", list(server.hidden))
        writing.put("tools", {tool: {"approval_mode": _APPROVED} for tool in server.allowed})


def _variable(text: Text) -> str | None:
    """The environment variable that is all of a text."""
    if len(text) == 1 and isinstance(text[0], Variable):
        one = text[0]
        return one.name if one.kind == "env" and one.default is None else None
    return None


def _whole(text: Text) -> str:
    """A text that holds no variables."""
    return "".join(part for part in text if isinstance(part, str))
