"""The host's reading of mcp.json: every server checked before anything is started.

The file is the one that many programs share (see `dragoman.client.config`), with a few members of
ours. Everything that is wrong is told at once, each fault with FILE:LINE. A text is filled in once:
what a variable holds is never read again, so there are no rings of variables; and there are no
includes.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from dragoman.client.config import (
    MODES,
    SHAPES,
    URL_MEMBERS,
    Pointer,
    RemoteEntry,
    ServerEntry,
    Variable,
    project_of,
    read_server,
    split_variables,
)
from dragoman.errors import Misconfigured
from dragoman.host.env_file import read_env_file
from dragoman.host.identity import alias_faults
from dragoman.host.located import Located, read_located
from dragoman.host.sandbox import Root, Sandbox, confine, read_sandbox
from dragoman.host.secrets import find_literal_secrets, is_secret_name, looks_secret
from dragoman.transport.base import Connector
from dragoman.transport.stdio.child import StdioConnector

__all__ = [
    "AskInput",
    "HostConfig",
    "HostEntry",
    "Input",
    "Note",
    "Secrets",
    "load_servers",
]

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
_KNOWN_ABOVE = (*SHAPES, "inputs", "$schema")
# Words for "read another file as well" in other programs: ignored, they would hide servers.
_INCLUDES = ("include", "includes", "extends", "import", "imports")

# 3600 s: no request takes an hour; a larger number was meant in milliseconds.
MAX_TIMEOUT_S = 3600.0
# 6 characters: clearing logs of a shorter text would tear holes into everything.
MIN_SECRET = 6

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NO_HEADER_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Secrets(Protocol):
    """Where `${keyring:NAME}` and `${secret:NAME}` come from; see `dragoman.host.secrets`."""

    def get(self, name: str, *, only_keyring: bool = False) -> str:
        """The secret of that name. Raises Misconfigured: there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """Something the file wants the person to be asked for.

    `options` is not empty when one of them has to be chosen.
    """

    id: str
    description: str = ""
    default: str | None = None
    is_password: bool = False
    options: tuple[str, ...] = ()


# Asks the person; None: they would not say.
AskInput = Callable[[Input], str | None]


@dataclass(frozen=True, slots=True)
class Note:
    """Something in the file that is no fault, but that a person may want to know.

    `place` is FILE:LINE.
    """

    place: str
    server: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


