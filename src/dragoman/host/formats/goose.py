"""goose: `config.yaml`. Extensions of its own stand beside the servers, and stay there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from dragoman.client.config import Variable
from dragoman.host.formats.documents import Document, YamlDocument
from dragoman.host.formats.places import home, settings_folder
from dragoman.host.formats.portable import Kind, NotPortable, Portable, Syntax, Text, variable
from dragoman.host.formats.shape import Format, Reading, Writing

__all__ = ["Goose"]

_KINDS: Mapping[str, Kind] = {"stdio": "stdio", "streamable_http": "http", "sse": "sse"}
_HEADERS = Syntax(env=lambda name: f"${{{name}}}")


class Goose(Format):
    """Servers under `extensions`; `env_keys` names what is handed on, timeouts are in seconds.

    Only its headers know variables.
    """

    name = "goose"
    title = "goose"
    shapes = (("extensions",),)
    kinds: ClassVar[Mapping[Kind, str]] = {
        "stdio": "stdio",
        "http": "streamable_http",
        "sse": "sse",
    }
    holds = frozenset({"timeout", "only", "disabled"})
    switch = ("enabled", False)

    def document(self, text: str, path: Path) -> Document:
        """The text, open for changes. Raises Misconfigured."""
        return YamlDocument(text, path)

    def files(
        self, environ: Mapping[str, str], project: Path, *, platform: str = "linux"
    ) -> list[Path]:
        """The user's own."""
        if platform == "win32":
            folder = settings_folder(environ, platform) / "Block" / "goose" / "config"
        else:
            said = environ.get("XDG_CONFIG_HOME")
            folder = (Path(said) if said else home(environ, platform) / ".config") / "goose"
        return [folder / "config.yaml"]

    def server(self, name: str, raw: Any) -> Portable:
        """One extension that is a server. Raises NotPortable."""
        if isinstance(raw, dict) and raw.get("name") == name:
            # Written again by itself; another name is one for people.
            raw = {key: value for key, value in raw.items() if key != "name"}
        return super().server(name, raw)

    def kind(self, reading: Reading) -> Kind:
        """How a server is reached. Raises NotPortable: it is goose's own."""
        said = reading.take("type")
        if isinstance(said, str) and said in _KINDS:
            return _KINDS[said]
        raise NotPortable(f"it is no server but an extension of the type {said!r}")

    def reached(self, reading: Reading, kind: Kind) -> dict[str, Any]:
        """What it takes to start or reach it. Raises NotPortable."""
        env: dict[str, Text] = dict(reading.table("envs"))
        for name in reading.names("env_keys") or ():
            env[name] = (variable("env", name),)
        if kind == "stdio":
            command = reading.text("cmd")
            if not command:
                raise NotPortable("it has no 'cmd'")
            return {"command": command, "args": reading.texts("args"), "env": env}
        url = reading.text("uri")
        if not url:
            raise NotPortable("it has no 'uri'")
        headers = reading.table("headers", _HEADERS)
        # For the header's variables: a server at a URL has none itself.
        extras = {self.name: _env_members(env)} if env else {}
        return {"url": url, "headers": headers, "extras": extras}

    def write_reached(self, writing: Writing) -> None:
        """Say what it takes to start or reach it. Raises NotPortable."""
        server = writing.server
        writing.put("type", self.kinds[server.kind])
        if "name" not in server.extras.get(self.name, {}):
            writing.put("name", server.name)
        writing.raw["enabled"] = not server.disabled
        if server.kind == "stdio":
            writing.put("cmd", writing.must(server.command, "its command"))
            writing.put("args", [writing.must(one, "an argument") for one in server.args])
            handed_on = _env_members(server.env)["env_keys"]
            literal = {name: text for name, text in server.env.items() if name not in handed_on}
            writing.put("envs", writing.table(literal, "env"))
            writing.put("env_keys", handed_on)
            if server.cwd:
                raise NotPortable("it has a folder to start in, which goose cannot say")
            if server.env_file:
                writing.lose("envFile", "goose has no place for it")
            return
        writing.put("uri", writing.must(server.url, "its URL"))
        headers = {}
        for name, text in server.headers.items():
            try:
                headers[name] = _HEADERS.write(text)
            except NotPortable as why:
                writing.lose(f"headers.{name}", str(why))
        writing.put("headers", headers)

    def read_more(self, reading: Reading, members: dict[str, Any]) -> None:
        """Its list of tools; an empty one means all of them."""
        members["only"] = reading.names("available_tools") or None

    def write_more(self, writing: Writing) -> None:
        """Its list of tools."""
        only = writing.server.only
        if only == ():
            writing.lose("enabledTools", "an empty list means all tools there")
        writing.put("available_tools", list(only or ()))


def _env_members(env: Mapping[str, Text]) -> dict[str, Any]:
    """The two members that hold a server's variables."""
    keys = [name for name, text in env.items() if _is_handed_on(name, text)]
    literal = {
        name: "".join(part if isinstance(part, str) else part.text for part in text)
        for name, text in env.items()
        if name not in keys
    }
    return {"envs": literal, "env_keys": keys}


def _is_handed_on(name: str, text: Text) -> bool:
    one = text[0] if len(text) == 1 else ""
    return (
        isinstance(one, Variable) and one.kind == "env" and one.name == name and one.default is None
    )
