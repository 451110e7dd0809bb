"""A lifespan that opens something for the whole life of the server, and a middleware."""

import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

from dragoman import Context, Server
from dragoman.model.base import Record
from dragoman.server.app import CallNext


@asynccontextmanager
async def database(server: Server) -> AsyncIterator[sqlite3.Connection]:
    """Open the database before the first request, and close it after the last."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("create table notes (text)")
        print(f"{server.name}: the database is open", file=sys.stderr)
        yield connection
    print(f"{server.name}: the database is closed", file=sys.stderr)


server = Server("notes", lifespan=database)


@server.middleware
async def measure(ctx: Context, params: Record, call_next: CallNext) -> Record:
    """Say on stderr how long each request took."""
    before = time.perf_counter()
    try:
        return await call_next(params)
    finally:
        took_ms = (time.perf_counter() - before) * 1000
        print(f"{ctx.method} took {took_ms:.1f} ms", file=sys.stderr)


@server.tool
async def add_note(text: str, ctx: Context) -> int:
    """Keep a note; returns how many there are."""
    ctx.state.execute("insert into notes values (?)", (text,))
    (count,) = ctx.state.execute("select count(*) from notes").fetchone()
    return int(count)


@server.tool
async def find_notes(word: str, ctx: Context) -> list[str]:
    """The notes that hold a word."""
    rows = ctx.state.execute("select text from notes where instr(text, ?)", (word,))
    return [text for (text,) in rows]


if __name__ == "__main__":
    server.run()
