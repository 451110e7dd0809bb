"""dragoman's own mcp.json: the common shape, and a place for everything a host may say."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from dragoman.client.config import SHAPES
from dragoman.host.formats.places import settings_folder
from dragoman.host.formats.portable import NotPortable, Syntax, holds_secret
from dragoman.host.formats.shape import Format, Reading, Writing
from dragoman.host.identity import alias_faults

__all__ = ["PLACES", "Own", "alias_for"]

# 50: an alias may have 64, and a number may have to follow.
MAX_CHARS = 50
# The folders that a variable can name.
PLACES = ("workspaceFolder", "workspaceFolderBasename", "userHome", "pathSeparator", "/")


class Own(Format):
    """`mcp.json` as `dragoman.host.config` reads it.

    What only another product knows stands under "from", so that it is there when the server is
    written for that product again.
    """

    name = "dragoman"
    title = "dragoman"
    shapes = tuple((shape,) for shape in SHAPES)
    syntax = Syntax(
        env=lambda name: f"${{{name}}}",
        has_default=True,
        places=PLACES,
        kinds=("input", "keyring", "secret"),
    )
    holds = frozenset(
        {
            "cwd",
            "env_file",
            "disabled",
            "timeout",
            "start_timeout",
            "only",
            "hidden",
            "roots",
            "sandbox",
            "extras",
        }
    )
    allowed_members = ("alwaysAllow",)
    has_inputs = True

    def files(
        self, environ: Mapping[str, str], project: Path, *, platform: str = "linux"
    ) -> list[Path]:
        """The project's and the user's own."""
        return [
            project / "mcp.json",
            settings_folder(environ, platform) / "dragoman" / "mcp.json",
        ]

    def check_name(self, name: str, others: Collection[str]) -> None:
        """Raises NotPortable: not beside these, where tools or people could mix them up."""
        before = alias_faults(tuple(others))
        for fault in alias_faults((*others, name)):
            if fault not in before:
                free = repr(alias_for(name, others))
                # Some faults name one already.
                raise NotPortable(fault[1] if free in fault[1] else f"{fault[1]}; {free} would do")

    def read_more(self, reading: Reading, members: dict[str, Any]) -> None:
        """What no other product has."""
        members["start_timeout_s"] = reading.seconds("startTimeout")
        members["only"] = reading.names("enabledTools")
        members["hidden"] = reading.names("disabledTools") or ()
        members["sandbox"] = reading.take("sandbox")
        roots = reading.take("roots")
        if roots is not None and not isinstance(roots, list):
            raise NotPortable("'roots' is no list")
        members["roots"] = tuple(roots or ())
        others = reading.take("from")
        if others is not None:
            if not isinstance(others, dict) or not all(
                isinstance(one, dict) for one in others.values()
            ):
                raise NotPortable("'from' is no object of objects")
            members["extras"] = others

    def write_more(self, writing: Writing) -> None:
        """What no other product has."""
        server = writing.server
        writing.seconds("startTimeout", server.start_timeout_s)
        if server.only is not None:
            writing.raw["enabledTools"] = list(server.only)
        writing.put("disabledTools", list(server.hidden))
        writing.put("sandbox", server.sandbox)
        writing.put("roots", list(server.roots))
        others = {}
        for name, members in server.extras.items():
            if name == self.name:
                continue
            kept = {key: value for key, value in members.items() if not holds_secret(key, value)}
            for key in members.keys() - kept.keys():
                writing.lose(key, f"a secret stands in it, which stays with {name}")
            others[name] = kept
        writing.put("from", {name: kept for name, kept in others.items() if kept})


def alias_for(name: str, taken: Collection[str] = ()) -> str:
    """An alias that is close to another product's name for a server and is not `taken`."""
    plain = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-._")[:MAX_CHARS]
    wanted = free = plain if plain and not alias_faults((plain,)) else f"server-{plain}".rstrip("-")
    folded = {one.casefold() for one in taken}
    number = 2
    while free.casefold() in folded:
        free = f"{wanted}-{number}"
        number += 1
    return free
