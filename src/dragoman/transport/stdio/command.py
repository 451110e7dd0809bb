"""What to start, with which environment, and why it could not be started.

No process is made here.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dragoman.errors import CannotStart, Misconfigured

__all__ = [
    "batch_command_line",
    "child_environment",
    "command_for",
    "explain_failed_start",
    "resolve",
]

# What a program needs to find itself, its user, its language and a place for temporary files, and
# nothing that is likely to be a secret. The first six names are what the other SDKs pass on.
_INHERITED_POSIX = ("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "LANG", "TMPDIR", "TZ")
_INHERITED_WINDOWS = (
    "APPDATA",
    "COMSPEC",
    "HOMEDRIVE",
    "HOMEPATH",
    "LOCALAPPDATA",
    "PATH",
    "PATHEXT",
    "PROCESSOR_ARCHITECTURE",
    "PROGRAMDATA",
    "PROGRAMFILES",
    "SYSTEMDRIVE",
    "SYSTEMROOT",
    "TEMP",
    "TMP",
    "USERNAME",
    "USERPROFILE",
    "WINDIR",
)

_RUNNERS = {".js": "node", ".mjs": "node", ".cjs": "node"}


def command_for(target: str | Path | Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The program and the arguments that start `target`.

    A list is taken as it is. A `.py` file runs under this interpreter, `.js`, `.mjs` and `.cjs`
    under `node`, and any other file must be executable.

    Raises:
        Misconfigured: the target cannot be started like this; the text says how it could.
    """
    if not isinstance(target, str | Path):
        if not target:
            raise Misconfigured("an empty list names no program; its first item is the program")
        return str(target[0]), tuple(str(item) for item in target[1:])
    path = Path(target)
    suffix = path.suffix.lower()
    if not path.is_file():
        raise Misconfigured(_no_such_target(target, path))
    # Absolute, so that the child's working directory does not change what is meant.
    full = os.path.abspath(path)
    if suffix == ".py":
        return sys.executable or "python3", (full,)
    if suffix in _RUNNERS:
        return _RUNNERS[suffix], (full,)
    if suffix in (".ts", ".mts"):
        raise Misconfigured(
            f"{str(path)!r} is TypeScript, which needs a runner: "
            f"pass the whole command as a list, for instance ['npx', 'tsx', {str(path)!r}]"
        )
    if os.access(full, os.X_OK):
        return full, ()
    raise Misconfigured(
        f"{str(path)!r} is neither a .py, .js, .mjs or .cjs file nor executable: "
        "pass the whole command as a list"
    )


def _no_such_target(target: str | Path, path: Path) -> str:
    if path.is_dir():
        return f"{str(target)!r} is a directory; name the script inside it"
    if isinstance(target, str) and " " in target:
        words = target.split()
        return f"there is no file {target!r}; pass a command as a list: {words!r}"
    if not path.suffix and _which(str(target)):
        return f"{str(target)!r} is a program, not a script; pass it as a list: [{str(target)!r}]"
    near = _closest(path.name, _names_in(path.parent))
    hint = f"; did you mean {str(path.with_name(near))!r}?" if near else ""
    return f"there is no file {str(target)!r}{hint}"


def child_environment(
    given: Mapping[str, str] | None,
    source: Mapping[str, str] = os.environ,
    *,
    platform: str = sys.platform,
) -> dict[str, str]:
    """What a child gets: the safe part of `source` and, over it, all of `given`."""
    names = _INHERITED_WINDOWS if platform == "win32" else _INHERITED_POSIX
    inherited = {
        name: value
        for name, value in source.items()
        # Some shells export functions as values that begin with "()".
        if (name in names or name.startswith("LC_")) and not value.startswith("()")
    }
    return inherited | dict(given or {})


