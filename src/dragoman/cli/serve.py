"""`dragoman run FILE[:OBJECT]`: serve the Server object a file defines, over stdio."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from dragoman.errors import Misconfigured
from dragoman.transport.stdio.serve import take_streams

__all__ = [
    "NotLoaded",
    "find_server_object",
    "load_file",
    "run_file",
    "show_fault",
    "split_target",
]

# The name the file is imported under: never that of a real module, whatever the file is called.
MODULE_NAME = "__dragoman_main__"


def run_file(target: str) -> int:
    """Serve until the client leaves; returns the exit code.

    The streams are taken before the file is imported, so nothing it prints while it loads can get
    between client and server.

    Raises:
        Misconfigured: there is no such file or object, or no streams to serve on.
    """
    path, name = split_target(target)
    is_by_hand = sys.stdin is not None and sys.stdin.isatty()
    streams = take_streams()
    try:
        server = find_server_object(load_file(path), path, name)
    except BaseException as error:
        # There will be no conversation. Where stderr is merged into stdout it was silenced, and
        # nobody could read what is said now.
        streams.give_back()
        if not isinstance(error, NotLoaded):
            raise
        show_fault(error.fault, path)
        return 2
    if is_by_hand:
        sys.stderr.write(
            f"{path.name} speaks MCP on this terminal's input and output; Ctrl-C ends it.\n"
            f"To talk to it: dragoman inspect {target}\n"
        )
    server.run()
    return 0


class NotLoaded(Exception):
    """The file raised `fault` while it was imported."""

    def __init__(self, fault: Exception) -> None:
        super().__init__(str(fault))
        self.fault = fault


def load_file(path: Path) -> ModuleType:
    """Import a file as Python does a script, except that it is not `__main__`.

    Raises:
        Misconfigured: it is no Python file.
        NotLoaded: it raised.
    """
    spec = importlib.util.spec_from_file_location(MODULE_NAME, path)
    if spec is None or spec.loader is None:
        raise Misconfigured(f"{str(path)!r} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Records look up their annotations in their module, and neighbours are imported by name.
    sys.modules[MODULE_NAME] = module
    sys.path.insert(0, str(path.parent))
    sys.argv = [str(path)]
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise NotLoaded(error) from error
    return module


def show_fault(error: Exception, path: Path) -> None:
    """The traceback, without our part of it, on stderr."""
    shown = traceback.TracebackException.from_exception(error)
    own = [n for n, frame in enumerate(shown.stack) if frame.filename == str(path)]
    if own:
        del shown.stack[: own[0]]
    elif isinstance(error, SyntaxError):
        shown.stack.clear()
    sys.stderr.write("".join(shown.format()))
    sys.stderr.write(f"dragoman: {path} could not be loaded\n")


def find_server_object(module: ModuleType, path: Path, name: str | None) -> Any:
    """The server of that name, or the only one there is.

    Raises:
        Misconfigured: there is none, several, or that name is something else.
    """
    from dragoman.server.app import Server

    if name is not None:
        found: Any = module
        for part in name.split("."):
            if not hasattr(found, part):
                raise Misconfigured(f"{path} has no {name!r}{_servers(module, Server)}")
            found = getattr(found, part)
        if not isinstance(found, Server):
            raise Misconfigured(
                f"{name!r} in {path} is of type {type(found).__name__}, not Server"
                f"{_servers(module, Server)}"
            )
        return found
    distinct = {id(one): one for one in vars(module).values() if isinstance(one, Server)}
    if not distinct:
        raise Misconfigured(
            f"{path} defines no Server at its top level; it needs a line such as "
            f"server = Server({path.stem!r})"
        )
    if len(distinct) > 1:
        raise Misconfigured(
            f"{path} defines {len(distinct)} servers{_servers(module, Server)}; "
            f"name one: dragoman run {path}:NAME"
        )
    return next(iter(distinct.values()))


def _servers(module: ModuleType, kind: type[Any]) -> str:
    names = [key for key, value in vars(module).items() if isinstance(value, kind)]
    return f" (servers there: {', '.join(names)})" if names else ""


def split_target(target: str) -> tuple[Path, str | None]:
    """The file, absolute, and the name behind the colon. Raises Misconfigured when it is none."""
    path = Path(target)
    name: str | None = None
    if not path.is_file():
        file, colon, rest = target.rpartition(":")
        if colon and Path(file).is_file():
            path, name = Path(file), rest
            if not name:
                raise Misconfigured(f"{target!r} names no object after the colon")
    if path.is_dir():
        raise Misconfigured(f"{target!r} is a directory; name the file inside it")
    if not path.is_file():
        raise Misconfigured(f"there is no file {target!r}")
    return path.absolute(), name
