"""A server's settings in no product's words, and what a product's words cannot say."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from dragoman.client.config import Variable, split_variables
from dragoman.host.secrets import (
    LiteralSecret,
    SecretStore,
    find_literal_secrets,
    looks_secret,
)

__all__ = [
    "Kind",
    "Loss",
    "NotPortable",
    "Portable",
    "Syntax",
    "Text",
    "holds_secret",
    "inputs_of",
    "move_secrets",
    "secret_names",
    "secrets_in",
    "variable",
    "with_inputs",
    "written",
]

Kind = Literal["stdio", "http", "sse"]

# 120: a secret's name may have 128, and a number may have to follow.
MAX_NAME_CHARS = 120

# What stands there itself and the variables in it, in order; variables in our own spelling.
Text = tuple[str | Variable, ...]


class NotPortable(ValueError):
    """A server that cannot be read, or cannot be said in a product's words; the text says why."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Something a file cannot hold: `what` of `server`, and why in a few words.

    `is_whole` says that the server is not in the file at all.
    """

    server: str
    what: str
    why: str
    is_whole: bool = False

    def __str__(self) -> str:
        if self.is_whole:
            return f"{self.server} is left out: {self.why}"
        return f"{self.server}: {self.what} is left out: {self.why}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Portable:
    """One server.

    `allowed` are the tools that ran without asking where it comes from, `only` the tools that were
    shown there (None: all), `hidden` those that were not. `extras` are the members that mean
    something to one product alone, by the product's name.
    """

    name: str
    kind: Kind
    command: Text = ()
    args: tuple[Text, ...] = ()
    env: Mapping[str, Text] = field(default_factory=dict)
    env_file: Text = ()
    cwd: Text = ()
    url: Text = ()
    headers: Mapping[str, Text] = field(default_factory=dict)
    disabled: bool = False
    timeout_s: float | None = None
    start_timeout_s: float | None = None
    allowed: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    hidden: tuple[str, ...] = ()
    sandbox: Any = None
    roots: tuple[Any, ...] = ()
    extras: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def unused(self) -> tuple[str, ...]:
        """The members that are kept for the product they came from and mean nothing here."""
        return tuple(member for members in self.extras.values() for member in members)

    @property
    def rules(self) -> tuple[tuple[str, str], ...]:
        """What its lists of tools would be as rules: (effect, rule). A proposal to the user."""
        allow = [("allow", f"tool({self.name}/{tool})") for tool in self.allowed]
        deny = [("deny", f"tool({self.name}/{tool})") for tool in self.hidden]
        return (*deny, *allow)


def variable(kind: str, name: str, default: str | None = None) -> Variable:
    """A variable in our own spelling."""
    if kind == "env":
        text = f"${{{name}}}" if default is None else f"${{{name}:-{default}}}"
    else:
        text = f"${{{name}}}" if kind == "place" else f"${{{kind}:{name}}}"
    return Variable(text, kind, name, default)


def written(text: Text) -> str:
    """A text in our own spelling; what stands there itself is as it is."""
    return "".join(part if isinstance(part, str) else part.text for part in text)


@dataclass(frozen=True, slots=True)
class Syntax:
    """How a product writes variables.

    `env` makes the spelling of an environment variable, None when there are none; `has_default`
    says whether a default can stand in it. `places` and `kinds` are the other ones it knows.
    """

    env: Callable[[str], str] | None = None
    has_default: bool = False
    places: Collection[str] = ()
    kinds: Collection[str] = ()

    def read(self, text: str) -> Text:
        """A product's text in its parts."""
        found: list[str | Variable] = []
        for part in split_variables(text):
            known = part if isinstance(part, str) else self._known(part)
            if isinstance(known, str) and found and isinstance(found[-1], str):
                found[-1] += known
            else:
                found.append(known)
        return tuple(found)

    def write(self, text: Text) -> str:
        """The text in the product's spelling. Raises NotPortable."""
        made = "".join(part if isinstance(part, str) else self._spelled(part) for part in text)
        # What stands there itself must not become a variable by being written.
        if self.read(made) != _joined(text):
            raise NotPortable("a '${' in it would be read as a variable there")
        return made

    def _known(self, part: Variable) -> str | Variable:
        if part.kind == "env" and self.env is not None:
            is_its = part.text.startswith(self.env(part.name).removesuffix("}"))
            if is_its and (part.default is None or self.has_default):
                return variable("env", part.name, part.default)
        if part.kind == "place" and part.name in self.places:
            return variable("place", part.name)
        if part.kind in self.kinds:
            return variable(part.kind, part.name)
        return part.text

    def _spelled(self, part: Variable) -> str:
        if part.kind == "env" and self.env is not None:
            if part.default is None:
                return self.env(part.name)
            if self.has_default:
                return f"{self.env(part.name).removesuffix('}')}:-{part.default}}}"
            raise NotPortable(f"{part.text} has a default, which cannot be said there")
        if part.kind == "place" and part.name in self.places:
            return part.text
        if part.kind in self.kinds:
            return part.text
        raise NotPortable(f"{part.text} cannot be said there")


