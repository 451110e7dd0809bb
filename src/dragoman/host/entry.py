"""One server of an mcp.json, checked: what is started or reached, and how a person sees it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dragoman.client.config import RemoteEntry, ServerEntry
from dragoman.errors import Misconfigured
from dragoman.host.sandbox import Root, Sandbox, confine, starter
from dragoman.host.variables import Secrets, Values, has_secret
from dragoman.transport.base import Connector

__all__ = ["HostEntry"]


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

    `faults` say what is missing to start it, each as "FILE:LINE: ...", and `asks` are the inputs
    that the person has still to say; with either it is not started, and the variables that are
    missing stand in its texts. `is_identified` says whether it is known all the same who it is;
    if not, `asks_who` are the inputs that would say it.
    """

    entry: ServerEntry | RemoteEntry = field(repr=False)
    shown: ServerEntry | RemoteEntry
    place: str
    faults: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    asks_who: tuple[str, ...] = ()
    is_identified: bool = True
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
    _fill: Values = field(repr=False, compare=False)

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
        return has_secret(self.raw)

    def offers(self, tool: str) -> bool:
        """Whether the file leaves that tool to be used."""
        return tool not in self.hidden_tools and (
            self.only_tools is None or tool in self.only_tools
        )

    def filled(self, secrets: Secrets | None = None) -> ServerEntry | RemoteEntry:
        """The entry with its secrets looked up: what is started.

        Raises:
            Misconfigured: a variable, an input or a secret is not there, or there is no `secrets`
                to look in.
        """
        if self.faults:
            raise Misconfigured("\n".join(self.faults))
        if self.asks:
            raise Misconfigured(f"{self.place}: nobody was asked for {', '.join(self.asks)}")
        return self._fill.complete(self.entry, self.raw, secrets)

    def connector(
        self,
        secrets: Secrets | None = None,
        *,
        roots: Iterable[Root] = (),
        stderr: Callable[[str], object] | None = None,
        refused: Callable[[str], object] | None = None,
        guarded: Iterable[Path] = (),
        environ: Mapping[str, str] = os.environ,
    ) -> Connector:
        """How to reach it, in its sandbox if it has one.

        `roots` are those the user has granted by now. `refused` is told, in a few words, of what a
        confined server tried to reach and may not. `guarded` are the host's own folders, which no
        sandbox opens.

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
        confined = confine(entry, self.sandbox, roots=roots, guarded=guarded, environ=environ)
        return starter(confined, self.sandbox.reach, stderr=stderr, refused=refused)
