"""The variables in a server's settings: what each stands for, looked up once.

`${NAME}` comes from the environment, `${workspaceFolder}` and the like are places, `${input:ID}` is
what the person says. What `${secret:NAME}` and `${keyring:NAME}` hold is looked up when the server
is started (`dragoman.host.secrets`).
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from dragoman.client.config import (
    Pointer,
    RemoteEntry,
    ServerEntry,
    Variable,
    read_server,
    split_variables,
)
from dragoman.errors import Misconfigured
from dragoman.host.secrets import is_secret_name, looks_secret

__all__ = [
    "AskInput",
    "Input",
    "Secrets",
    "Values",
    "has_secret",
    "suggested",
    "without_env_file",
]


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


class Values:
    """The values of variables, each looked up once: what was checked is what is started.

    `declared` are the file's inputs by id. `person` is who says them, None: nobody, so that their
    defaults stand. Nothing is asked before `ask`.
    """

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str],
        declared: Mapping[str, Input],
        person: AskInput | None,
    ) -> None:
        self.folder = folder
        self._environ = environ
        self._declared = declared
        self._person = person
        self._values: dict[str, str | None] = {}
        self._said: dict[str, str | None] = {}

    def value(self, variable: Variable) -> str | None:
        """None: it is unset, or not said (yet). Secrets of a store are not looked up here."""
        if variable.kind == "input":
            return self._input(variable.name)
        if variable.text not in self._values:
            self._values[variable.text] = self._find(variable)
        return self._values[variable.text]

    def is_to_be_asked(self, variable: Variable) -> bool:
        """Whether the person has still to be asked for it."""
        return (
            variable.kind == "input"
            and variable.name in self._declared
            and variable.name not in self._said
            and self._person is not None
        )

    def ask(self, ids: Iterable[str]) -> None:
        """Ask the person for these inputs, each once."""
        for wanted in ids:
            given = self._declared.get(wanted)
            if given is None or self._person is None or wanted in self._said:
                continue
            said = self._person(given)
            is_one = said is not None and (not given.options or said in given.options)
            self._said[wanted] = said if is_one else None

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

    def reference(self, variable: Variable, *, in_full: bool) -> str:
        """How a secret is shown: by its name, and by the default that stands in the file.

        A default is whatever the file's author wrote, such as a command: it is shown `in_full`
        where it could be what is run or reached, else only so much that a change of it shows.
        """
        default = self._default(variable)
        if default is None:
            return variable.text
        if not in_full:
            digest = hashlib.sha256(default.encode("utf-8", "surrogatepass")).hexdigest()
            default = f"#{digest[:12]}"
        return f"{variable.text.partition(':-')[0].removesuffix('}')}:-{default}}}"

    def _default(self, variable: Variable) -> str | None:
        if variable.kind != "input":
            return variable.default
        given = self._declared.get(variable.name)
        return None if given is None else given.default

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

        if not has_secret(raw):
            return entry
        made = read_server(
            without_env_file(raw),
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
            hint = suggested(variable.name, self._declared)
            return f"uses {variable.text}, and 'inputs' declares no {variable.name!r}{hint}"
        if self._person is None:
            return f"uses {variable.text}, and there is nobody to ask for it"
        if given.options:
            return f"uses {variable.text}, and none of its options was chosen"
        return f"uses {variable.text}, and no answer was given"

    def near(self, name: str) -> str:
        """A suggestion for a variable that is not set."""
        return suggested(name, self._environ)

    def _find(self, variable: Variable) -> str | None:
        if variable.kind == "place":
            return variable.place(self.folder)
        value = self._environ.get(variable.name)
        # As in a shell: the default also stands for an empty value.
        if variable.default is not None and not value:
            return variable.default
        return value

    def _input(self, name: str) -> str | None:
        given = self._declared.get(name)
        if given is None or self._person is not None:
            return self._said.get(name)
        is_one = not given.options or given.default in given.options
        return given.default if is_one else None


def without_env_file(settings: Mapping[str, Any]) -> dict[str, Any]:
    """They without the file of variables, which `read_server` does not know."""
    return {key: value for key, value in settings.items() if key != "envFile"}


def has_secret(value: Any) -> bool:
    """Whether a reference to a store of secrets stands anywhere in it."""
    if isinstance(value, str):
        return any(
            not isinstance(part, str) and part.kind in ("keyring", "secret")
            for part in split_variables(value)
        )
    if isinstance(value, dict):
        return any(has_secret(one) for one in value.values())
    return isinstance(value, list) and any(has_secret(one) for one in value)


def suggested(word: str, known: Iterable[str]) -> str:
    """The end of an error\'s sentence: the word that may be meant, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