def _joined(text: Text) -> Text:
    found: list[str | Variable] = []
    for part in text:
        if isinstance(part, str) and found and isinstance(found[-1], str):
            found[-1] += part
        elif part != "":
            found.append(part)
    return tuple(found)


def secrets_in(server: Portable) -> list[LiteralSecret]:
    """The secrets that stand in a server's settings themselves."""
    return find_literal_secrets(
        env={name: written(text) for name, text in server.env.items()},
        headers={name: written(text) for name, text in server.headers.items()},
        args=[written(text) for text in server.args],
        url=written(server.url),
    )


def holds_secret(name: str, value: Any) -> bool:
    """Whether a secret stands in a member of a product's settings, such as a sign-in."""
    if isinstance(value, str):
        return looks_secret(name, value) is not None
    if isinstance(value, Mapping):
        return any(holds_secret(str(key), one) for key, one in value.items())
    return isinstance(value, list) and any(holds_secret(name, one) for one in value)


def with_inputs(server: Portable, names: Mapping[str, str]) -> Portable:
    """The server with these questions to the person under other names."""

    def renamed(text: Text) -> Text:
        return tuple(
            variable("input", names[part.name])
            if isinstance(part, Variable) and part.kind == "input" and part.name in names
            else part
            for part in text
        )

    return replace(
        server,
        command=renamed(server.command),
        args=tuple(renamed(one) for one in server.args),
        env={name: renamed(one) for name, one in server.env.items()},
        env_file=renamed(server.env_file),
        cwd=renamed(server.cwd),
        url=renamed(server.url),
        headers={name: renamed(one) for name, one in server.headers.items()},
    )


def inputs_of(server: Portable) -> list[str]:
    """The names of the questions to the person that stand in its texts."""
    return _names_of(server, "input")


def secret_names(server: Portable) -> list[str]:
    """The names of the stored secrets that stand in its texts."""
    return _names_of(server, "secret", "keyring")


def _names_of(server: Portable, *kinds: str) -> list[str]:
    texts = (
        server.command, *server.args, *server.env.values(), server.env_file, server.cwd,
        server.url, *server.headers.values(),
    )  # fmt: skip
    found = (part for text in texts for part in text if isinstance(part, Variable))
    return list(dict.fromkeys(part.name for part in found if part.kind in kinds))


def move_secrets(
    server: Portable, store: SecretStore, found: Iterable[LiteralSecret] | None = None
) -> tuple[Portable, list[str]]:
    """The server with its literal secrets in `store`, and the names they have there.

    `found` are the ones to move; by default all in variables and headers. One within an argument
    or a URL stays: it is part of a longer text that only a person can cut. In a header the scheme
    stays ("Bearer ${secret:...}").

    Raises:
        Misconfigured: the store cannot be used; what was moved by then is there twice.
    """
    names = []
    for one in secrets_in(server) if found is None else found:
        if one.member not in ("env", "headers"):
            continue
        scheme, space, rest = one.value.partition(" ")
        is_scheme = bool(space) and scheme.lower() in ("bearer", "basic", "token")
        value = rest if is_scheme else one.value
        name = _secret_name(server.name, one.name, value, store)
        store.set(name, value)
        moved: Text = (variable("secret", name),)
        if is_scheme:
            moved = (f"{scheme} ", *moved)
        if one.member == "env":
            server = replace(server, env={**server.env, one.name: moved})
        else:
            server = replace(server, headers={**server.headers, one.name: moved})
        names.append(name)
    return server, names


def _secret_name(server: str, name: str, value: str, store: SecretStore) -> str:
    """SERVER/NAME, with a number where another secret has that name."""
    # A secret's name begins with a letter or a digit.
    wanted = f"{_plain(server).lstrip('_-.') or 'server'}/{_plain(name)}"[:MAX_NAME_CHARS]
    taken = store.names()
    number, free = 2, wanted
    while free in taken and store.get(free) != value:
        free = f"{wanted}-{number}"
        number += 1
    return free


def _plain(text: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-.") else "-" for c in text)
