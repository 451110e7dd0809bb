"""One server's settings in an mcp.json, read and checked; every fault has its place."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from dragoman.client.config import (
    MODES,
    URL_MEMBERS,
    Pointer,
    RemoteEntry,
    ServerEntry,
    Variable,
    read_server,
    split_variables,
)
from dragoman.errors import Misconfigured
from dragoman.host.entry import HostEntry
from dragoman.host.env_file import read_env_file
from dragoman.host.sandbox import Root, read_sandbox
from dragoman.host.secrets import find_literal_secrets, is_secret_name, looks_secret
from dragoman.host.variables import Values, has_secret, suggested, without_env_file

__all__ = ["MAX_TIMEOUT_S", "Report", "ServerReader"]

# What a server's settings may have; anything else is kept and noted.
_KNOWN = (
    "type",
    "transport",
    "command",
    "args",
    "env",
    "envFile",
    "cwd",
    "url",
    "serverUrl",
    "httpUrl",
    "headers",
    "headersHelper",
    "disabled",
    "timeout",
    "sandbox",
    "roots",
    "alwaysAllow",
    "enabledTools",
    "disabledTools",
    "startTimeout",
    # Members of other products that were kept when a server was imported from one.
    "from",
)

# 3600 s: no request takes an hour; a larger number was meant in milliseconds.
MAX_TIMEOUT_S = 3600.0
# 6 characters: clearing logs of a shorter text would tear holes into everything.
MIN_SECRET = 6

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NO_HEADER_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Report(Protocol):
    """What a reader tells of the file it reads from."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def count(self) -> int:
        """How many faults there are so far."""

    def add(self, at: Pointer, text: str) -> None:
        """Remember a fault."""

    def add_unset(self, at: Pointer, text: str) -> str:
        """Remember what one server misses to be started; returns it with its FILE:LINE."""

    def note(self, at: Pointer, server: str, text: str) -> None:
        """Remember something worth saying."""

    def place(self, at: Pointer) -> str:
        """FILE:LINE."""


