"""What the settings of a server say of its sandbox."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dragoman.errors import Misconfigured
from dragoman.host.sandbox.targets import MAX_TARGETS, BadTargetError, Reach, Target, parse_target

__all__ = ["Root", "Sandbox", "is_never_given", "read_sandbox", "shown_path"]

Fault = Callable[[tuple[str | int, ...], str], Misconfigured]
Fill = Callable[[str, tuple[str | int, ...]], str]

_MEMBERS = ("network", "read", "write")
# To bind one of these again would undo what the sandbox puts there. In /run lie the sockets of
# everything else that runs here: the session's bus starts any program, outside.
_NEVER = ("/", "/proc", "/dev", "/sys", "/run", "/var/run", "/run/user", "/var/run/user")
_NEVER_BELOW = ("/proc/", "/dev/", "/sys/")


@dataclass(frozen=True, slots=True)
class Root:
    """A folder the user means a server to work in; `path` is absolute."""

    path: Path
    is_writable: bool = False

    @property
    def uri(self) -> str:
        """As it is told to a server."""
        return self.path.as_uri()


@dataclass(frozen=True, kw_only=True, slots=True)
class Sandbox:
    """What a confined server may use besides its own program; all paths are absolute.

    Spelled in a server's settings as `"sandbox": true`, or as an object with `network` (a boolean,
    or a list of "host:port"), `read` and `write` (lists of paths). `reach` is that list.
    """

    has_network: bool = False
    reach: Reach = Reach()  # noqa: RUF009 - it cannot be changed
    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()

    def __str__(self) -> str:
        parts = ["network" if self.has_network else "no network"]
        if self.reach.targets:
            parts = [f"network to {self.reach} only"]
        parts += [f"reads {shown_path(path)}" for path in self.read]
        parts += [f"writes {shown_path(path)}" for path in self.write]
        return "confined: " + ", ".join(parts)


def shown_path(path: Path) -> str:
    """A path, and where it leads: a link that is changed is another thing to agree to."""
    real = os.path.realpath(path)
    return str(path) if real == str(path) else f"{path} (which is {real})"


def read_sandbox(settings: Any, folder: Path, fault: Fault, fill: Fill) -> Sandbox | None:
    """The sandbox that a server's settings ask for; None when it asks for none.

    Relative paths start from `folder`, and `~` is the user's home. `fault` and `fill` are as for
    `dragoman.client.config.read_server`.

    Raises:
        Misconfigured: what `fault` made of the first thing that is wrong.
    """
    if settings is None or settings is False:
        return None
    if settings is True:
        return Sandbox()
    if not isinstance(settings, dict):
        raise fault(("sandbox",), "'sandbox' must be true, false or an object")
    for key in settings:
        if key not in _MEMBERS:
            raise fault(
                ("sandbox", key),
                f"'sandbox' has no {key!r}; it has 'network', 'read' and 'write'",
            )
    network = settings.get("network", False)
    if not isinstance(network, bool | list):
        hint = f"; write [{network!r}]" if isinstance(network, str) and ":" in network else ""
        raise fault(
            ("sandbox", "network"),
            f"'network' must be true, false or a list of 'host:port'{hint}",
        )
    return Sandbox(
        has_network=network is True,
        reach=_reach(network, fault, fill) if isinstance(network, list) else Reach(),
        read=_paths(settings, "read", folder, fault, fill),
        write=_paths(settings, "write", folder, fault, fill),
    )


def _reach(given: list[Any], fault: Fault, fill: Fill) -> Reach:
    if len(given) > MAX_TARGETS:
        raise fault(
            ("sandbox", "network"),
            f"'network' lists {len(given)} hosts, and {MAX_TARGETS} are as many as a person reads;"
            " use a pattern such as '*.example.com:443'",
        )
    found: list[Target] = []
    for place, one in enumerate(given):
        at = ("sandbox", "network", place)
        if not isinstance(one, str):
            raise fault(at, "'network' must be a list of 'host:port'")
        text = fill(one, at)
        if "${" in text:
            # A variable that is not set: that is told as such, and nothing is started.
            continue
        try:
            found.append(parse_target(text, may_be_pattern=True))
        except BadTargetError as wrong:
            raise fault(at, f"'network' lists {text[:300]!r}, which {wrong}") from None
    return Reach.of(found)


def _paths(
    settings: Mapping[str, Any], member: str, folder: Path, fault: Fault, fill: Fill
) -> tuple[Path, ...]:
    given = settings.get(member, [])
    if not isinstance(given, list):
        raise fault(("sandbox", member), f"{member!r} must be a list of paths")
    found = []
    for place, one in enumerate(given):
        at = ("sandbox", member, place)
        if not isinstance(one, str) or not one:
            raise fault(at, f"{member!r} must be a list of paths")
        path = Path(os.path.normpath(folder / Path(fill(one, at)).expanduser()))
        if is_never_given(path):
            raise fault(at, f"{str(path)!r} cannot be given to a sandbox")
        found.append(path)
    return tuple(found)


def is_never_given(path: Path) -> bool:
    """Whether no sandbox opens this path; where a link leads is another path."""
    # The folder of somebody's sockets is not; one socket in it may be given.
    is_users_run = str(path.parent) in ("/run/user", "/var/run/user")
    return str(path) in _NEVER or str(path).startswith(_NEVER_BELOW) or is_users_run
