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

from dragoman.client.files import read_bounded
from dragoman.errors import Misconfigured
from dragoman.transport.base import Connector
from dragoman.transport.http.choices import HttpLike, Mode, Token
from dragoman.transport.stdio.child import StdioConnector

__all__ = [
    "MODES",
    "SHAPES",
    "URL_MEMBERS",
    "ConfigFile",
    "Fault",
    "Fill",
    "Pointer",
    "RemoteEntry",
    "ServerEntry",
    "Variable",
    "config_paths",
    "find_server",
    "project_of",
    "read_config",
    "read_server",
    "split_variables",
]

# 16 MiB: some products keep their whole history in the file that holds their servers.
MAX_BYTES = 16 * 1024 * 1024

SHAPES = ("mcpServers", "servers")

# What the programs that share these files write for a server at a URL. VS Code's and Claude's
# "http" is whichever transport the server speaks.
MODES: Mapping[str, Mode] = {
    "http": "auto",
    "https": "auto",
    "streamable-http": "streamable",
    "streamable_http": "streamable",
    "streamableHttp": "streamable",
    "sse": "sse",
}
URL_MEMBERS = ("url", "serverUrl", "httpUrl")

# Programs keep a project's file in a folder of their own.
_OF_PROGRAMS = (".vscode", ".cursor", ".dragoman")

# A string first, so that what looks like a comment or a comma inside one is left alone.
_STRING = r'"(?:[^"\\]|\\.)*"'
_COMMENT = re.compile(rf"({_STRING})|//[^\r\n]*|/\*.*?\*/", re.DOTALL)
_LAST_COMMA = re.compile(rf"({_STRING})|,(?=\s*[}}\]])", re.DOTALL)

_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# VS Code's own variables that mean something outside of it, too.
_PLACES = frozenset(
    ("workspaceFolder", "workspaceFolderBasename", "userHome", "pathSeparator", "/")
)
# What follows them is a name for a host to look up, not for the environment.
_HOST_KINDS = frozenset(("input", "keyring", "secret"))

# Where something stands within a server's settings: members' names and places in lists.
Pointer = tuple[str | int, ...]
Fill = Callable[[str, Pointer], str]
Fault = Callable[[Pointer, str], Misconfigured]


@dataclass(frozen=True, slots=True)
class Variable:
    """One `${...}` in a text.

    `kind` is "env", "place" (a folder, such as the project's), "input", "keyring" or "secret" (for
    a host only), or empty for what is none of them. `default` stands for an environment variable
    that is unset or empty; None: there is none. `text` is all of it, as it was written.
    """

    text: str
    kind: str
    name: str
    default: str | None = None

    def place(self, folder: Path) -> str:
        """What one of the kind "place" means for a project in `folder`."""
        if self.name == "userHome":
            return str(Path.home())
        if self.name == "workspaceFolder":
            return str(folder)
        return folder.name if self.name == "workspaceFolderBasename" else os.sep


def split_variables(text: str) -> list[str | Variable]:
    """The text in its parts, in order: what stands there itself, and the variables in it."""
    found: list[str | Variable] = []
    at = 0
    for match in _VARIABLE.finditer(text):
        if match.start() > at:
            found.append(text[at : match.start()])
        found.append(_variable(match.group(0), match.group(1)))
        at = match.end()
    if at < len(text):
        found.append(text[at:])
    return found


def _variable(text: str, inside: str) -> Variable:
    if inside in _PLACES:
        return Variable(text, "place", inside)
    kind, colon, rest = inside.partition(":")
    if colon and kind in _HOST_KINDS:
        return Variable(text, kind if rest else "", rest)
    name, has_default, default = inside.removeprefix("env:").partition(":-")
    is_one = _NAME.fullmatch(name) is not None
    return Variable(text, "env" if is_one else "", name, default if has_default else None)


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
        return project_of(self.path)

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


def project_of(path: Path) -> Path:
    """The folder a configuration file speaks of: its own, or the one around `.vscode`."""
    parent = path.absolute().parent
    return parent.parent if parent.name in _OF_PROGRAMS else parent