class ServerReader:
    """Reads one server's settings; `add` and `note` tell its loader what was found."""

    def __init__(self, loader: Report, fill: Values, at: Pointer, name: str) -> None:
        self._loader = loader
        self._fill = fill
        self._at = at
        self._name = name
        self._references: dict[str, str] = {}
        self._secrets: dict[str, None] = {}
        # Where a text is not complete, and the variables that are missing there.
        self._unset: set[tuple[Pointer, str]] = set()
        self._faults: list[str] = []
        self._asks: dict[str, None] = {}
        self._asks_who: dict[str, None] = {}
        self._is_identified = True
        self._is_disabled = False
        self._settings: Mapping[str, Any] = {}

    def read(self, settings: Any) -> HostEntry | None:
        """The entry; None when there were faults, which the loader was told."""
        before = self._loader.count
        try:
            entry = self._read(settings)
        except _Found as found:
            self._add(found.at, str(found))
            return None
        return entry if self._loader.count == before else None

    def _read(self, settings: Any) -> HostEntry:
        if not isinstance(settings, dict):
            raise self._fault((), "must be an object")
        self._settings = settings
        self._is_disabled = self._flag("disabled")
        for key in settings:
            if key not in _KNOWN:
                self._loader.note(
                    (*self._at, key),
                    self._name,
                    f"the server {self._name!r} has {key!r}, which is not known here, and is left "
                    f"alone{suggested(key, _KNOWN)}",
                )
        if ignored := _not_for_its_kind(settings):
            self._loader.note(
                (*self._at, ignored[0]),
                self._name,
                f"the server {self._name!r} is reached another way, so "
                f"{', '.join(repr(one) for one in ignored)} means nothing",
            )
        plain = without_env_file(settings)
        entry = self._server(plain, self._value)
        shown = self._server(plain, self._shown)
        if isinstance(entry, ServerEntry) and isinstance(shown, ServerEntry):
            if entry.cwd is None and settings.get("sandbox") in (None, False):
                # Where the user happens to stand must not decide which program that is; a sandbox
                # has a folder of its own.
                folder = self._fill.folder
                entry, shown = replace(entry, cwd=folder), replace(shown, cwd=folder)
            entry, shown = self._with_env_file(entry, shown)
            self._check_local(entry)
        elif isinstance(entry, RemoteEntry):
            self._check_remote(entry)
        sandbox = read_sandbox(settings.get("sandbox"), self._fill.folder, self._fault, self._value)
        if sandbox is not None and isinstance(entry, RemoteEntry):
            raise self._fault(
                ("sandbox",), "is at a URL: a sandbox is for a server that is started here"
            )
        # Before what is missing is gathered: a variable may stand in them, too.
        roots = self._roots()
        self._collect_secrets(entry)
        return HostEntry(
            entry=entry,
            shown=shown,
            faults=tuple(self._faults),
            asks=tuple(self._asks),
            asks_who=tuple(self._asks_who),
            is_identified=self._is_identified,
            place=self._loader.place(self._at),
            disabled=self._is_disabled,
            timeout_s=self._timeout("timeout"),
            sandbox=sandbox,
            roots=roots,
            always_allow=self._names("alwaysAllow") or (),
            only_tools=self._names("enabledTools"),
            hidden_tools=self._names("disabledTools") or (),
            start_timeout_s=self._timeout("startTimeout"),
            references=dict(self._references),
            raw=settings,
            secrets=tuple(self._secrets),
            _fill=self._fill,
        )

    def _server(
        self, settings: Mapping[str, Any], fill: Callable[[str, Pointer], str]
    ) -> ServerEntry | RemoteEntry:
        return read_server(
            settings,
            name=self._name,
            source=self._loader.path,
            folder=self._fill.folder,
            fill=fill,
            fault=self._fault,
        )

    def _fault(self, at: Pointer, text: str) -> Misconfigured:
        return _Found(at, f"the server {self._name!r} {text}")

    def _add(self, at: Pointer, text: str) -> None:
        self._loader.add((*self._at, *at), text)

    # --- texts ---

    def _value(self, text: str, at: Pointer) -> str:
        """Filled in, but for what a store of secrets holds."""
        parts = []
        if at[0] in ("env", "headers") and len(at) == 2:
            self._refer(str(at[1]), text)
        for part in split_variables(text):
            if isinstance(part, str):
                if "${" in part:
                    raise self._fault(
                        at,
                        "has a '${' without its end, or a variable within another one",
                    )
                parts.append(part)
            elif part.kind in ("keyring", "secret"):
                if at[0] not in ("command", "args", "env", "headers", *URL_MEMBERS):
                    raise self._fault(at, f"uses {part.text} for a path, which is no secret")
                parts.append(part.text)
            else:
                parts.append(self._looked_up(part, at))
        return "".join(parts)

    def _looked_up(self, variable: Variable, at: Pointer) -> str:
        if not variable.kind:
            raise self._fault(at, f"uses {variable.text}, which is no variable")
        value = self._fill.value(variable)
        if value is None:
            self._miss(variable, at)
            # Nothing is started with it; people see which variable stands there.
            return variable.text
        if len(value) >= MIN_SECRET and self._is_secret(variable, at):
            self._secrets[value] = None
        return value

    def _miss(self, variable: Variable, at: Pointer) -> None:
        """A variable has no value: then the server cannot be started, or not yet."""
        if (at, variable.text) in self._unset:
            return
        self._unset.add((at, variable.text))
        is_to_be_asked = self._fill.is_to_be_asked(variable)
        if not self._is_by_reference(variable, at):
            self._is_identified = False
            if is_to_be_asked:
                self._asks_who[variable.name] = None
        if self._is_disabled:
            return
        if is_to_be_asked:
            self._asks[variable.name] = None
        else:
            self._cannot_start(at, self._why_unset(variable))

    def _cannot_start(self, at: Pointer, text: str) -> None:
        fault = self._loader.add_unset((*self._at, *at), f"the server {self._name!r} {text}")
        self._faults.append(fault)

    def _is_by_reference(self, variable: Variable, at: Pointer) -> bool:
        """Whether who the server is does not depend on the value; see `dragoman.host.identity`."""
        if at[0] == "roots":
            # They are how a server is used, unless its sandbox opens them.
            return self._settings.get("sandbox") in (None, False)
        if at[0] in ("command", "cwd") or at == ("env", "PATH"):
            # Where a program is depends on it, whether it is shown or not.
            return False
        is_named = at[0] in ("env", "headers") and at[-1] in self._references
        return is_named or self._is_secret(variable, at)

    def _is_complete(self, member: str) -> bool:
        return not any(at[0] == member for at, _ in self._unset)

    def _why_unset(self, variable: Variable) -> str:
        if variable.kind == "input":
            return self._fill.why_unsaid(variable)
        env = self._settings.get("env")
        if isinstance(env, dict) and variable.name in env:
            return (
                f"needs {variable.text}, which is not set: the variables in 'env' do not see each "
                f"other, so write out what {variable.name} holds"
            )
        return (
            f"needs the variable {variable.name}, which is not set{self._fill.near(variable.name)}"
            f" (set it, or write a default: ${{{variable.name}:-value}})"
        )

    def _shown(self, text: str, at: Pointer) -> str:
        """Filled in, but for everything secret."""
        # All that is run, or reached, has to be seen by whoever agrees to it.
        in_full = at[0] not in ("env", "headers")
        parts = split_variables(text)
        shown = "".join(
            part
            if isinstance(part, str)
            else self._fill.reference(part, in_full=in_full)
            if self._is_secret(part, at)
            else part.text
            if (value := self._fill.value(part)) is None
            else value
            for part in parts
        )
        return shown

    def _is_secret(self, variable: Variable, at: Pointer) -> bool:
        if variable.kind == "place":
            return False
        if at[0] in ("env", "headers") and is_secret_name(str(at[-1])):
            return True
        return self._fill.is_secret(variable)

    def _refer(self, name: str, text: str) -> None:
        parts = split_variables(text)
        literal = [part for part in parts if isinstance(part, str)]
        if len(literal) < len(parts) and not any(looks_secret("", one) for one in literal):
            self._references[name] = "".join(
                part if isinstance(part, str) else self._fill.reference(part, in_full=True)
                for part in parts
            )

    def _collect_secrets(self, entry: ServerEntry | RemoteEntry) -> None:
        """What stands in the file itself and is likely to be a secret."""
        member = "env" if isinstance(entry, ServerEntry) else "headers"
        unset = {at for at, _ in self._unset}
        given = entry.env if isinstance(entry, ServerEntry) else entry.headers
        for name, value in given.items():
            # A variable without a value stands there itself, and people are told its name.
            is_reference = has_secret(value) or (member, name) in unset
            if len(value) >= MIN_SECRET and not is_reference and looks_secret(name, value):
                self._secrets[value] = None
                # What follows "Bearer" is sent elsewhere without it.
                scheme, _, rest = value.partition(" ")
                if len(rest) >= MIN_SECRET and scheme.lower() in ("bearer", "basic", "token"):
                    self._secrets[rest] = None
        args, url = self._settings.get("args", []), self._settings.get("url")
        texts = [one for one in args if isinstance(one, str)] if isinstance(args, list) else []
        for literal in find_literal_secrets(args=texts, url=url if isinstance(url, str) else ""):
            option, equals, rest = literal.value.partition("=")
            value = rest if equals and option.startswith("-") else literal.value
            if literal.member == "args" and len(value) >= MIN_SECRET:
                self._secrets[value] = None

    # --- the file of variables ---

    def _with_env_file(
        self, entry: ServerEntry, shown: ServerEntry
    ) -> tuple[ServerEntry, ServerEntry]:
        named = self._settings.get("envFile")
        if named is None:
            return entry, shown
        if not isinstance(named, str) or not named:
            raise self._fault(("envFile",), "'envFile' must be a path")
        path = self._fill.folder / Path(self._value(named, ("envFile",))).expanduser()
        if not self._is_complete("envFile") or (self._is_disabled and not path.exists()):
            return entry, shown
        try:
            found = read_env_file(path)
        except Misconfigured as error:
            # Which variables it brings is a part of who the server is.
            self._is_identified = False
            self._cannot_start(("envFile",), f"has an 'envFile' that cannot be used: {error}")
            return entry, shown
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(os.path.realpath(self._fill.folder)) and path != real:
            # A link in a project is its author's: what it brings is seen for what it is.
            named = f"{named}, which is {real}"
        for name, value in found.items():
            if name in entry.env:
                continue
            self._references[name] = f"{named} ({name})"
            if len(value) >= MIN_SECRET and (is_secret_name(name) or looks_secret(name, value)):
                self._secrets[value] = None
        # What is written for this server wins over what is shared.
        hidden = dict.fromkeys(found, f"(from {named})")
        return (
            replace(entry, env={**found, **entry.env}),
            replace(shown, env={**hidden, **shown.env}),
        )

    # --- the other members ---

    def _flag(self, member: str) -> bool:
        value = self._settings.get(member, False)
        if not isinstance(value, bool):
            raise self._fault((member,), f"{member!r} must be true or false")
        return value

    def _timeout(self, member: str) -> float | None:
        value = self._settings.get(member)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise self._fault((member,), f"{member!r} must be a number of seconds above 0")
        if value > MAX_TIMEOUT_S:
            raise self._fault(
                (member,),
                f"has a {member!r} of {value:g}, and at most {MAX_TIMEOUT_S:g} is allowed: it is "
                f"in seconds; were milliseconds meant, write {value / 1000:g}",
            )
        return float(value)

    def _roots(self) -> tuple[Root, ...]:
        given = self._settings.get("roots", [])
        if not isinstance(given, list):
            raise self._fault(("roots",), "'roots' must be a list of paths")
        return tuple(self._root(one, place) for place, one in enumerate(given))

    def _root(self, one: Any, place: int) -> Root:
        at = ("roots", place)
        is_writable = False
        if isinstance(one, dict):
            for key in one:
                if key not in ("path", "write"):
                    raise self._fault(
                        (*at, key), f"has a root with {key!r}; it has 'path' and 'write'"
                    )
            is_writable = one.get("write", False)
            if not isinstance(is_writable, bool):
                raise self._fault((*at, "write"), "has a root whose 'write' is not true or false")
            one = one.get("path")
        if not isinstance(one, str) or not one:
            raise self._fault(at, 'has a root that is no path: write a text, or {"path": ...}')
        text = self._value(one, at)
        if "://" in text:
            parts = urlsplit(text)
            if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
                raise self._fault(
                    at, f"has the root {text!r}, and a root is a folder of this machine"
                )
            text = unquote(parts.path)
        if ".." in Path(text).parts:
            raise self._fault(at, f"has the root {text!r}; write it without '..'")
        if "\0" in text:
            raise self._fault(at, "has a root with a NUL character")
        return Root(
            Path(os.path.normpath(self._fill.folder / Path(text).expanduser())), is_writable
        )

    def _names(self, member: str) -> tuple[str, ...] | None:
        given = self._settings.get(member)
        if given is None:
            return None
        if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
            raise self._fault((member,), f"{member!r} must be a list of tools' names")
        return tuple(dict.fromkeys(given))

    # --- what can be known before anything is started ---

    def _check_local(self, entry: ServerEntry) -> None:
        if "\0" in entry.command:
            raise self._fault(("command",), "has a command with a NUL character")
        for place, arg in enumerate(entry.args):
            if "\0" in arg:
                raise self._fault(("args", place), "has an argument with a NUL character")
        for name, value in entry.env.items():
            if not name or "=" in name or "\0" in name + value:
                raise self._fault(
                    ("env", name), f"has {name!r} in 'env', which cannot be a variable"
                )
        if not self._is_complete("command"):
            return
        if any(char.isspace() for char in entry.command) and not os.path.exists(entry.command):
            words = _words(entry.command)
            if len(words) > 1:
                raise self._fault(
                    ("command",),
                    f"has the command {entry.command!r}, which is no program: it is never given to "
                    f"a shell, so put {words[0]!r} there and the rest into 'args'",
                )

    def _check_remote(self, entry: RemoteEntry) -> None:
        member = next(one for one in URL_MEMBERS if one in self._settings)
        if self._is_complete(member) and not has_secret(entry.url):
            try:
                parts = urlsplit(entry.url)
                is_fit = parts.scheme in ("http", "https", "http+unix", "https+unix")
                is_fit = is_fit and bool(parts.hostname) and parts.port != 0
            except ValueError:
                is_fit = False
            if not is_fit:
                raise self._fault((member,), "has a 'url' that is no http or https address")
        for name, value in entry.headers.items():
            if not _HEADER_NAME.fullmatch(name):
                raise self._fault(("headers", name), f"has {name!r}, which cannot be a header")
            if _NO_HEADER_VALUE.search(value):
                raise self._fault(
                    ("headers", name),
                    f"has a header {name!r} with a line end or another control character",
                )


class _Found(Misconfigured):
    """A fault of a server, with the place within its settings; the loader makes it whole."""

    def __init__(self, at: Pointer, text: str) -> None:
        self.at = at
        super().__init__(text)


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def _not_for_its_kind(settings: Mapping[str, Any]) -> list[str]:
    """Members of the other kind of server."""
    kind = settings.get("type", settings.get("transport"))
    is_remote = kind in MODES if isinstance(kind, str) else "command" not in settings
    others = (
        ("command", "args", "env", "envFile", "cwd") if is_remote else (*URL_MEMBERS, "headers")
    )
    return [one for one in others if one in settings]
