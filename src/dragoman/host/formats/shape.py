"""What the products' files have in common: reading servers from one, and writing them into one."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from dragoman.client.config import URL_MEMBERS
from dragoman.errors import Misconfigured
from dragoman.host.formats.documents import Document, JsonDocument
from dragoman.host.formats.portable import Kind, Loss, NotPortable, Portable, Syntax, Text

__all__ = ["Format", "Imported", "Reading", "Skipped", "Writing", "Written"]

# Every spelling of a kind of server that is in use.
_KINDS: Mapping[str, Kind] = {
    "stdio": "stdio",
    "http": "http",
    "https": "http",
    "streamable-http": "http",
    "streamable_http": "http",
    "streamableHttp": "http",
    "sse": "sse",
}


@dataclass(frozen=True, slots=True)
class Skipped:
    """A server of a file that is not understood, and why; it stays where it is."""

    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name} was not read: {self.why}"


@dataclass(frozen=True, slots=True)
class Imported:
    """What a product's file holds. `inputs` are VS Code's questions to the person, as they stand."""

    format: str
    path: Path
    servers: tuple[Portable, ...]
    skipped: tuple[Skipped, ...] = ()
    inputs: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """A product's file with servers in it, to be written by whoever asked.

    `losses` say what of them it cannot hold, `names` which servers were added or changed.
    """

    text: str
    losses: tuple[Loss, ...] = ()
    names: tuple[str, ...] = ()


class Reading:
    """One server's settings while they are read; what was not asked for is what is left."""

    def __init__(self, raw: Any, syntax: Syntax) -> None:
        if not isinstance(raw, dict):
            raise NotPortable("it is no object")
        self._raw = raw
        self._syntax = syntax
        self._used: set[str] = set()

    def take(self, member: str) -> Any:
        """A member as it stands; None when it is not there."""
        self._used.add(member)
        return self._raw.get(member)

    def text(self, member: str) -> Text:
        """A text; empty when it is not there. Raises NotPortable."""
        value = self.take(member)
        if value is None:
            return ()
        if not isinstance(value, str):
            raise NotPortable(f"{member!r} is no text")
        return self._syntax.read(value)

    def texts(self, member: str) -> tuple[Text, ...]:
        """A list of texts. Raises NotPortable."""
        return tuple(self._syntax.read(one) for one in self.names(member) or ())

    def table(self, member: str, syntax: Syntax | None = None) -> dict[str, Text]:
        """Texts by name; numbers are taken for texts. Raises NotPortable."""
        syntax = syntax or self._syntax
        value = self.take(member)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise NotPortable(f"{member!r} is no object of texts")
        found = {}
        for key, one in value.items():
            if one is None:
                continue
            if isinstance(one, bool) or not isinstance(one, str | int | float):
                raise NotPortable(f"{member!r} has {key!r}, which is no text")
            found[key] = syntax.read(str(one))
        return found

    def names(self, member: str) -> tuple[str, ...] | None:
        """A list of plain texts; None when it is not there. Raises NotPortable."""
        value = self.take(member)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise NotPortable(f"{member!r} is no list of texts")
        return tuple(value)

    def flag(self, member: str, default: bool) -> bool:
        """A boolean. Raises NotPortable."""
        value = self.take(member)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise NotPortable(f"{member!r} is not true or false")
        return value

    def seconds(self, member: str, scale: float = 1.0) -> float | None:
        """A number of seconds; `scale` is how many of its units make one. Raises NotPortable."""
        value = self.take(member)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise NotPortable(f"{member!r} is no number")
        return value / scale

    def has(self, *members: str) -> bool:
        """Whether one of them is there."""
        return any(self._raw.get(member) is not None for member in members)

    def rest(self) -> dict[str, Any]:
        """The members that nobody asked for."""
        return {key: value for key, value in self._raw.items() if key not in self._used}