@dataclass(frozen=True, kw_only=True, slots=True)
class HostEntry:
    """One server of the file, checked.

    `entry` is complete except for what a `Secrets` holds, which is looked up by `filled` when the
    server is started. `shown` is the same for people and logs: in it, whatever comes out of a
    secret is the reference that names it. `references` has, for each variable or header whose text
    holds a variable, that text; one that also holds a literal secret is left out.

    `timeout_s` bounds each request and `start_timeout_s` the first connection, None: as the host
    says. Of its tools only `only_tools` are offered (None: all), and never `hidden_tools`.
    `always_allow` are tools that the file would have called without asking: a proposal to the
    user, nothing more. `secrets` are the values that are known to be secret by now. `raw` is the
    object as it stands in the file, `place` its FILE:LINE.
    """

    entry: ServerEntry | RemoteEntry = field(repr=False)
    shown: ServerEntry | RemoteEntry
    place: str
    disabled: bool = False
    timeout_s: float | None = None
    sandbox: Sandbox | None = None
    roots: tuple[Root, ...] = ()
    always_allow: tuple[str, ...] = ()
    only_tools: tuple[str, ...] | None = None
    hidden_tools: tuple[str, ...] = ()
    start_timeout_s: float | None = None
    references: Mapping[str, str] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    _fill: _Fill = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """The alias the user gave it."""
        return self.entry.name

    @property
    def source(self) -> Path:
        """The file it stands in."""
        return self.entry.source

    @property
    def needs_secrets(self) -> bool:
        """Whether `filled` has to look something up, which may take as long as a person does."""
        return _has_secret(self.raw)

    def offers(self, tool: str) -> bool:
        """Whether the file leaves that tool to be used."""
        return tool not in self.hidden_tools and (
            self.only_tools is None or tool in self.only_tools
        )

    def filled(self, secrets: Secrets | None = None) -> ServerEntry | RemoteEntry:
        """The entry with its secrets looked up: what is started.

        Raises:
            Misconfigured: a secret is not there, or there is no `secrets` to look in.
        """
        return self._fill.complete(self.entry, self.raw, secrets)

    def connector(
        self,
        secrets: Secrets | None = None,
        *,
        roots: Iterable[Root] = (),
        stderr: Callable[[str], object] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> Connector:
        """How to reach it, in its sandbox if it has one.

        `roots` are those the user has granted by now.

        Raises:
            Misconfigured: a secret, bubblewrap, a path of the sandbox or the URL is not there or
                cannot be used.
        """
        entry = self.filled(secrets)
        if isinstance(entry, RemoteEntry):
            # Here: it brings ssl along.
            from dragoman.transport.http.client import HttpOptions

            # What a person agrees to is this address; nothing is sent to where it redirects.
            return entry.connector(stderr=stderr, http=HttpOptions(stays_at_origin=True))
        if self.sandbox is None:
            return entry.connector(stderr=stderr)
        confined = confine(entry, self.sandbox, roots=roots, environ=environ)
        return StdioConnector(
            command=confined.command,
            args=confined.args,
            env=confined.env,
            cwd=confined.cwd,
            stderr=stderr,
        )


@dataclass(frozen=True, slots=True)
class HostConfig:
    """All servers of one file, by name in its order.

    `secrets` are the values that are known to be secret by now: what is written anywhere has to be
    cleared of them. `project` is the folder the file belongs to.
    """

    path: Path
    project: Path
    servers: Mapping[str, HostEntry]
    notes: tuple[Note, ...] = ()
    digest: str = ""
    secrets: tuple[str, ...] = field(default=(), repr=False)


def load_servers(
    path: str | Path,
    environ: Mapping[str, str] = os.environ,
    inputs: AskInput | None = None,
) -> HostConfig:
    """Read one mcp.json whole. Nothing is started, and nothing is looked up in a keyring.

    `inputs` asks the person for an `${input:id}`, at most once for each id.

    Raises:
        Misconfigured: something is wrong; the text has a line "FILE:LINE: ..." for each fault.
    """
    path = Path(path)
    located = read_located(path)
    return _Loader(located, environ, inputs).load()


class _Fill:
    """The values of variables, each looked up once: what was checked is what is started."""

    def __init__(
        self,
        located: Located,
        folder: Path,
        environ: Mapping[str, str],
        declared: Mapping[str, Input],
        ask: AskInput | None,
    ) -> None:
        self._located = located
        self.folder = folder
        self._environ = environ
        self._declared = declared
        self._ask = ask
        self._values: dict[str, str | None] = {}

    def value(self, variable: Variable) -> str | None:
        """None: it is unset, or nobody says it. Secrets of a store are not looked up here."""
        if variable.text not in self._values:
            self._values[variable.text] = self._find(variable)
        return self._values[variable.text]

    def is_secret(self, variable: Variable) -> bool:
        """Whether its value must not be shown."""
        if variable.kind in ("keyring", "secret"):
            return True
        if variable.kind == "input":
            given = self._declared.get(variable.name)
            return given is None or given.is_password
        return variable.kind == "env" and (
            is_secret_name(variable.name)
            or looks_secret("", self.value(variable) or "") is not None
        )

    def complete(
        self,
        entry: ServerEntry | RemoteEntry,
        raw: Mapping[str, Any],
        secrets: Secrets | None,
    ) -> ServerEntry | RemoteEntry:
        """`entry` with the secrets that its texts in `raw` name."""

        def fault(at: Pointer, text: str) -> Misconfigured:
            return Misconfigured(f"{entry.source}: the server {entry.name!r} {text}")

        def fill(text: str, at: Pointer) -> str:
            return "".join(
                part if isinstance(part, str) else one(part) for part in split_variables(text)
            )

        def one(variable: Variable) -> str:
            if variable.kind not in ("keyring", "secret"):
                return self.value(variable) or ""
            if secrets is None:
                raise fault((), f"uses {variable.text}, and there is no store of secrets here")
            return secrets.get(variable.name, only_keyring=variable.kind == "keyring")

        if not _has_secret(raw):
            return entry
        made = read_server(
            _without_env_file(raw),
            name=entry.name,
            source=entry.source,
            folder=self.folder,
            fill=fill,
            fault=fault,
        )
        if isinstance(made, ServerEntry) and isinstance(entry, ServerEntry):
            # What came from the file of variables is in the entry already.
            return replace(made, env={**entry.env, **made.env}, cwd=entry.cwd)
        return made

    def why_unsaid(self, variable: Variable) -> str:
        """Why there is no value for an input: the rest of a sentence about the server."""
        given = self._declared.get(variable.name)
        if given is None:
            near = _near(variable.name, self._declared)
            return f"uses {variable.text}, and 'inputs' declares no {variable.name!r}{near}"
        if self._ask is None:
            return f"uses {variable.text}, and there is nobody to ask for it"
        if given.options:
            return f"uses {variable.text}, and none of its options was chosen"
        return f"uses {variable.text}, and no answer was given"

    def near(self, name: str) -> str:
        """A suggestion for a variable that is not set."""
        return _near(name, self._environ)

    def _find(self, variable: Variable) -> str | None:
        if variable.kind == "place":
            return variable.place(self.folder)
        if variable.kind == "input":
            return self._asked(variable.name)
        value = self._environ.get(variable.name)
        # As in a shell: the default also stands for an empty value.
        if variable.default is not None and not value:
            return variable.default
        return value

    def _asked(self, id: str) -> str | None:
        given = self._declared.get(id)
        if given is None:
            return None
        said = None if self._ask is None else self._ask(given)
        if said is None:
            said = given.default if self._ask is None else None
        if said is not None and given.options and said not in given.options:
            return None
        return said


class _Loader:
    """Reads one file, and collects everything that is wrong with it."""

    def __init__(self, located: Located, environ: Mapping[str, str], ask: AskInput | None) -> None:
        self._located = located
        self._environ = environ
        self._ask = ask
        self._folder = project_of(located.path)
        self._faults: list[tuple[int, str]] = []
        self.path = located.path
        self._notes: list[Note] = []
        self._secrets: dict[str, None] = {}

    def load(self) -> HostConfig:
        """The whole file. Raises Misconfigured, with every fault."""
        whole = self._located.value
        if not isinstance(whole, dict):
            raise self._located.fault((), "must be an object with 'mcpServers'")
        shape = self._shape(whole)
        fill = _Fill(self._located, self._folder, self._environ, self._inputs(whole), self._ask)
        servers = {}
        for name, settings in whole[shape].items():
            entry = _ServerReader(self, fill, (shape, name), name).read(settings)
            if entry is not None:
                servers[name] = entry
                self._secrets |= dict.fromkeys(entry.secrets)
        self._check_names(shape, list(whole[shape]))
        if self._faults:
            lines = [text for _, text in sorted(self._faults, key=lambda fault: fault[0])]
            raise Misconfigured("\n".join(dict.fromkeys(lines)))
        return HostConfig(
            path=self._located.path,
            project=self._folder,
            servers=servers,
            notes=tuple(self._notes),
            digest=self._located.digest,
            secrets=tuple(self._secrets),
        )

    def add(self, at: Pointer, text: str) -> None:
        """Remember a fault."""
        self._faults.append((self._located.line(at), str(self._located.fault(at, text))))

    @property
    def count(self) -> int:
        """How many faults there are so far."""
        return len(self._faults)

    def note(self, at: Pointer, server: str, text: str) -> None:
        """Remember something worth saying."""
        self._notes.append(Note(self._located.place(at), server, text))

    def fault(self, at: Pointer, text: str) -> Misconfigured:
        """An error about a place."""
        return self._located.fault(at, text)

    def place(self, at: Pointer) -> str:
        """FILE:LINE."""
        return self._located.place(at)

    def _shape(self, whole: Mapping[str, Any]) -> str:
        there = [shape for shape in SHAPES if shape in whole]
        if not there:
            near = difflib.get_close_matches("mcpServers", list(whole), n=1, cutoff=0.6)
            hint = f"; is {near[0]!r} meant?" if near else ""
            raise self.fault((near[0],) if near else (), f"there is no 'mcpServers'{hint}")
        if len(there) > 1:
            raise self.fault(
                (there[1],), "there are both 'mcpServers' and 'servers'; put them under one"
            )
        (shape,) = there
        if not isinstance(whole[shape], dict):
            raise self.fault((shape,), f"{shape!r} must be an object of servers by name")
        for key in whole:
            if key in _INCLUDES:
                self.add((key,), f"{key!r}: a file cannot include another; name one file, or merge")
            elif key not in _KNOWN_ABOVE:
                self.note(
                    (key,),
                    "",
                    f"{key!r} is not known here, and is left alone{_near(key, _KNOWN_ABOVE)}",
                )
        return shape

    def _inputs(self, whole: Mapping[str, Any]) -> Mapping[str, Input]:
        given = whole.get("inputs", [])
        if not isinstance(given, list):
            self.add(("inputs",), "'inputs' must be a list")
            return {}
        found: dict[str, Input] = {}
        for place, one in enumerate(given):
            at = ("inputs", place)
            made = self._input(at, one)
            if made is None:
                continue
            if made.id in found:
                self.add((*at, "id"), f"there are two inputs {made.id!r}")
            found[made.id] = made
        return found

    def _input(self, at: Pointer, one: Any) -> Input | None:
        if not isinstance(one, dict) or not isinstance(one.get("id"), str) or not one["id"]:
            self.add(at, "an input must be an object with an 'id', a text")
            return None
        kind = one.get("type", "promptString")
        if kind not in ("promptString", "pickString", "command"):
            self.add(
                (*at, "type"),
                f"the input {one['id']!r} has the type {kind!r}, which is not one of promptString and pickString",
            )
            return None
        if kind == "command":
            self.add(
                (*at, "type"),
                f"the input {one['id']!r} is a command of VS Code, which only VS Code can run",
            )
            return None
        options = one.get("options", [])
        if not isinstance(options, list):
            self.add((*at, "options"), "'options' must be a list of texts")
            return None
        values = [o.get("value") if isinstance(o, dict) else o for o in options]
        texts = [value for value in values if isinstance(value, str)]
        default = one.get("default")
        if len(texts) < len(values) or (kind == "pickString" and not texts):
            self.add(at, f"the input {one['id']!r} needs 'options', a list of texts")
            return None
        if default is not None and not isinstance(default, str):
            self.add((*at, "default"), "'default' must be a text")
            return None
        return Input(
            id=one["id"],
            description=str(one.get("description", "")),
            default=default,
            is_password=one.get("password") is True,
            options=tuple(texts) if kind == "pickString" else (),
        )

    def _check_names(self, shape: str, names: Sequence[str]) -> None:
        for alias, text in alias_faults(names):
            self.add((shape, alias), text)


class _ServerReader:
    """Reads one server's settings; `add` and `note` tell its loader what was found."""

    def __init__(self, loader: _Loader, fill: _Fill, at: Pointer, name: str) -> None:
        self._loader = loader
        self._fill = fill
        self._at = at
        self._name = name
        self._references: dict[str, str] = {}
        self._secrets: dict[str, None] = {}
        self._unset: set[str] = set()
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
                    f"alone{_near(key, _KNOWN)}",
                )
        if ignored := _not_for_its_kind(settings):
            self._loader.note(
                (*self._at, ignored[0]),
                self._name,
                f"the server {self._name!r} is reached another way, so "
                f"{', '.join(repr(one) for one in ignored)} means nothing",
            )
        plain = _without_env_file(settings)
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
        self._collect_secrets(entry)
        return HostEntry(
            entry=entry,
            shown=shown,
            place=self._loader.place(self._at),
            disabled=self._is_disabled,
            timeout_s=self._timeout("timeout"),
            sandbox=sandbox,
            roots=self._roots(),
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
        if at[0] in ("env", "headers") and len(at) == 2:
            self._refer(str(at[1]), text)
        return "".join(parts)

    def _looked_up(self, variable: Variable, at: Pointer) -> str:
        if not variable.kind:
            raise self._fault(at, f"uses {variable.text}, which is no variable")
        value = self._fill.value(variable)
        if value is None and not self._is_disabled:
            key = f"{at}{variable.text}"
            if key not in self._unset:
                self._unset.add(key)
                self._add(at, f"the server {self._name!r} {self._why_unset(variable)}")
        elif value and len(value) >= MIN_SECRET and self._is_secret(variable, at):
            self._secrets[value] = None
        return value or ""

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
        parts = split_variables(text)
        shown = "".join(
            part
            if isinstance(part, str)
            else _reference(part)
            if self._is_secret(part, at)
            else self._fill.value(part) or ""
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
            self._references[name] = text

    def _collect_secrets(self, entry: ServerEntry | RemoteEntry) -> None:
        """What stands in the file itself and is likely to be a secret."""
        given = entry.env if isinstance(entry, ServerEntry) else entry.headers
        for name, value in given.items():
            is_reference = _has_secret(value)
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
        if self._is_disabled and not path.exists():
            return entry, shown
        try:
            found = read_env_file(path)
        except Misconfigured as error:
            raise self._fault(
                ("envFile",), f"has an 'envFile' that cannot be used: {error}"
            ) from None
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
        if self._unset:
            return
        if not _has_secret(entry.url):
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


def _reference(variable: Variable) -> str:
    """How a secret is shown: by its name; of a default only so much that a change of it shows."""
    if variable.default is None:
        return variable.text
    digest = hashlib.sha256(variable.default.encode("utf-8", "surrogatepass")).hexdigest()
    return f"${{{variable.name}:-#{digest[:12]}}}"


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def _without_env_file(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != "envFile"}


def _not_for_its_kind(settings: Mapping[str, Any]) -> list[str]:
    """Members of the other kind of server."""
    kind = settings.get("type", settings.get("transport"))
    is_remote = kind in MODES if isinstance(kind, str) else "command" not in settings
    others = (
        ("command", "args", "env", "envFile", "cwd") if is_remote else (*URL_MEMBERS, "headers")
    )
    return [one for one in others if one in settings]


def _has_secret(value: Any) -> bool:
    """Whether a reference to a store of secrets stands anywhere in it."""
    if isinstance(value, str):
        return any(
            not isinstance(part, str) and part.kind in ("keyring", "secret")
            for part in split_variables(value)
        )
    if isinstance(value, dict):
        return any(_has_secret(one) for one in value.values())
    return isinstance(value, list) and any(_has_secret(one) for one in value)


def _near(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
