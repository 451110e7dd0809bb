"""Reading mcp.json: the servers a person has given names to.

The same file serves many programs. Two shapes are in use: `mcpServers` (Claude and most others)
and `servers` (VS Code, which also allows comments and a comma before a closing bracket).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dragoman.errors import Misconfigured
from dragoman.transport.base import Connector
from dragoman.transport.http.choices import HttpLike, Mode, Token
from dragoman.transport.stdio.child import StdioConnector

__all__ = [
    "ConfigFile",
    "RemoteEntry",
    "ServerEntry",
    "config_paths",
    "find_server",
    "read_config",
]

_SHAPES = ("mcpServers", "servers")

# What the programs that share these files write for a server at a URL. VS Code's and Claude's
# "http" is whichever transport the server speaks.
_MODES: Mapping[str, Mode] = {
    "http": "auto",
    "https": "auto",
    "streamable-http": "streamable",
    "streamable_http": "streamable",
    "streamableHttp": "streamable",
    "sse": "sse",
}
_URLS = ("url", "serverUrl", "httpUrl")

# A string first, so that what looks like a comment or a comma inside one is left alone.
_STRING = r'"(?:[^"\\]|\\.)*"'
_COMMENT = re.compile(rf"({_STRING})|//[^\r\n]*|/\*.*?\*/", re.DOTALL)
_LAST_COMMA = re.compile(rf"({_STRING})|,(?=\s*[}}\]])", re.DOTALL)

_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerEntry:
    """How to start one named server, every variable filled in.

    `source` is the file it stands in; `env` comes on top of the few variables any child inherits.
    """

    name: str
    source: Path
    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(repr=False)
    cwd: Path | None = None

    def connector(
        self,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        stderr: Callable[[str], object] | None = None,
    ) -> StdioConnector:
        """A connector for it; `env` and `cwd` win over what the file says."""
        return StdioConnector(
            command=self.command,
            args=self.args,
            env={**self.env, **(env or {})},
            cwd=cwd or self.cwd,
            stderr=stderr,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteEntry:
    """Where one named server is, every variable filled in; `mode` is the transport it speaks."""

    name: str
    source: Path
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    mode: Mode = "auto"

    def connector(
        self,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        stderr: Callable[[str], object] | None = None,
        http: HttpLike | None = None,
        headers: Mapping[str, str] | None = None,
        token: Token | None = None,
    ) -> Connector:
        """A connector for it; `headers` and `token` win over what the file says.

        Raises:
            Misconfigured: the URL or a header cannot be used; or there are `env` or `cwd`, which
                are for a server that is started here (so is `stderr`, which stays silent).
        """
        from dragoman.transport.http.connector import HttpConnector

        if env or cwd:
            raise Misconfigured(
                f"the server {self.name!r} is at a URL: variables and a folder are for one that "
                "is started here"
            )
        given = {name.lower() for name in headers or ()}
        kept = {name: value for name, value in self.headers.items() if name.lower() not in given}
        try:
            return HttpConnector(
                self.url,
                http=http,
                headers={**kept, **(headers or {})},
                token=token,
                mode=self.mode,
            )
        except Misconfigured as fault:
            raise Misconfigured(f"{self.source}: the server {self.name!r}: {fault}") from None


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """One mcp.json: its `path`, and each server's settings by name, still unchecked."""

    path: Path
    servers: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """The project the file belongs to: its folder, or the one around `.vscode`."""
        parent = self.path.absolute().parent
        return parent.parent if parent.name == ".vscode" else parent

    def entry(
        self, name: str, environ: Mapping[str, str] = os.environ
    ) -> ServerEntry | RemoteEntry:
        """One server, checked, with `${VAR}`, `${VAR:-default}` and `${env:VAR}` filled in.

        Raises:
            Misconfigured: there is no such server, its settings cannot work, or it needs variables
                that are not set (all of them are named).
        """
        if name not in self.servers:
            raise Misconfigured(
                f"{self.path} has no server {name!r}{_suggestion(name, list(self.servers))}"
            )
        return _Reader(self, name, environ).read(self.servers[name])


def read_config(path: str | Path) -> ConfigFile:
    """Read one mcp.json; its servers are checked when they are asked for.

    Raises:
        Misconfigured: the file cannot be read, is no JSON, or holds no servers.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise Misconfigured(f"there is no file {str(path)!r}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{path} cannot be read: {error}") from None
    plain = _LAST_COMMA.sub(r"\1", _COMMENT.sub(_blank, text))
    try:
        whole = json.loads(plain, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise Misconfigured(
            f"{path} is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from None
    except (_TwiceError, RecursionError) as error:
        raise Misconfigured(f"{path} is not usable: {error}") from None
    for shape in _SHAPES:
        if isinstance(whole, dict) and shape in whole:
            servers = whole[shape]
            if not isinstance(servers, dict):
                raise Misconfigured(f"{path}: {shape!r} must be an object of servers by name")
            return ConfigFile(path, servers)
    raise Misconfigured(f"{path} has neither 'mcpServers' nor 'servers'")


def config_paths(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Where a name is looked for, in order: the project's files, then the person's own."""
    personal = environ.get("XDG_CONFIG_HOME")
    base = Path(personal) if personal else Path.home() / ".config"
    return [
        Path(".mcp.json"),
        Path("mcp.json"),
        Path(".vscode", "mcp.json"),
        base / "dragoman" / "mcp.json",
    ]