class Writing:
    """One server's settings while they are written, and what could not be."""

    def __init__(self, server: Portable, syntax: Syntax) -> None:
        self.server = server
        self._syntax = syntax
        self.raw: dict[str, Any] = {}
        self.losses: list[Loss] = []

    def lose(self, what: str, why: str) -> None:
        """Note that something cannot be said."""
        self.losses.append(Loss(self.server.name, what, why))

    def put(self, member: str, value: Any) -> None:
        """Say something; nothing is said of what is empty."""
        if value is not None and value not in ((), [], {}, ""):
            self.raw[member] = value

    def seconds(self, member: str, value: float | None, scale: float = 1.0) -> None:
        """Say how long; `scale` is how many of its units make a second."""
        if value is not None:
            units = round(value * scale, 6)
            self.raw[member] = int(units) if units == int(units) else units

    def must(self, text: Text, what: str) -> str:
        """A text without which the server would be another one. Raises NotPortable."""
        try:
            return self._syntax.write(text)
        except NotPortable as why:
            raise NotPortable(f"{what} cannot be kept: {why}") from None

    def table(self, given: Mapping[str, Text], what: str) -> dict[str, str]:
        """Texts by name; one that cannot be said is lost by itself."""
        found = {}
        for name, text in given.items():
            try:
                found[name] = self._syntax.write(text)
            except NotPortable as why:
                self.lose(f"{what}.{name}", str(why))
        return found