def read_config(path: str | Path) -> ConfigFile:
    """Read one mcp.json; its servers are checked when they are asked for.

    Raises:
        Misconfigured: the file cannot be read, is no JSON, or holds no servers.
    """
    path = Path(path)
    data = read_bounded(path, MAX_BYTES)
    if data is None:
        raise Misconfigured(f"there is no file {str(path)!r}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
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
    for shape in SHAPES:
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
    """Fills in one server's variables from the environment, and says which are missing."""

    def __init__(self, file: ConfigFile, name: str, environ: Mapping[str, str]) -> None:
        self._file = file
        self._name = name
        self._environ = environ
        self._unset: list[str] = []

    def read(self, settings: Any) -> ServerEntry | RemoteEntry:
        """The entry. Raises Misconfigured."""
        entry = read_server(
            settings,
            name=self._name,
            source=self._file.path,
            folder=self._file.folder,
            fill=self._fill,
            fault=self._fault,
        )
        if self._unset:
            names = ", ".join(dict.fromkeys(self._unset))
            raise self._fault(
                (),
                f"needs variables that are not set: {names} "
                "(set them, or write a default: ${NAME:-value})",
            )
        return entry

    def _fault(self, at: Pointer, what: str) -> Misconfigured:
        return Misconfigured(f"{self._file.path}: the server {self._name!r} {what}")

    def _fill(self, text: str, at: Pointer) -> str:
        return "".join(
            part if isinstance(part, str) else self._value(part, at)
            for part in split_variables(text)
        )

    def _value(self, variable: Variable, at: Pointer) -> str:
        if variable.kind == "place":
            return variable.place(self._file.folder)
        if variable.kind in _HOST_KINDS:
            raise self._fault(at, f"uses {variable.text}, which only a host can look up or ask for")
        if not variable.kind:
            raise self._fault(at, f"uses {variable.text}, which is no variable")
        value = self._environ.get(variable.name)
        # As in a shell: the default also stands for an empty value.
        if variable.default is not None and not value:
            return variable.default
        if value is None:
            self._unset.append(variable.name)
            return ""
        return value


def read_server(
    settings: Any, *, name: str, source: Path, folder: Path, fill: Fill, fault: Fault
) -> ServerEntry | RemoteEntry:
    """One server's settings, checked.

    `folder` is what a relative `cwd` starts from. `fill` is given each text and where it stands,
    and returns it with its variables filled in. `fault` makes the error for what is wrong at a
    place; its text continues "the server NAME ...".

    Raises:
        Misconfigured: what `fault` made, for the first thing that is wrong.
    """
    if not isinstance(settings, dict):
        raise fault((), "must be an object")
    member = "type" if "type" in settings else "transport"
    kind = settings.get(member)
    # A list or an object cannot be looked up.
    if kind is not None and (not isinstance(kind, str) or (kind != "stdio" and kind not in MODES)):
        raise fault((member,), f"has the type {kind!r}, which is not one of stdio, http and sse")
    is_remote = kind in MODES or (kind is None and "command" not in settings)
    if is_remote and (kind is not None or any(one in settings for one in URL_MEMBERS)):
        return _remote(settings, "auto" if kind is None else MODES[kind], name, source, fill, fault)
    return _local(settings, name, source, folder, fill, fault)


def _remote(
    settings: Mapping[str, Any], mode: Mode, name: str, source: Path, fill: Fill, fault: Fault
) -> RemoteEntry:
    member = next((one for one in URL_MEMBERS if one in settings), "")
    url = settings.get(member)
    if not isinstance(url, str) or not url:
        raise fault((member,) if member else (), "needs a 'url', a text")
    headers = settings.get("headers") or {}
    _check_texts("headers", headers, fault)
    if "headersHelper" in settings:
        raise fault(
            ("headersHelper",), "has a 'headersHelper', which is not run; write the 'headers'"
        )
    return RemoteEntry(
        name=name,
        source=source,
        url=_with_socket(fill(url, (member,))),
        headers=_filled(headers, "headers", fill),
        mode=mode,
    )


def _local(
    settings: Mapping[str, Any], name: str, source: Path, folder: Path, fill: Fill, fault: Fault
) -> ServerEntry:
    if "envFile" in settings:
        raise fault(
            ("envFile",), "has an 'envFile', which is not read; list the variables in 'env'"
        )
    command = settings.get("command")
    if not isinstance(command, str) or not command:
        raise fault(("command",) if "command" in settings else (), "needs a 'command', a text")
    args = settings.get("args", [])
    if not isinstance(args, list):
        raise fault(("args",), "'args' must be a list of texts")
    for place, one in enumerate(args):
        if not isinstance(one, str):
            raise fault(("args", place), "'args' must be a list of texts")
    env = settings.get("env") or {}
    _check_texts("env", env, fault)
    cwd = settings.get("cwd")
    if cwd is not None and not isinstance(cwd, str):
        raise fault(("cwd",), "'cwd' must be a text")
    return ServerEntry(
        name=name,
        source=source,
        command=fill(command, ("command",)),
        args=tuple(fill(one, ("args", place)) for place, one in enumerate(args)),
        env=_filled(env, "env", fill),
        cwd=None if cwd is None else folder / fill(cwd, ("cwd",)),
    )


def _check_texts(member: str, given: Any, fault: Fault) -> None:
    if not isinstance(given, dict):
        raise fault((member,), f"{member!r} must be an object of texts")
    for key, value in given.items():
        if not _is_value(value):
            raise fault((member, key), f"{member!r} must be an object of texts")


def _filled(given: Mapping[str, Any], member: str, fill: Fill) -> dict[str, str]:
    return {
        key: fill(str(value), (member, key)) for key, value in given.items() if value is not None
    }


def _with_socket(url: str) -> str:
    """VS Code's way to name a Unix socket, unix:///path/to/it#/mcp, in ours."""
    if not url.startswith("unix://"):
        return url
    socket, _, path = url.removeprefix("unix://").partition("#")
    return f"http+unix://{quote(socket, safe='')}/{(path or 'mcp').lstrip('/')}"


def _is_value(value: Any) -> bool:
    """VS Code also takes numbers, and null for "leave it out"."""
    return value is None or (isinstance(value, str | int | float) and not isinstance(value, bool))
