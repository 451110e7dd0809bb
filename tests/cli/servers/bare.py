"""A server whose stdout carries more than messages, and that misbehaves as its words say."""

import os
import sys
import time

from dragoman import Server

if "exit" in sys.argv:
    sys.stderr.write("no licence \x1b[31mfound\n")
    sys.exit(7)
if "silent" in sys.argv:
    sys.stdin.read()
    sys.exit(0)
if "leave" in sys.argv:
    sys.exit(0)
if "answer" in sys.argv:
    # An answer in a revision that nobody speaks.
    sys.stdin.readline()
    info = '"capabilities":{},"serverInfo":{"name":"x","version":"1"}'
    sys.stdout.write(
        '{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"1999-01-01",' + info + "}}\n"
    )
    sys.stdout.flush()
    sys.stdin.read()
    sys.exit(0)

if "flood" in sys.argv:
    os.write(1, b"noise\n" * 1000)
if "stray" in sys.argv:
    # An answer to a question that nobody asked.
    os.write(1, b'{"jsonrpc":"2.0","id":"\\u001b[2J","result":{}}\n')

os.write(1, b"Welcome to \x1b[2Jthe server\n")
server = Server("bare")


@server.tool
def variables(names: list[str]) -> dict[str, str | None]:
    """Some of its environment."""
    return {name: os.environ.get(name) for name in names}


@server.tool
def where() -> str:
    """Its working directory."""
    return os.getcwd()


@server.tool(thread=True)
def block() -> str:
    """Block for longer than any test waits."""
    time.sleep(60)
    return "done"


server.run()