def find_server(
    name: str, paths: Sequence[Path], environ: Mapping[str, str] = os.environ
) -> ServerEntry | RemoteEntry:
    """The server of that name, from the first of these files that has it; missing files count not.

    Raises:
        Misconfigured: no file has it, or a file on the way is broken, or the server is.
    """
    files = []
    for path in paths:
        if not path.is_file():
            continue
        file = read_config(path)
        if name in file.servers:
            return file.entry(name, environ)
        files.append(file)
    if not files:
        looked = ", ".join(str(path) for path in paths)
        raise Misconfigured(f"no server is called {name!r}: there is none of {looked}")
    known = [one for file in files for one in file.servers]
    where = ", ".join(str(file.path) for file in files)
    raise Misconfigured(f"no server is called {name!r} in {where}{_suggestion(name, known)}")


class _TwiceError(ValueError):
    """A member that stands twice in one object."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [key for key, _ in pairs]
        twice = next(key for key in names if names.count(key) > 1)
        raise _TwiceError(f"{twice!r} stands twice in one object")
    return found


def _blank(match: re.Match[str]) -> str:
    """A string as it is; a comment as blanks and its line ends, so that line numbers stay true."""
    if match.group(1) is not None:
        return match.group(1)
    return re.sub(r"[^\r\n]", " ", match.group(0))


def _suggestion(name: str, known: Sequence[str]) -> str:
    if not known:
        return "; it has none"
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; it has {', '.join(repr(one) for one in known)}"


class _Reader:
    """Checks one server's settings and fills in its variables."""

    def __init__(self, file: ConfigFile, name: str, environ: Mapping[str, str]) -> None:
        self._file = file
        self._name = name
        self._environ = environ
        self._unset: list[str] = []

    def read(self, settings: Any) -> ServerEntry | RemoteEntry:
        """The entry. Raises Misconfigured."""
        if not isinstance(settings, dict):
            raise self._fault("must be an object")
        kind = settings.get("type", settings.get("transport"))
        if kind is not None and kind != "stdio" and kind not in _MODES:
            raise self._fault(f"has the type {kind!r}, which is not one of stdio, http and sse")
        is_remote = kind in _MODES or (kind is None and "command" not in settings)
        entry: ServerEntry | RemoteEntry
        if is_remote and (kind is not None or any(name in settings for name in _URLS)):
            entry = self._remote(settings, "auto" if kind is None else _MODES[kind])
        else:
            entry = self._local(settings)
        if self._unset:
            names = ", ".join(dict.fromkeys(self._unset))
            raise self._fault(
                f"needs variables that are not set: {names} "
                "(set them, or write a default: ${NAME:-value})"
            )
        return entry

    def _remote(self, settings: Mapping[str, Any], mode: Mode) -> RemoteEntry:
        url = next((settings[name] for name in _URLS if name in settings), None)
        if not isinstance(url, str) or not url:
            raise self._fault("needs a 'url', a text")
        headers = settings.get("headers") or {}
        if not isinstance(headers, dict) or not all(_is_value(one) for one in headers.values()):
            raise self._fault("'headers' must be an object of texts")
        if "headersHelper" in settings:
            raise self._fault("has a 'headersHelper', which is not run; write the 'headers'")
        return RemoteEntry(
            name=self._name,
            source=self._file.path,
            url=_with_socket(self._fill(url)),
            headers={
                key: self._fill(str(value)) for key, value in headers.items() if value is not None
            },
            mode=mode,
        )

    def _local(self, settings: Mapping[str, Any]) -> ServerEntry:
        if "envFile" in settings:
            raise self._fault("has an 'envFile', which is not read; list the variables in 'env'")
        command = settings.get("command")
        if not isinstance(command, str) or not command:
            raise self._fault("needs a 'command', a text")
        args = settings.get("args", [])
        if not isinstance(args, list) or not all(isinstance(one, str) for one in args):
            raise self._fault("'args' must be a list of texts")
        env = settings.get("env") or {}
        if not isinstance(env, dict) or not all(_is_value(one) for one in env.values()):
            raise self._fault("'env' must be an object of texts")
        cwd = settings.get("cwd")
        if cwd is not None and not isinstance(cwd, str):
            raise self._fault("'cwd' must be a text")
        return ServerEntry(
            name=self._name,
            source=self._file.path,
            command=self._fill(command),
            args=tuple(self._fill(one) for one in args),
            env={key: self._fill(str(value)) for key, value in env.items() if value is not None},
            cwd=None if cwd is None else self._file.folder / self._fill(cwd),
        )

    def _fault(self, what: str) -> Misconfigured:
        return Misconfigured(f"{self._file.path}: the server {self._name!r} {what}")

    def _fill(self, text: str) -> str:
        return _VARIABLE.sub(self._value, text)

    def _value(self, match: re.Match[str]) -> str:
        inside = match.group(1)
        # VS Code's own variables that mean something outside of it, too.
        if inside == "workspaceFolder":
            return str(self._file.folder)
        if inside == "userHome":
            return str(Path.home())
        if inside.startswith("input:"):
            raise self._fault(f"uses {match.group(0)}, which only VS Code can ask for")
        name, has_default, default = inside.removeprefix("env:").partition(":-")
        if not _NAME.fullmatch(name):
            raise self._fault(f"uses {match.group(0)}, which is no variable")
        value = self._environ.get(name)
        # As in a shell: the default also stands for an empty value.
        if has_default and not value:
            return default
        if value is None:
            self._unset.append(name)
            return ""
        return value


def _with_socket(url: str) -> str:
    """VS Code's way to name a Unix socket, unix:///path/to/it#/mcp, in ours."""
    if not url.startswith("unix://"):
        return url
    socket, _, path = url.removeprefix("unix://").partition("#")
    return f"http+unix://{quote(socket, safe='')}/{(path or 'mcp').lstrip('/')}"


def _is_value(value: Any) -> bool:
    """VS Code also takes numbers, and null for "leave it out"."""
    return value is None or (isinstance(value, str | int | float) and not isinstance(value, bool))
