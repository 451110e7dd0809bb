"""A notebook for a team: tokens, and several processes behind one proxy; docs/deployment.md tells all.

Let somebody in:   STATE=state python examples/deployment/notebook.py token ada
One process:       STATE=state PORT=8001 python examples/deployment/notebook.py
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sqlite3
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from dragoman import Context, Server
from dragoman.jsonrpc.frame import Principal
from dragoman.transport.streamable.sqlite import SqliteStore

# Everything that outlives a process, or is shared by several.
STATE = Path(os.environ.get("STATE", "state"))

server = Server("notebook", version="1", instructions="Each person has a notebook of their own.")


class Tokens:
    """Who has which token. The file holds hashes: whoever reads it cannot call anything.

    It is read again when it has changed, so that a token can be taken away while processes run.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at = -1
        self._people: dict[str, Principal] = {}

    def who(self, token: str) -> Principal | None:
        """Whose token this is, if anybody's."""
        changed_at = self._path.stat().st_mtime_ns if self._path.exists() else 0
        if changed_at != self._read_at:
            self._read_at = changed_at
            self._people = {
                digest: Principal(name, issuer="tokens") for digest, name in self._load().items()
            }
        # Looking up a hash tells nobody by its time how near a guess was.
        return self._people.get(_hash(token))

    def add(self, name: str) -> str:
        """A new token for somebody; it is shown once and kept nowhere."""
        token = secrets.token_urlsafe(32)
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Another file in its place at once: no process reads half of it.
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(self._load() | {_hash(token): name}, indent=1))
        new.chmod(0o600)
        new.replace(self._path)
        return token

    def _load(self) -> dict[str, str]:
        people: dict[str, str] = json.loads(self._path.read_text()) if self._path.exists() else {}
        return people


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


tokens = Tokens(STATE / "tokens.json")


def identify(scope: MutableMapping[str, Any]) -> Principal | None:
    """Who sends a request; it is asked each time, so a token that was taken away is worth nothing."""
    given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
    kind, _, token = given.partition(" ")
    return tokens.who(token) if kind.casefold() == "bearer" else None


@contextmanager
def notebook() -> Iterator[sqlite3.Connection]:
    """All notes, in one transaction: the processes share them."""
    with closing(sqlite3.connect(STATE / "notes.db")) as db, db:
        db.execute("CREATE TABLE IF NOT EXISTS notes (owner TEXT, text TEXT)")
        yield db


@server.tool
def add_note(text: str, ctx: Context) -> int:
    """Write something down; returns how many notes there are now."""
    owner = (ctx.principal.name,)
    with notebook() as db:
        db.execute("INSERT INTO notes VALUES (?, ?)", (*owner, text))
        count: int = db.execute("SELECT count(*) FROM notes WHERE owner = ?", owner).fetchone()[0]
    return count


@server.tool(annotations={"readOnlyHint": True})
def notes(ctx: Context) -> list[str]:
    """All notes of whoever asks."""
    with notebook() as db:
        found = db.execute("SELECT text FROM notes WHERE owner = ?", (ctx.principal.name,))
        return [text for (text,) in found]


@server.tool(annotations={"readOnlyHint": True})
def served_by() -> int:
    """The number of the process that answers."""
    return os.getpid()


def main(words: list[str]) -> None:
    """Serve, or make a token."""
    if words[:1] == ["token"] and len(words) == 2:
        print(tokens.add(words[1]))
        return
    if words:
        sys.exit("usage: notebook.py [token NAME]")
    STATE.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = SqliteStore(STATE / "sessions.db")
    server.run(
        "http",
        port=int(os.environ.get("PORT", "8001")),
        allow_hosts=os.environ.get("NAMES", "localhost").split(),
        identify=identify,
        events=store,
        sessions=store,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