class Format:
    """One product's file: JSON with an object of servers, as most have it.

    Subclasses say what differs; `holds` are the parts of `Portable` that have a place there.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    # Where the servers are; the first is where they are written.
    shapes: ClassVar[tuple[tuple[str, ...], ...]] = (("mcpServers",),)
    syntax: ClassVar[Syntax] = Syntax()
    kinds: ClassVar[Mapping[Kind, str]] = {"stdio": "stdio", "http": "http", "sse": "sse"}
    # Whether a local server's type is written, too.
    says_stdio: ClassVar[bool] = False
    holds: ClassVar[frozenset[str]] = frozenset({"cwd"})
    # The member that switches a server off, and its value then.
    switch: ClassVar[tuple[str, bool]] = ("disabled", True)
    timeout_member: ClassVar[str] = "timeout"
    # How many of the timeout's units are a second.
    timeout_scale: ClassVar[float] = 1.0
    allowed_members: ClassVar[tuple[str, ...]] = ()
    has_inputs: ClassVar[bool] = False

    def document(self, text: str, path: Path) -> Document:
        """The text, open for changes. Raises Misconfigured."""
        return JsonDocument(text, path)

    def files(
        self, environ: Mapping[str, str], project: Path, *, platform: str = "linux"
    ) -> list[Path]:
        """Where the product keeps it, the project's first; whether they exist or not."""
        raise NotImplementedError

    # --- the whole file ---

    def read(self, text: str, path: Path) -> Imported:
        """The servers in a file's text. Raises Misconfigured: it is not of this format."""
        whole = self.document(text, path).value
        servers, skipped = [], []
        for name, raw in self._table(whole, path).items():
            try:
                servers.append(self.server(name, raw))
            except NotPortable as why:
                skipped.append(Skipped(name, str(why)))
        inputs = whole.get("inputs") if self.has_inputs else None
        kept = [one for one in inputs if isinstance(one, dict)] if isinstance(inputs, list) else []
        return Imported(self.name, path, tuple(servers), tuple(skipped), tuple(kept))

    def write(
        self,
        servers: Iterable[Portable],
        *,
        onto: str = "",
        path: Path = Path("text"),
        inputs: Sequence[Mapping[str, Any]] = (),
        may_replace: bool = False,
    ) -> Written:
        """The text `onto` with the servers in it; all else in it stays as it was.

        A server of the same name that differs is left as it is, unless `may_replace`. `inputs` are
        added where the product has a place for them.

        Raises:
            Misconfigured: the text is not of this format, or cannot be changed safely.
        """
        document = self.document(onto, path)
        way = self._way(document.value)
        there = self._table(document.value, path)
        losses: list[Loss] = []
        names: list[str] = []
        for server in servers:
            try:
                changed = self._write(document, way, there.get(server.name), server, may_replace)
            except NotPortable as why:
                losses.append(Loss(server.name, "all of it", str(why), is_whole=True))
                continue
            losses += changed.losses
            if changed.is_changed:
                names.append(server.name)
        if not self._table(document.value, path) and not names and not onto.strip():
            # A file of no servers is one, too.
            document.set(way, {})
        if self.has_inputs:
            self._write_inputs(document, inputs)
        return Written(document.text, tuple(losses), tuple(names))

    def remove(self, name: str, onto: str, path: Path = Path("text")) -> str:
        """The text without that server. Raises Misconfigured: there is none."""
        document = self.document(onto, path)
        way = self._way(document.value)
        there = self._table(document.value, path)
        if name not in there:
            near = difflib.get_close_matches(name, list(there), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise Misconfigured(f"{path} has no server {name!r}{hint}")
        document.remove((*way, name))
        return document.text

    # --- one server ---

    def server(self, name: str, raw: Any) -> Portable:
        """One server's settings as they stand there. Raises NotPortable."""
        reading = Reading(raw, self.syntax)
        kind = self.kind(reading)
        members = self.reached(reading, kind)
        if "disabled" in self.holds:
            member, off = self.switch
            members["disabled"] = reading.flag(member, not off) == off
        if "timeout" in self.holds:
            members["timeout_s"] = reading.seconds(self.timeout_member, self.timeout_scale)
        allowed: dict[str, None] = {}
        for member in self.allowed_members:
            allowed |= dict.fromkeys(reading.names(member) or ())
        members["allowed"] = tuple(allowed)
        self.read_more(reading, members)
        extras = dict(members.pop("extras", {}))
        if rest := reading.rest():
            extras[self.name] = {**extras.get(self.name, {}), **rest}
        return Portable(name=name, kind=kind, extras=extras, **members)

    def raw(self, server: Portable) -> tuple[dict[str, Any], list[Loss]]:
        """One server in the product's words, and what they cannot say.

        Raises:
            NotPortable: they cannot say what it is.
        """
        writing = Writing(server, self.syntax)
        if server.kind not in self.kinds:
            raise NotPortable(f"{self.title} has no servers of the kind {server.kind!r}")
        if server.disabled and "disabled" not in self.holds:
            raise NotPortable(f"it is switched off, which {self.title} cannot say")
        if server.sandbox not in (None, False) and "sandbox" not in self.holds:
            raise NotPortable(f"it is confined, and {self.title} would start it without a sandbox")
        self.write_reached(writing)
        if "disabled" in self.holds and server.disabled:
            member, off = self.switch
            writing.put(member, off)
        if server.timeout_s is not None:
            if "timeout" in self.holds:
                writing.seconds(self.timeout_member, server.timeout_s, self.timeout_scale)
            else:
                writing.lose("timeout", f"{self.title} has no place for it")
        if server.allowed:
            if self.allowed_members:
                writing.put(self.allowed_members[0], list(server.allowed))
            elif "allowed" not in self.holds:
                writing.lose("alwaysAllow", f"{self.title} has no place for it")
        self._lose_rest(writing)
        self.write_more(writing)
        return writing.raw, writing.losses

    def kind(self, reading: Reading) -> Kind:
        """How a server is reached; a bare URL means HTTP. Raises NotPortable."""
        said = reading.take("type") or reading.take("transport")
        if said is not None:
            if not isinstance(said, str) or said not in _KINDS:
                raise NotPortable(f"it has the type {said!r}")
            return _KINDS[said]
        if reading.has("command"):
            return "stdio"
        if reading.has(*URL_MEMBERS):
            return "http"
        raise NotPortable("it has neither a command nor a URL")

    def reached(self, reading: Reading, kind: Kind) -> dict[str, Any]:
        """What it takes to start or reach it. Raises NotPortable."""
        if kind == "stdio":
            command = reading.text("command")
            if not command:
                raise NotPortable("it has no command")
            found: dict[str, Any] = {
                "command": command,
                "args": reading.texts("args"),
                "env": reading.table("env"),
            }
            if "cwd" in self.holds:
                found["cwd"] = reading.text("cwd")
            if "env_file" in self.holds:
                found["env_file"] = reading.text("envFile")
            return found
        urls = [reading.text(member) for member in URL_MEMBERS]
        url = next((one for one in urls if one), ())
        if not url:
            raise NotPortable("it has no URL")
        return {"url": url, "headers": reading.table("headers")}

    def write_reached(self, writing: Writing) -> None:
        """Say what it takes to start or reach it. Raises NotPortable."""
        server = writing.server
        if server.kind == "stdio":
            if self.says_stdio:
                writing.put("type", self.kinds["stdio"])
            writing.put("command", writing.must(server.command, "its command"))
            writing.put("args", [writing.must(one, "an argument") for one in server.args])
            writing.put("env", writing.table(server.env, "env"))
            if server.cwd:
                if "cwd" not in self.holds:
                    raise NotPortable(f"it has a folder to start in, which {self.title} cannot say")
                writing.put("cwd", writing.must(server.cwd, "its folder"))
            if server.env_file:
                if "env_file" in self.holds:
                    writing.put("envFile", writing.must(server.env_file, "its file of variables"))
                else:
                    writing.lose("envFile", f"{self.title} has no place for it")
            return
        writing.put("type", self.kinds[server.kind])
        writing.put("url", writing.must(server.url, "its URL"))
        writing.put("headers", writing.table(server.headers, "headers"))

    def read_more(self, reading: Reading, members: dict[str, Any]) -> None:
        """Read what only this product has. Raises NotPortable."""

    def write_more(self, writing: Writing) -> None:
        """Say what only this product has a place for."""

    def check_name(self, name: str, others: Collection[str]) -> None:
        """Whether a server may have that name beside these. Raises NotPortable."""

    # --- how ---

    def _lose_rest(self, writing: Writing) -> None:
        server, no_place = writing.server, f"{self.title} has no place for it"
        for part, what, value in (
            ("start_timeout", "startTimeout", server.start_timeout_s),
            ("only", "enabledTools", server.only),
            ("hidden", "disabledTools", server.hidden or None),
            ("roots", "roots", server.roots or None),
        ):
            if value is not None and part not in self.holds:
                writing.lose(what, no_place)
        if "extras" in self.holds:
            return
        for product, members in server.extras.items():
            if product != self.name:
                for member in members:
                    writing.lose(member, f"only {product} knows it")

    def _way(self, whole: Any) -> tuple[str, ...]:
        for shape in self.shapes:
            inner = whole
            for name in shape:
                inner = inner.get(name) if isinstance(inner, dict) else None
            if isinstance(inner, dict):
                return shape
        return self.shapes[0]

    def _table(self, whole: Any, path: Path) -> Mapping[str, Any]:
        if not isinstance(whole, dict):
            raise Misconfigured(f"{path}: is no file of {self.title}: it holds no object")
        inner: Any = whole
        for name in self._way(whole):
            inner = inner.get(name)
            if inner is None:
                return {}
            if not isinstance(inner, dict):
                raise Misconfigured(f"{path}: {name!r} must be an object")
        found: Mapping[str, Any] = inner
        return found

    def _write(
        self,
        document: Document,
        way: tuple[str, ...],
        existing: Any,
        server: Portable,
        may_replace: bool,
    ) -> _Changed:
        raw, losses = self.raw(server)
        if existing is None:
            self.check_name(server.name, list(self._table(document.value, Path("text"))))
            document.set((*way, server.name), _over(server.extras.get(self.name, {}), raw))
            return _Changed(losses, True)
        try:
            # What this product alone knows stays as it is, so it does not count.
            old, _ = self.raw(replace(self.server(server.name, existing), extras=server.extras))
        except NotPortable as why:
            raise NotPortable(f"one of that name is there, and is not understood: {why}") from None
        if old == raw:
            return _Changed(losses, False)
        if not may_replace:
            raise NotPortable("one of that name is there, and differs")
        self._edit(document, (*way, server.name), existing, old, raw)
        return _Changed(losses, True)

    def _other_spellings(self, key: str) -> tuple[str, ...]:
        """Members that mean the same as this one: only one of them may stay."""
        for same in (URL_MEMBERS, ("type", "transport"), self.allowed_members):
            if key in same:
                return tuple(one for one in same if one != key)
        return ()

    def _edit(
        self,
        document: Document,
        way: tuple[str, ...],
        existing: Any,
        old: Mapping[str, Any],
        new: Mapping[str, Any],
    ) -> None:
        """Change what differs, member by member: the rest keeps its comments and its spelling."""
        for key in old:
            if key not in new:
                for one in (key, *self._other_spellings(key)):
                    document.remove((*way, one))
        for key, value in new.items():
            before = old.get(key)
            if before == value:
                continue
            there = existing.get(key) if isinstance(existing, dict) else None
            if isinstance(value, dict) and isinstance(before, dict) and isinstance(there, dict):
                self._edit(document, (*way, key), there, before, value)
            else:
                for one in self._other_spellings(key):
                    document.remove((*way, one))
                document.set((*way, key), value)

    def _write_inputs(self, document: Document, inputs: Sequence[Mapping[str, Any]]) -> None:
        there = document.value.get("inputs")
        held = list(there) if isinstance(there, list) else []
        ids = {one.get("id") for one in held if isinstance(one, dict)}
        new = [dict(one) for one in inputs if one.get("id") not in ids]
        if new:
            document.set(("inputs",), [*held, *new])


@dataclass(frozen=True, slots=True)
class _Changed:
    losses: list[Loss]
    is_changed: bool


def _over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both, the second over the first, tables within tables too."""
    found = dict(under)
    for key, value in over.items():
        below = found.get(key)
        found[key] = (
            _over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
        )
    return found
