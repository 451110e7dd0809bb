"""What TARGET means: a URL, a script, a command line after `--`, or a name in an mcp.json."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dragoman.client.config import config_paths, find_server, read_config
from dragoman.client.targets import connector_for
from dragoman.errors import Misconfigured
from dragoman.transport.base import Connector
from dragoman.transport.stdio.child import StdioConnector
from dragoman.transport.stdio.command import command_for

__all__ = ["connector_of"]

_SCRIPTS = (".py", ".js", ".mjs", ".cjs", ".ts", ".mts", ".sh")


def connector_of(
    target: str | None,
    command: Sequence[str],
    *,
    config: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    stderr: Callable[[str], object] | None = None,
) -> Connector:
    """How to reach the server that a command names.

    What has `://` is a URL. As in a shell, what has a slash or a script's suffix is a file, and a bare word is a name; with
    `config` every target is a name in that file.

    Raises:
        Misconfigured: it names nothing that can be started or reached.
    """
    if target is None:
        if not command:
            raise Misconfigured("the command line after -- is empty")
        program, args = command_for(list(command))
        return StdioConnector(command=program, args=args, env=env, cwd=cwd, stderr=stderr)
    if "://" in target:
        if env or cwd:
            raise Misconfigured("variables and a folder are for a server that is started here")
        return connector_for(target)
    if config is not None:
        return read_config(config).entry(target).connector(env=env, cwd=cwd, stderr=stderr)
    file, colon, _ = target.partition(".py:")
    if colon and Path(f"{file}.py").is_file():
        # An object in a file that does not serve by itself.
        absolute = os.path.abspath(file) + target[len(file) :]
        args = ("-m", "dragoman", "run", absolute)
        return StdioConnector(command=sys.executable, args=args, env=env, cwd=cwd, stderr=stderr)
    if _is_path(target):
        program, args = command_for(target)
        return StdioConnector(command=program, args=args, env=env, cwd=cwd, stderr=stderr)
    try:
        return find_server(target, config_paths()).connector(env=env, cwd=cwd, stderr=stderr)
    except Misconfigured as error:
        if Path(target).exists():
            raise Misconfigured(f"{error} (for the file of that name write ./{target})") from None
        raise


def _is_path(target: str) -> bool:
    separators = [os.sep, "/"] + ([os.altsep] if os.altsep else [])
    return any(one in target for one in separators) or target.lower().endswith(_SCRIPTS)
