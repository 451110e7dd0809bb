"""What TARGET means: a URL, a script, a command line after `--`, or a name in an mcp.json."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dragoman.client.config import (
    RemoteEntry,
    ServerEntry,
    config_paths,
    find_server,
    read_config,
)
from dragoman.client.targets import connector_for
from dragoman.errors import Misconfigured
from dragoman.transport.base import Connector
from dragoman.transport.stdio.child import StdioConnector
from dragoman.transport.stdio.command import command_for

if TYPE_CHECKING:
    from dragoman.transport.http.client import HttpOptions

__all__ = ["connector_of"]

_SCRIPTS = (".py", ".js", ".mjs", ".cjs", ".ts", ".mts", ".sh")


def connector_of(
    target: str | None,
    command: Sequence[str],
    *,
    config: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    headers: Mapping[str, str] | None = None,
    token_env: str | None = None,
    ca: str | None = None,
    stderr: Callable[[str], object] | None = None,
) -> Connector:
    """How to reach the server that a command names.

    What has `://` is a URL. As in a shell, what has a slash or a script's suffix is a file, and a
    bare word is a name; with `config` every target is a name in that file. `token_env` names the
    variable that holds a bearer token, `ca` a file of the only certificates to trust; they and
    `headers` are for a server at a URL, `env` and `cwd` for one that is started here.

    Raises:
        Misconfigured: it names nothing that can be started or reached, or an option is for
            another kind of server.
    """
    token = None if token_env is None else _token(token_env)
    http = None if ca is None else _trusting(ca)
    is_url = target is not None and "://" in target
    entry = None
    if target is not None and not is_url:
        entry = _entry(target, config)
    if isinstance(entry, RemoteEntry):
        return entry.connector(
            env=env, cwd=cwd, http=http, headers=headers or None, token=token, stderr=stderr
        )
    if is_url:
        assert target is not None
        if env or cwd:
            raise Misconfigured(
                "--env and --cwd are for a server that is started here; this one is at a URL"
            )
        return connector_for(target, http=http, headers=headers or None, token=token)
    if headers or token is not None or http is not None:
        raise Misconfigured(
            "--header, --token-env and --ca are for a server at a URL; this one is started here, "
            "and takes --env"
        )
    if isinstance(entry, ServerEntry):
        return entry.connector(env=env, cwd=cwd, stderr=stderr)
    program, args = _command_line(target, command)
    return StdioConnector(command=program, args=args, env=env, cwd=cwd, stderr=stderr)


def _entry(target: str, config: str | None) -> ServerEntry | RemoteEntry | None:
    """The server of that name in an mcp.json; None for what is a file."""
    if config is not None:
        return read_config(config).entry(target)
    if _is_object(target) or _is_path(target):
        return None
    try:
        return find_server(target, config_paths())
    except Misconfigured as error:
        if Path(target).exists():
            raise Misconfigured(f"{error} (for the file of that name write ./{target})") from None
        raise


def _command_line(target: str | None, command: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The program to start, and its arguments."""
    if target is None:
        if not command:
            raise Misconfigured("the command line after -- is empty")
        return command_for(list(command))
    if _is_object(target):
        # An object in a file that does not serve by itself.
        file = target.partition(".py:")[0]
        absolute = os.path.abspath(file) + target[len(file) :]
        return sys.executable, ("-m", "dragoman", "run", absolute)
    return command_for(target)


def _token(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise Misconfigured(f"the variable {name} is not set, and should hold a token")
    return value


def _trusting(ca: str) -> HttpOptions:
    # Only now: most commands have no use for what stands behind it.
    from dragoman.transport.http.client import HttpOptions

    return HttpOptions(verify=ca)


def _is_object(target: str) -> bool:
    file, colon, _ = target.partition(".py:")
    return bool(colon) and Path(f"{file}.py").is_file()


def _is_path(target: str) -> bool:
    separators = [os.sep, "/"] + ([os.altsep] if os.altsep else [])
    return any(one in target for one in separators) or target.lower().endswith(_SCRIPTS)
