"""Who a server is: the name the user gave it, and a digest over what is started or reached.

What a server says of itself is no part of it. A trust in a name alone would hold for whatever is
put under that name later; here another program, argument, variable, folder, address or header is
another identity, and nothing that was granted to the first one holds for it.

No secret is in it: a value that a reference brings (`${TOKEN}`) is the reference, and one that
stands in the file is its SHA-256. So a token may be renewed, but not be taken from somewhere else.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from dragoman.client.config import RemoteEntry, ServerEntry, project_of
from dragoman.errors import Misconfigured
from dragoman.host.canonical import digest
from dragoman.host.kinds import Risk
from dragoman.host.sandbox import shown_path
from dragoman.host.secrets import looks_secret
from dragoman.model.unseen import one_line, printable, unseen_in, warn_of_host
from dragoman.transport.http.urls import is_loopback
from dragoman.transport.stdio.command import child_environment

__all__ = [
    "Declared",
    "ServerIdentity",
    "alias_faults",
    "check_aliases",
    "diff_identity",
    "identity_of",
]

Lines = tuple[tuple[str, str], ...]

# What in a server's settings says who it is; the rest (deadlines, roots) says how it is used.
_TELLING = (
    "type", "transport", "command", "args", "env", "envFile", "cwd", "sandbox", "url", "serverUrl",
    "httpUrl", "headers",
)  # fmt: skip

# Variables that make a program load or run something else than it says.
_STEERING = re.compile(
    r"LD_PRELOAD|LD_LIBRARY_PATH|LD_AUDIT|DYLD_\w+|NODE_OPTIONS|NODE_PATH|PYTHONPATH|PYTHONSTARTUP"
    r"|PYTHONHOME|PERL5LIB|PERL5OPT|RUBYOPT|RUBYLIB|JAVA_TOOL_OPTIONS|BASH_ENV|ENV|PATH|IFS"
    r"|NPM_CONFIG_\w+|PIP_INDEX_URL|PIP_EXTRA_INDEX_URL|UV_INDEX\w*|\w*_PROXY",
    re.IGNORECASE,
)
_SHELLS = {"sh", "bash", "dash", "zsh", "fish", "ksh", "cmd", "powershell", "pwsh"}
# Programs that fetch a package and run it; its name without a version is whatever is newest.
_FETCHERS = {"npx", "bunx", "pnpx", "uvx", "pipx"}
# Programs that do what a file in their folder says: package.json, pyproject.toml, Makefile.
_FOLDER_RUNNERS = {
    "bun", "bundle", "cargo", "deno", "dotnet", "go", "gradle", "just", "make", "mvn", "npm", "pdm",
    "pipenv", "pnpm", "poetry", "rake", "uv", "yarn",
}  # fmt: skip
# What tells the fetchers where to take packages from; they look upwards for it.
_SOURCES = (".npmrc", ".yarnrc.yml", "bunfig.toml", "uv.toml", "pyproject.toml")
_VERSIONED = re.compile(r".+(?:@[0-9][\w.+-]*|==[\w.!+-]+)")

_SENSITIVE = (
    r"(?:[\w-]*(?:token|secret|passw|pwd|credential|signature|api[_-]?key)[\w-]*|key|sig|code|auth)"
)
_SECRET_IN_QUERY = re.compile(rf"([?&;]{_SENSITIVE}=)([^&;#]+)", re.IGNORECASE)
_USER_IN_URL = re.compile(r"(//)([^/?#]+)(?=@)")
_REFERENCES = re.compile(r"(?:\$\{[^{}]*\}|:)+")
_HALF = re.compile("[\ud800-\udfff]")
_DEFAULT_IN_REFERENCE = re.compile(r"(\$\{[^{}]*?:-)([^{}]+)(?=\})")

# 64 characters: the longest name a model's provider takes has as many, and a tool's comes behind.
MAX_ALIAS_CHARS = 64
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# "server:unknown" in a rule is any server that nobody has reviewed.
_RESERVED = {"unknown"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerIdentity:
    """Who a server is, on this machine.

    `digest` is over `alias` and everything that `lines` say, with full digests of what they only
    hint at. `lines` are (label, text) for people, each label once: the whole command line, folder,
    variables and where each comes from; or URL, headers and transport. Their texts are the user's
    or a stranger's, unescaped. `portable` is a digest that is the same on another machine with the
    same configuration file. `risks` are what a person should know before it is started.
    """

    alias: str
    digest: str
    portable: str
    lines: Lines
    risks: tuple[Risk, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return "\n".join(f"{label}: {_shown(text)}" for label, text in self.lines)


class Declared(Protocol):
    """An entry as a host's configuration has it (`host.config.HostEntry`).

    `shown` is `entry` with references in place of secrets, `references` the texts with variables,
    by the name of the variable or header they are for, `raw` the object in the file.
    """

    @property
    def entry(self) -> ServerEntry | RemoteEntry:
        """What is started or reached."""

    @property
    def shown(self) -> ServerEntry | RemoteEntry:
        """The same for people."""

    @property
    def references(self) -> Mapping[str, str]:
        """Texts before they were filled in."""

    @property
    def raw(self) -> Mapping[str, Any]:
        """The settings as they stand in the file."""

    @property
    def sandbox(self) -> object:
        """What it is confined to; None when it is not."""

    @property
    def roots(self) -> Sequence[Folder]:
        """The folders it is meant to work in; a sandbox shows them to it."""


class Folder(Protocol):
    """One folder of a server (`host.sandbox.Root`)."""

    @property
    def path(self) -> Path:
        """Where it is."""

    @property
    def is_writable(self) -> bool:
        """Whether a sandbox lets it be written."""


def identity_of(
    entry: ServerEntry | RemoteEntry | Declared, *, environ: Mapping[str, str] = os.environ
) -> ServerIdentity:
    """The identity of a server as it would be started now; nothing is started.

    `environ` is what a child would inherit from: it says where programs are found.

    Raises:
        Misconfigured: the folder that dragoman was started in is gone.
    """
    references: Mapping[str, str] = {}
    raw: Mapping[str, Any] = {}
    sandbox: object = None
    roots: Sequence[Folder] = ()
    if isinstance(entry, ServerEntry | RemoteEntry):
        real = shown = entry
    else:
        real, shown = entry.entry, entry.shown
        references, raw, sandbox = entry.references, entry.raw, entry.sandbox
        roots = entry.roots
    draft = _Draft(shown.name, references)
    if isinstance(real, ServerEntry) and isinstance(shown, ServerEntry):
        _describe_child(draft, real, shown, sandbox, roots, environ)
    elif isinstance(shown, RemoteEntry):
        _describe_remote(draft, shown)
    return draft.identity(_portable(draft, raw, shown))


def diff_identity(old: Sequence[tuple[str, str]], new: Sequence[tuple[str, str]]) -> str:
    """What changed between the lines of two identities, a line each way; "" when nothing did.

    What nobody sees is escaped.
    """
    before, after = dict(old), dict(new)
    found = []
    for label in dict.fromkeys((*before, *after)):
        was, now = before.get(label), after.get(label)
        if was == now:
            continue
        if was is not None:
            found.append(f"- {_shown(label)}: {_shown(was)}")
        if now is not None:
            found.append(f"+ {_shown(label)}: {_shown(now)}")
    return "\n".join(found)


def check_aliases(aliases: Collection[str]) -> None:
    """Whether these names for servers can live together.

    Raises:
        Misconfigured: they cannot; the text has every fault, see `alias_faults`.
    """
    faults = alias_faults(aliases)
    if faults:
        raise Misconfigured("; ".join(text for _, text in faults))


def alias_faults(aliases: Collection[str]) -> tuple[tuple[str, str], ...]:
    """(alias, sentence) for each that cannot be used, or not beside another one.

    A tool is known to models as ALIAS__TOOL. Two aliases of which one is the other and "__" with
    more behind it could give two tools one name, so one of them has to go, whatever tools there
    are now.
    """
    found = []
    by_fold: dict[str, str] = {}
    for alias in aliases:
        if fault := _alias_fault(alias):
            found.append((alias, fault))
        fold = alias.casefold()
        if fold in by_fold:
            found.append(
                (
                    alias,
                    f"{_quoted(alias)} and {_quoted(by_fold[fold])} are one name but for the case "
                    "of letters",
                )
            )
        by_fold.setdefault(fold, alias)
    names = set(aliases)
    for alias in aliases:
        for at in range(1, len(alias)):
            shorter, rest = alias[:at], alias[at:]
            if shorter in names and (rest == "_" or rest.startswith("__")):
                found.append(
                    (
                        alias,
                        f"{_quoted(shorter)} and {_quoted(alias)} could give two tools one name, "
                        f"since tools are called {shorter}__TOOL; rename one of them",
                    )
                )
    return tuple(found)


def _alias_fault(alias: str) -> str:
    if alias in _RESERVED:
        return f"{_quoted(alias)} cannot be a server's name: rules mean something else by it"
    if _ALIAS.fullmatch(alias) and len(alias) <= MAX_ALIAS_CHARS:
        return ""
    better = re.sub(r"[^A-Za-z0-9_.-]+", "-", alias).strip("-_.")[:MAX_ALIAS_CHARS].lower()
    hint = f"; {better!r} would do" if better and better not in _RESERVED else ""
    return (
        f"a server's name has 1 to {MAX_ALIAS_CHARS} ASCII letters, digits and _ - . and begins "
        f"with a letter or digit, which {_quoted(alias)} does not{hint}"
    )


def _quoted(text: str) -> str:
    return f"'{one_line(text, 80)}'"


def _shown(text: str) -> str:
    return printable(text).replace("\n", "\\n")


# --- what an identity is made of ------------------------------------------------------------------


class _Draft:
    """An identity in the making: its lines, the facts behind them, and the risks."""

    def __init__(self, alias: str, references: Mapping[str, str]) -> None:
        self.alias = alias
        self.lines: list[tuple[str, str]] = []
        self.facts: dict[str, Any] = {"alias": alias}
        self.risks: list[Risk] = []
        self._references = references

    def line(self, label: str, text: str) -> None:
        """Say something to people."""
        self.lines.append((label, text))
        if unseen := (*unseen_in(label), *unseen_in(text)):
            kinds = "; ".join(str(one) for one in unseen)
            self.risk("unseen", f"its {one_line(label, 80)} holds what nobody sees: {kinds}")

    def risk(self, code: str, text: str) -> None:
        """Warn of something."""
        self.risks.append(Risk(code=code, text=text))

    def value(self, what: str, name: str, value: str, *, in_full: bool = False) -> list[str]:
        """Add the line of a variable or a header; returns the fact behind it.

        With `in_full` a default that stands in the file is shown.
        """
        reference = self._references.get(name)
        if reference is not None:
            masked = (
                reference
                if in_full
                else _DEFAULT_IN_REFERENCE.sub(
                    lambda match: match[1] + _hidden(name, match[2]), reference
                )
            )
            self.line(f"{what} {name}", f"from {masked}")
            return ["from", _sha(name, reference)]
        # The name goes into it: equal values of two variables do not show as equal.
        hashed = _sha(name.lower() if what == "header" else name, value)
        self.line(f"{what} {name}", f"as it stands in the file, SHA-256 {hashed[:12]}")
        return ["literal", hashed]

    def variable(self, name: str, value: str, real: str) -> list[str]:
        """The same of a variable; `real` is what the child gets.

        One that steers what is run is shown, and counts, as it is: whoever ships the settings
        ships a file of variables, and defaults, as well. What the user's own environment brings is
        theirs.
        """
        reference = self._references.get(name)
        is_steering = _STEERING.fullmatch(name) is not None
        if not is_steering or (reference is not None and "${" in reference):
            return self.value("variable", name, value, in_full=is_steering)
        came = "" if reference is None else f" (from {reference})"
        secret = looks_secret(name, _USER_IN_URL.sub(r"\1", real, count=1)) is not None
        self.line(
            f"variable {name}", f"{_hidden(name, real) if secret else _masked_url(real)}{came}"
        )
        return ["literal" if reference is None else "file", _sha(name, real)]

    def identity(self, portable: str) -> ServerIdentity:
        """The finished one."""
        return ServerIdentity(
            alias=self.alias,
            digest=_digest(self.facts),
            portable=portable,
            lines=tuple(self.lines),
            risks=tuple(self.risks),
        )


def _describe_child(
    draft: _Draft,
    real: ServerEntry,
    shown: ServerEntry,
    sandbox: object,
    roots: Sequence[Folder],
    environ: Mapping[str, str],
) -> None:
    try:
        folder = Path(os.path.abspath(real.cwd or os.curdir))
    except FileNotFoundError:
        raise Misconfigured(
            f"the server {shown.name!r} would start in the folder that dragoman was started in,"
            " which is gone; change to another one"
        ) from None
    program = _program(real, folder, environ)
    argv = [shown.command, *shown.args]
    draft.line("command", shlex.join(argv))
    draft.line("program", program or f"{shown.command} (not found)")
    draft.facts |= {"kind": "stdio", "argv": argv, "program": program}
    if real.cwd is not None:
        draft.line("folder", str(folder))
        draft.facts["cwd"] = str(folder)
    elif _leans_on(folder, [real.command, *real.args]):
        # The same words mean another program elsewhere.
        draft.line("folder", f"{folder} (where dragoman was started; its program is found there)")
        draft.facts["cwd"] = str(folder)
        draft.risk("folder", "what it runs depends on the folder that dragoman is started in")
    else:
        draft.line("folder", "where dragoman is started")
    draft.facts["env"] = {
        name: draft.variable(name, value, real.env.get(name, ""))
        for name, value in sorted(shown.env.items())
    }
    confined = "no" if sandbox is None else str(sandbox)
    draft.line("sandbox", confined)
    draft.facts["sandbox"] = confined
    if sandbox is not None and roots:
        # They are opened to it by the start itself, whatever it is told of roots.
        opened = [
            (shown_path(root.path), "writes" if root.is_writable else "reads") for root in roots
        ]
        draft.line("sandbox opens", "\n".join(f"{how} {path}" for path, how in opened))
        draft.facts["opens"] = opened
    _warn_of_child(draft, real, program)


def _program(entry: ServerEntry, folder: Path, environ: Mapping[str, str]) -> str | None:
    """Where the program is, as the system will find it; links are not followed."""
    import shutil

    # A relative path is looked for from the child's folder, and so is a relative part of its PATH.
    if os.path.dirname(entry.command):
        found = shutil.which(folder / entry.command)
    else:
        path = child_environment(entry.env, environ).get("PATH", os.defpath)
        places = [str(folder / part) for part in path.split(os.pathsep) if part]
        found = shutil.which(entry.command, path=os.pathsep.join(places))
    return None if found is None else os.path.abspath(found)


def _leans_on(folder: Path, argv: Sequence[str]) -> bool:
    """Whether what a command line runs depends on the folder it is started in.

    It names a script by its path, a module (`python -m server`) or a package that lies there, or
    it is a program that does what a file there says, or takes packages from where one says.
    """
    program = _base_name(argv[0])
    if os.path.dirname(argv[0]) and not os.path.isabs(argv[0]):
        return True
    if program in _FOLDER_RUNNERS and len(argv) > 1:
        return True
    words = [word.rpartition("=")[2] for word in argv[1:]]
    words = [
        word
        for word in words
        if word and not word.startswith("-") and not os.path.isabs(word) and word not in (".", "..")
    ]
    likely = [
        place
        for word in words
        for place in (word, word.partition(".")[0], f"{word.partition('.')[0]}.py")
    ]
    if any(_exists(folder / place) for place in likely):
        return True
    if program not in _FETCHERS:
        return False
    packages = [place for word in words for place in _installed(word)]
    # What lies in the home folder itself is the user's own.
    above = itertools.takewhile(lambda one: one != Path.home(), (folder, *folder.parents))
    return any(_exists(one / place) for one in above for place in (*_SOURCES, *packages))


def _installed(word: str) -> tuple[str, str]:
    """Where a package would lie that is installed beside a project."""
    package = word.rpartition("@")[0] or word
    return f"node_modules/{package}", f"node_modules/.bin/{package}"


def _base_name(command: str) -> str:
    return re.sub(r"\.(exe|cmd|bat)$", "", re.split(r"[/\\]", command)[-1].lower())


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        # Too long for a name, or a NUL in it: then it is none.
        return False


def _warn_of_child(draft: _Draft, entry: ServerEntry, program: str | None) -> None:
    if program is None:
        draft.risk("missing", f"there is no program {_quoted(entry.command)}")
    name = _base_name(entry.command)
    if name in _SHELLS and entry.args:
        draft.risk("shell", "it starts a shell, which may run anything that its arguments say")
    if name in _FETCHERS and not any(_VERSIONED.fullmatch(one) for one in entry.args):
        draft.risk(
            "unpinned",
            "it downloads a package and runs it; without a version, tomorrow's may be another",
        )
    if re.fullmatch(r"python[0-9.]*|pypy[0-9.]*", name) and entry.cwd is None:
        options = list(itertools.takewhile(lambda one: one.startswith("-"), entry.args))
        if any(one[:2] in ("-m", "-c") for one in options) and not {"-I", "-P"} & {*options}:
            draft.risk(
                "folder",
                "Python takes modules from the folder it is started in first; a 'cwd' or the"
                " option -P prevents that",
            )
    steering = sorted(one for one in entry.env if _STEERING.fullmatch(one))
    if steering:
        draft.risk(
            "steering",
            f"variables change what is run or where it goes: {one_line(', '.join(steering), 200)}",
        )


def _describe_remote(draft: _Draft, shown: RemoteEntry) -> None:
    draft.line("url", _masked_url(shown.url))
    draft.line("transport", shown.mode)
    # Header names have no case.
    headers = sorted(shown.headers.items(), key=lambda header: header[0].lower())
    draft.facts |= {
        "kind": "http",
        # A digest: the URL may hold a secret, and these facts are not to be trusted with one.
        "url": _sha("url", shown.url),
        "mode": shown.mode,
        "headers": {name.lower(): draft.value("header", name, value) for name, value in headers},
    }
    if not shown.url.startswith("http+unix:"):
        # The sentences repeat what is odd; a user and a password are not to be repeated.
        bare = re.sub(r"(//)[^/?#]+@", r"\1", shown.url, count=1)
        if bare != shown.url:
            draft.risk(
                "host", "its URL holds a user's name or a password; a header is a better place"
            )
        if not _is_here(bare):
            for sentence in warn_of_host(bare):
                draft.risk("host", sentence)


def _is_here(url: str) -> bool:
    """Whether it leads to this machine: then a port and no encryption are nothing odd."""
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


def _masked_url(url: str) -> str:
    """The URL without what may be a secret in it; references are none."""

    def masked(match: re.Match[str]) -> str:
        before, value = match[1], match[2]
        if not _REFERENCES.fullmatch(value):
            return before + _hidden(before, value)
        return before + _DEFAULT_IN_REFERENCE.sub(
            lambda default: default[1] + _hidden(before, default[2]), value
        )

    return _SECRET_IN_QUERY.sub(masked, _USER_IN_URL.sub(masked, url, count=1))


def _portable(draft: _Draft, raw: Mapping[str, Any], shown: ServerEntry | RemoteEntry) -> str:
    """A digest of what the file says, not of what this machine makes of it."""
    if raw:
        telling = (*_TELLING, "roots") if raw.get("sandbox") else _TELLING
        return _digest({"alias": draft.alias, **{key: raw[key] for key in telling if key in raw}})
    places = {str(project_of(shown.source)): "${workspaceFolder}", str(Path.home()): "${userHome}"}

    def moved(text: str) -> str:
        for place, word in places.items():
            if text == place or text.startswith(place + os.sep):
                return word + text[len(place) :]
        return text

    if isinstance(shown, RemoteEntry):
        return _digest(draft.facts)
    return _digest(
        {
            "alias": draft.alias,
            "argv": [moved(one) for one in (shown.command, *shown.args)],
            "cwd": None if shown.cwd is None else moved(str(shown.cwd)),
            "env": draft.facts["env"],
        }
    )


def _digest(facts: Mapping[str, Any]) -> str:
    return digest(_writable(facts))


def _writable(value: Any) -> Any:
    """The same with escapes for halves of characters, which JSON has no place for.

    Python keeps the bytes of a path that are no text as such halves.
    """
    if isinstance(value, str):
        return _HALF.sub(lambda match: f"\\{ord(match[0]):x}", value.replace("\\", "\\\\"))
    if isinstance(value, Mapping):
        return {_writable(name): _writable(inside) for name, inside in value.items()}
    if isinstance(value, list | tuple):
        return [_writable(one) for one in value]
    return value


def _sha(name: str, value: str) -> str:
    return hashlib.sha256(f"{name}\0{value}".encode("utf-8", "surrogatepass")).hexdigest()


def _hidden(name: str, value: str) -> str:
    """In place of a secret: enough to see that it has changed."""
    return f"[hidden, {_sha(name, value)[:8]}]"
