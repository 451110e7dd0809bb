"""The host's reading of mcp.json: every server checked before anything is started.

The file is the one that many programs share (see `dragoman.client.config`), with a few members of
ours. Everything that is wrong is told at once, each fault with FILE:LINE. A text is filled in once:
what a variable holds is never read again, so there are no rings of variables; and there are no
includes.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dragoman.client.config import SHAPES, Pointer, project_of
from dragoman.errors import Misconfigured
from dragoman.host.entry import HostEntry
from dragoman.host.identity import alias_faults
from dragoman.host.located import Located, locate, read_located
from dragoman.host.server_settings import ServerReader
from dragoman.host.variables import AskInput, Input, Secrets, Values, suggested

__all__ = [
    "AskInput",
    "HostConfig",
    "HostEntry",
    "Input",
    "Note",
    "Secrets",
    "check_server",
    "load_servers",
]

_KNOWN_ABOVE = (*SHAPES, "inputs", "$schema")
# Words for "read another file as well" in other programs: ignored, they would hide servers.
_INCLUDES = ("include", "includes", "extends", "import", "imports")


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
    _loader: _Loader | None = field(default=None, repr=False, compare=False)

    def asked(self, names: Collection[str] | None = None, *, only_who: bool = False) -> HostConfig:
        """The same when the person was asked for the inputs that these servers (None: all) need.

        What they said before they are not asked again. With `only_who` for no more than it takes to
        know who a server is.
        """
        ids = [
            wanted
            for name, entry in self.servers.items()
            if names is None or name in names
            for wanted in (entry.asks_who if only_who else entry.asks)
        ]
        if self._loader is None or not ids:
            return self
        return self._loader.asked(ids)


def load_servers(
    path: str | Path,
    environ: Mapping[str, str] = os.environ,
    inputs: AskInput | None = None,
    *,
    may_be_unset: bool = False,
) -> HostConfig:
    """Read one mcp.json whole. Nothing is started, and nothing is looked up in a keyring.

    `inputs` asks the person for an `${input:id}`, at most once for each id, and when nothing else
    is wrong. With `may_be_unset` nobody is asked yet (`HostConfig.asked` does it), and a variable,
    input or `envFile` that is not there is a fault of its server alone: `HostEntry.faults`.

    Raises:
        Misconfigured: something is wrong; the text has a line "FILE:LINE: ..." for each fault.
    """
    loader = _Loader(read_located(Path(path)), environ, inputs, may_be_unset=may_be_unset)
    config = loader.load()
    return config if may_be_unset else config.asked()


def check_server(
    name: str, raw: Mapping[str, Any], *, path: Path, inputs: Sequence[Mapping[str, Any]] = ()
) -> list[str]:
    """What would be wrong with these settings in the file `path`, a sentence each.

    What a variable holds, and whether it is set, does not count.
    """
    whole = {"inputs": list(inputs), "mcpServers": {name: raw}}
    loader = _Loader(locate(json.dumps(whole), path), {}, None, may_be_unset=True)
    try:
        loader.load()
    except Misconfigured as faults:
        return [line.removeprefix(f"{path}:1: ") for line in str(faults).splitlines()]
    return []


class _Loader:
    """Reads one file, and collects everything that is wrong with it."""

    def __init__(
        self,
        located: Located,
        environ: Mapping[str, str],
        person: AskInput | None,
        *,
        may_be_unset: bool,
    ) -> None:
        self._located = located
        self._environ = environ
        self._person = person
        self._may_be_unset = may_be_unset
        self._folder = project_of(located.path)
        self._values: Values | None = None
        self._faults: list[tuple[int, str]] = []
        self.path = located.path
        self._notes: list[Note] = []
        self._secrets: dict[str, None] = {}

    def load(self) -> HostConfig:
        """The whole file. Raises Misconfigured, with every fault."""
        self._notes.clear()
        whole = self._located.value
        if not isinstance(whole, dict):
            raise self._located.fault((), "must be an object with 'mcpServers'")
        shape = self._shape(whole)
        inputs = self._inputs(whole)
        if self._values is None:
            self._values = Values(self._folder, self._environ, inputs, self._person)
        servers = {}
        for name, settings in whole[shape].items():
            entry = ServerReader(self, self._values, (shape, name), name).read(settings)
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
            _loader=self,
        )

    def asked(self, ids: Sequence[str]) -> HostConfig:
        """The same file with what the person says now. Raises as `load`."""
        assert self._values is not None
        self._values.ask(ids)
        return self.load()

    def add(self, at: Pointer, text: str) -> None:
        """Remember a fault."""
        self._faults.append((self._located.line(at), str(self._located.fault(at, text))))

    def add_unset(self, at: Pointer, text: str) -> str:
        """Remember what one server misses to be started; returns it with its FILE:LINE."""
        if not self._may_be_unset:
            self.add(at, text)
        return str(self._located.fault(at, text))

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
                    f"{key!r} is not known here, and is left alone{suggested(key, _KNOWN_ABOVE)}",
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