def resolve(
    command: str,
    args: Sequence[str],
    env: Mapping[str, str],
    cwd: str | Path | None,
    *,
    platform: str = sys.platform,
) -> list[str] | str:
    """What to hand to `Popen`: an argument vector, or a finished line for a Windows batch file.

    Raises:
        CannotStart: the command is empty, holds a NUL, or the working directory is missing.
    """
    vector = [command, *args]
    if not command:
        raise CannotStart("the command is empty", command=vector)
    if any("\0" in item for item in vector):
        raise CannotStart("a command cannot hold a NUL character", command=vector)
    if cwd is not None and not Path(cwd).is_dir():
        raise CannotStart(f"the working directory {str(cwd)!r} does not exist", command=vector)
    if platform == "win32":
        # CreateProcess looks only for .exe; npx and its like are .cmd files.
        found = _which(command, env.get("PATH")) or command
        if found.lower().endswith((".cmd", ".bat")):
            return batch_command_line(found, args)
        return [found, *args]
    return vector


def batch_command_line(path: str, args: Sequence[str]) -> str:
    """A line that has cmd.exe run a batch file with exactly these arguments.

    cmd.exe parses the line again, and no quoting protects `%` or a quotation mark from it.

    Raises:
        CannotStart: an argument holds a character that cannot be passed to a batch file safely.
    """
    for item in (path, *args):
        if any(character in item for character in '"%\r\n'):
            raise CannotStart(
                f"the argument {item!r} cannot be passed to the batch file {path!r} safely",
                command=[path, *args],
                hint="Start the program behind the batch file directly, for instance node.exe",
            )
    # A backslash before the closing quotation mark would escape it for the program behind.
    quoted = " ".join(f'"{item}{_trailing_backslashes(item)}"' for item in (path, *args))
    return f'cmd.exe /d /s /v:off /c "{quoted}"'


def _trailing_backslashes(item: str) -> str:
    return item[len(item.rstrip("\\")) :]


def explain_failed_start(
    error: OSError | ValueError, command: str, args: Sequence[str], env: Mapping[str, str]
) -> CannotStart:
    """The error to raise when the system refused to start `command`, with what may help."""
    vector = [command, *args]
    search_path = env.get("PATH", os.defpath)
    has_directory = os.path.dirname(command) != ""
    found = command if has_directory else _which(command, search_path)
    hint: str | None = None
    if isinstance(error, FileNotFoundError) and found and os.path.exists(found):
        message = f"{command!r} could not be started: the interpreter in its first line is missing"
    elif isinstance(error, FileNotFoundError):
        message = f"there is no program {command!r}"
        if not has_directory:
            message += " on the PATH"
        hint = _hint_for_missing(command, search_path)
    elif isinstance(error, PermissionError):
        if found and os.path.isdir(found):
            message = f"{command!r} is a directory, not a program"
        else:
            message = f"{command!r} is not executable"
            hint = "Start it with its interpreter, or make it executable"
    elif isinstance(error, OSError) and error.errno == errno.ENOEXEC:
        message = f"{command!r} is no program: it has no '#!' line"
        hint = "Start it with its interpreter"
    else:
        message = f"{command!r} could not be started: {error}"
    return CannotStart(message, command=vector, hint=hint)


def _hint_for_missing(command: str, search_path: str) -> str | None:
    words = command.split()
    if len(words) > 1:
        return f"A command takes its arguments apart: command={words[0]!r}, args={words[1:]!r}"
    if os.path.dirname(command):
        near = _closest(os.path.basename(command), _names_in(Path(command).parent))
        return f"Did you mean {str(Path(command).with_name(near))!r}?" if near else None
    names: set[str] = set()
    for directory in search_path.split(os.pathsep):
        if directory:
            names.update(_names_in(Path(directory)))
    near = _closest(command, names)
    return f"The closest on the PATH is {near!r}" if near else None


def _which(command: str, path: str | None = None) -> str | None:
    # shutil loads every compression library there is, which costs a start more than all of this.
    import shutil

    return shutil.which(command, path=path)


def _names_in(directory: Path) -> set[str]:
    try:
        return set(os.listdir(directory))
    except OSError:
        return set()


def _closest(name: str, names: set[str]) -> str | None:
    import difflib

    return next(iter(difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.7)), None)
