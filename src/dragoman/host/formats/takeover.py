"""Taking over another product's servers: what of them can be used here, and under which names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dragoman.errors import Misconfigured
from dragoman.host.config import check_server
from dragoman.host.formats.own import Own, alias_for
from dragoman.host.formats.portable import NotPortable, Portable, inputs_of, with_inputs
from dragoman.host.formats.shape import Imported, Skipped
from dragoman.host.identity import alias_faults
from dragoman.host.server_settings import MAX_TIMEOUT_S

__all__ = ["Takeover", "take_over"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Takeover:
    """What is to be written into our own file.

    `servers` can be used there as they are, and ask for `inputs`. `renamed` has the name that a
    server had, by the one that it gets. `kept` are in our file already and stay as they are;
    `left_out` cannot be used. `notes` are sentences about what was changed.
    """

    servers: tuple[Portable, ...]
    inputs: tuple[Mapping[str, Any], ...] = ()
    renamed: Mapping[str, str]
    kept: tuple[str, ...] = ()
    left_out: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()


def take_over(
    found: Imported,
    before: str,
    path: Path,
    *,
    only: Collection[str] = (),
    may_replace: bool = False,
) -> Takeover:
    """What of `found` can be put into our own file `path`, which holds `before`.

    With `only` no more than the servers that have these names there. One of which a setting cannot
    work here is left out, since the whole file could not be used with it.

    Raises:
        Misconfigured: our own file is none, or there is no server of a name in `only`.
    """
    missing = sorted(set(only) - {one.name for one in found.servers})
    if missing:
        why = next((str(one) for one in found.skipped if one.name == missing[0]), "")
        raise Misconfigured(why or f"{found.path} has no server {missing[0]!r}")
    return _Taking(found, before, path, may_replace).take(
        [one for one in found.servers if not only or one.name in only]
    )


class _Taking:
    def __init__(self, found: Imported, before: str, path: Path, may_replace: bool) -> None:
        self._own = Own()
        there = self._own.read(before, path)
        self._there = [one.name for one in there.servers]
        self._there += [one.name for one in there.skipped]
        self._inputs_there = _by_id(there.inputs)
        self._inputs_found = _by_id(found.inputs)
        self._names = [one.name for one in found.servers]
        self._path = path
        self._may_replace = may_replace
        self._inputs: dict[str, dict[str, Any]] = {}
        self._renamed: dict[str, str] = {}
        self._notes: list[str] = []

    def take(self, servers: Sequence[Portable]) -> Takeover:
        taken: list[Portable] = []
        kept: list[str] = []
        left_out: list[Skipped] = []
        for server in servers:
            name = self._name(server.name, [one.name for one in taken])
            if name in self._there and not self._may_replace:
                kept.append(name)
                continue
            try:
                taken.append(self._usable(replace(server, name=name), [one.name for one in taken]))
            except NotPortable as why:
                left_out.append(Skipped(server.name, str(why)))
                continue
            if name != server.name:
                self._renamed[name] = server.name
        return Takeover(
            servers=tuple(taken),
            inputs=tuple(self._inputs.values()),
            renamed=self._renamed,
            kept=tuple(kept),
            left_out=tuple(left_out),
            notes=tuple(self._notes),
        )

    def _name(self, name: str, taken: Sequence[str]) -> str:
        """The same every time, so that taking over once more finds what is there."""
        if not alias_faults((name,)):
            return name
        return alias_for(name, [*taken, *(one for one in self._names if one != name)])

    def _usable(self, server: Portable, taken: Sequence[str]) -> Portable:
        """The server as it can be used here. Raises NotPortable."""
        others = [one for one in self._there if one != server.name]
        self._own.check_name(server.name, [*others, *taken])
        notes: list[str] = []
        server = _confined(self._in_time(server, notes), notes)
        names, inputs = self._asking(server)
        server = with_inputs(server, names)
        raw, _ = self._own.raw(server)
        asked = inputs_of(server)
        there = [one for name, one in self._inputs_there.items() if name in asked]
        faults = check_server(server.name, raw, path=self._path, inputs=[*there, *inputs])
        if faults:
            raise NotPortable("; ".join(faults))
        self._inputs |= {str(one["id"]): one for one in inputs}
        self._notes += notes
        return server

    def _in_time(self, server: Portable, notes: list[str]) -> Portable:
        def fit(seconds: float | None, what: str) -> float | None:
            if seconds is None or 0 < seconds <= MAX_TIMEOUT_S:
                return seconds
            fit = MAX_TIMEOUT_S if seconds > 0 else None
            done = f"became {fit:g}" if fit else "is left out"
            notes.append(f"{server.name}: the {what} of {seconds:g} seconds {done}")
            return fit

        return replace(
            server,
            timeout_s=fit(server.timeout_s, "timeout"),
            start_timeout_s=fit(server.start_timeout_s, "startTimeout"),
        )

    def _asking(self, server: Portable) -> tuple[dict[str, str], list[dict[str, Any]]]:
        """The questions it asks, under names that no other question has in our file."""
        names: dict[str, str] = {}
        wanted: list[dict[str, Any]] = []
        for old in inputs_of(server):
            question = self._inputs_found.get(old)
            if question is None:
                # Then it is said what is missing.
                continue
            new, number = old, 2
            # Another question of the same name asks for another server's secret.
            while self._inputs_there.get(new, question | {"id": new}) != question | {"id": new}:
                new = f"{old}-{number}"
                number += 1
            names[old] = new
            if new not in self._inputs_there:
                wanted.append(question | {"id": new})
        return names, wanted


def _confined(server: Portable, notes: list[str]) -> Portable:
    """What was confined there runs free here only when somebody says so."""
    was = any(members.get(one) for members in server.extras.values() for one in _SANDBOXES)
    if not was or server.kind != "stdio" or server.sandbox is not None:
        return server
    notes.append(
        f"{server.name}: it was confined there, and is here, with no network and nothing to read "
        "but its roots until 'sandbox' says more"
    )
    return replace(server, sandbox=True)


# By which products say that a server is confined.
_SANDBOXES = ("sandbox", "sandboxEnabled")


def _by_id(inputs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {one["id"]: dict(one) for one in inputs if isinstance(one.get("id"), str)}
