"""The command line that runs a server under bubblewrap."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dragoman.client.config import ServerEntry, project_of
from dragoman.errors import Misconfigured
from dragoman.host.sandbox.declared import Root, Sandbox, is_never_given, shown_path

__all__ = ["NO_NETWORK", "Confined", "confine", "find_bubblewrap"]

# What programs need of a system, and what is the same for all users of it. Of /etc only what
# names, certificates, time zones and the loader need: nothing in it is anyone's own.
_SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/pki",
    "/etc/ssl",
)
# Keys of the machine, which a host that runs as root could read.
_KEPT = ("/etc/pki/tls/private", "/etc/ssl/private")
# What of /proc belongs to the whole machine, and is root's to write even without a capability.
_MACHINE = ("acpi", "bus", "fs", "irq", "scsi", "sys", "sysrq-trigger")
# Only for who may use the network.
_NETWORK = ("/etc/hosts", "/etc/resolv.conf", "/etc/gai.conf", "/etc/services")
# And for who reaches a list of hosts: names are looked for in a file of its own.
_NETWORK_OF_A_LIST = ("/etc/gai.conf", "/etc/services")

# Beside a folder `bin`: what the programs in it are made of. Nothing else of where they were
# installed: with ~/.local/bin that would be all of ~/.local.
_BESIDE_BIN = ("lib", "lib64", "libexec", "pyvenv.cfg")
# A script that is named as an argument is part of the program.
_SCRIPTS = (".py", ".pyz", ".js", ".mjs", ".cjs", ".ts", ".mts", ".rb", ".sh", ".jar", ".pl")
# What the loader and the C library obey: bubblewrap itself would, outside of the sandbox.
_FOR_LOADER = ("LD_", "GLIBC_", "GCONV_", "LOCPATH", "NLSPATH", "MALLOC_")
# With a list of hosts bubblewrap is started in a network that is made for it, without this one.
NO_NETWORK = "--unshare-net"
_ENV = Path("/usr/bin/env")
# What runs outside of every sandbox when the next server is started.
_OURS = (Path(__file__).parents[2], Path(sys.prefix), Path(sys.base_prefix))
# 40: as many links as the kernel follows in one path.
_MOST_LINKS = 40


@dataclass(frozen=True, slots=True)
class Confined:
    """A command line that runs a server in its sandbox.

    `cwd` is where bubblewrap itself starts, and `env` is for it to hand on. The first so many of
    `args` are bubblewrap's own: more `options` may be added after them. Where it `resets_term`,
    SIGTERM has its usual meaning for the server even if bubblewrap was started to ignore it.
    """

    command: str
    args: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str] = field(repr=False)
    options: int = 0
    resets_term: bool = False


def find_bubblewrap(environ: Mapping[str, str] = os.environ) -> str:
    """The path of `bwrap`.

    Raises:
        Misconfigured: it is not there, or this is no Linux.
    """
    if sys.platform != "linux":
        raise Misconfigured("a sandbox needs Linux and bubblewrap; leave 'sandbox' out elsewhere")
    found = shutil.which("bwrap", path=environ.get("PATH"))
    if found is None:
        raise Misconfigured(
            "a sandbox needs bubblewrap, and there is no 'bwrap' here: install bubblewrap, or leave "
            "'sandbox' out"
        )
    return os.path.abspath(found)


def confine(
    entry: ServerEntry,
    sandbox: Sandbox,
    *,
    roots: Iterable[Root] = (),
    guarded: Iterable[Path] = (),
    environ: Mapping[str, str] = os.environ,
) -> Confined:
    """The command line that runs `entry` in its sandbox.

    `roots` are those the user has granted; each is read only unless it says otherwise. What is in
    `guarded` is the host's own: no sandbox shows such a folder, or writes such a file. The environment is not part of the line,
    where every user could read it: bubblewrap hands on its own. What would steer bubblewrap itself
    is the exception.

    Raises:
        Misconfigured: bubblewrap is not there, or a path or the program is not; or a path opens
            what no sandbox may open.
    """
    bwrap = find_bubblewrap(environ)
    name = entry.name
    search = entry.env.get("PATH", environ.get("PATH", os.defpath))
    # A relative command means one in the server's folder, as it would without a sandbox.
    start = Path(entry.cwd or os.getcwd())
    program = _program(entry.command, search, start)
    if program is None:
        raise Misconfigured(f"the server {name!r}: there is no program {entry.command!r}")
    home = Path(environ.get("HOME") or Path.home())
    binds: dict[Path, bool] = {}
    for path in _program_paths(program):
        binds.setdefault(path, False)
    for path in sandbox.read:
        binds.setdefault(_existing(path, name), False)
    for path in sandbox.write:
        binds[_existing(path, name)] = True
    for root in roots:
        path = _existing(root.path, name)
        binds[path] = binds.get(path, False) or root.is_writable
    for arg in entry.args:
        script = start / arg
        if script.suffix in _SCRIPTS and os.path.isfile(script):
            script = _absolute(script)
            if script not in binds:
                _check_script(script, entry)
            binds.setdefault(script, False)
    guarded = tuple(guarded)
    _check_links(binds, name)
    hidden = _hidden(binds, guarded, home, name)
    # No --new-session: `StdioConnector` makes one already, so there is no terminal to type into.
    # In a second one the server would be out of reach of who waits for its group to end.
    line = [
        "--unshare-user",
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-cgroup-try",
        *(() if sandbox.has_network else (NO_NETWORK,)),
        "--die-with-parent",
        "--cap-drop",
        "ALL",
        "--hostname",
        "sandbox",
        # Whoever makes a user namespace has all capabilities in it, and with them a way to parts
        # of the kernel in which most of its faults are found.
        *(("--disable-userns",) if _can_forbid_namespaces(bwrap) else ()),
    ]
    for place in (*_SYSTEM, *_of_network(sandbox)):
        line += _system(place)
    for place in _KEPT:
        if os.path.isdir(place):
            line += ["--tmpfs", place]
    line += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108 - its own
    for part in _MACHINE:
        line += ["--ro-bind-try", f"/proc/{part}", f"/proc/{part}"]
    # An empty home, so that programs which look for their settings find a folder.
    if len(home.parts) > 1 and not _is_system(home):
        line += ["--tmpfs", str(home)]
    for path, (option, real) in _mounts(binds, (entry.source, *guarded, *_OURS)):
        line += [option, str(real), str(path)]
    for path in hidden:
        line += ["--tmpfs", str(path)]
    visible = entry.cwd is not None and any(
        _absolute(entry.cwd).is_relative_to(path) for path in (*binds, home)
    )
    if entry.cwd is not None and not visible:
        raise Misconfigured(
            f"the server {name!r} starts in {str(entry.cwd)!r}, which its sandbox does not show; "
            "name it in 'read' or 'write'"
        )
    line += ["--chdir", str(_absolute(entry.cwd)) if entry.cwd else "/tmp"]  # noqa: S108 - its own
    handed_on = {}
    for name_of, value in entry.env.items():
        if name_of.upper().startswith(_FOR_LOADER):
            line += ["--setenv", name_of, value]
        else:
            handed_on[name_of] = value
    # The host's folder for temporary files is not there.
    handed_on.setdefault("TMPDIR", "/tmp")  # noqa: S108 - its own
    reset = _reset_of_term(program)
    args = (*line, "--", *reset, str(program), *entry.args)
    return Confined(bwrap, args, Path("/"), handed_on, len(line), bool(reset))


def _of_network(sandbox: Sandbox) -> Sequence[str]:
    if sandbox.has_network:
        return _NETWORK
    return _NETWORK_OF_A_LIST if sandbox.reach.targets else ()


def _depth(path: Path) -> tuple[int, str]:
    return len(path.parts), str(path)


def _around(path: Path, binds: Mapping[Path, bool]) -> Path | None:
    """The innermost of these that the path lies in."""
    return next((one for one in path.parents if one in binds), None)


def _mounts(
    binds: Mapping[Path, bool], kept: Iterable[Path]
) -> list[tuple[Path, tuple[str, Path]]]:
    """What is mounted where, and how, so that nothing in `kept` can be written.

    Outer before inner: the later of two mounts lies over the earlier one.
    """
    found: dict[Path, tuple[str, Path]] = {}
    pinned: set[Path] = set()
    for path, is_writable in binds.items():
        around = _around(path, binds)
        # What lies in another one is there already; a link in it could not be mounted upon.
        if around is not None and binds[around] == is_writable:
            continue
        found[path] = ("--bind" if is_writable else "--ro-bind", Path(os.path.realpath(path)))
        if around is not None and binds[around]:
            pinned.update(_between(around, path))
    for real in (Path(os.path.realpath(one)) for one in kept):
        for outer, is_writable in binds.items():
            folder = Path(os.path.realpath(outer))
            if not is_writable or real == folder or not real.is_relative_to(folder):
                continue
            inside = outer / real.relative_to(folder)
            if _around(inside, binds) == outer and real.exists():
                found[inside] = ("--ro-bind", real)
                pinned.update(_between(outer, inside))
    for path in pinned:
        found.setdefault(path, ("--bind", Path(os.path.realpath(path))))
    return sorted(found.items(), key=lambda one: _depth(one[0]))


def _between(outer: Path, inner: Path) -> list[Path]:
    """Each folder on the way, to be kept where it is: what is mounted upon is not renamed.

    A path that is read only would be another one if a folder around it made room for a new one.
    """
    return [
        one
        for one in inner.parents
        if one.is_relative_to(outer) and one != outer and not one.is_symlink()
    ]


def _check_links(binds: Mapping[Path, bool], name: str) -> None:
    """What the server can put in the place of a path is not for it to choose.

    Raises:
        Misconfigured: a path in a folder that it may write leads out of that folder.
    """
    for path in binds:
        for outer in path.parents:
            # Its program may well be a link, to an interpreter; what is run is bound read only.
            if binds.get(outer) and not _leads_into(path, outer) and os.path.isdir(path):
                raise Misconfigured(
                    f"the server {name!r}: its sandbox names {str(path)!r}, a link to "
                    f"{os.path.realpath(path)!r} in a folder that the server may write; name where"
                    " it leads"
                )


def _check_script(script: Path, entry: ServerEntry) -> None:
    """A script is shown without being named: by a link it could be any file.

    Raises:
        Misconfigured: it leads out of the project or the server's folder, or is no script there.
    """
    real = Path(os.path.realpath(script))
    for folder in (project_of(entry.source), entry.cwd):
        if folder is not None and script.is_relative_to(_absolute(folder)):
            is_fit = _leads_into(script, folder)
            break
    else:
        is_fit = real.suffix in _SCRIPTS
    if not is_fit:
        raise Misconfigured(
            f"the server {entry.name!r}: {str(script)!r} is a link to {str(real)!r}; name it in"
            " 'read' of its sandbox to have it shown"
        )


def _leads_into(path: Path, outer: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(outer))


def _hidden(
    binds: Mapping[Path, bool], guarded: Iterable[Path], home: Path, name: str
) -> list[Path]:
    """The guarded folders that a path would show.

    Raises:
        Misconfigured: one could be written, or is what a path names; or all of the home could be
            written, where programs start that nothing confines.
    """
    found = []
    # One that is not there yet is not for the server to make, either.
    kept = [Path(os.path.realpath(one)) for one in guarded if not os.path.isfile(one)]
    for path, is_writable in binds.items():
        real = Path(os.path.realpath(path))
        if is_writable and Path(os.path.realpath(home)).is_relative_to(real):
            raise Misconfigured(
                f"the server {name!r}: its sandbox would write all of {str(path)!r}, and what is"
                " written there runs without one (.profile, .ssh); name the folders in it"
            )
        for one in kept:
            if real.is_relative_to(one) or (is_writable and one.is_relative_to(real)):
                raise Misconfigured(
                    f"the server {name!r}: its sandbox would open {str(one)!r}, where it is"
                    f" remembered what you have allowed; leave {str(path)!r} out"
                )
            if one.is_relative_to(real) and one.is_dir():
                found.append(path / one.relative_to(real))
    return sorted(set(found), key=_depth)


def _reset_of_term(program: Path) -> Sequence[str]:
    """What to put before a program so that SIGTERM, ignored until there, is not for it.

    bubblewrap dies of the signal that is for its server, and takes it along, before the server has
    put anything in order. Nothing where there is no `env` that knows how (that of GNU, since 2019).
    """
    try:
        is_able = b"default-signal" in _ENV.read_bytes()
    except OSError:
        return ()
    # What has a "=" would be a variable to it.
    return () if not is_able or "=" in str(program) else (str(_ENV), "--default-signal=TERM")


def _can_forbid_namespaces(bwrap: str) -> bool:
    """Whether this bubblewrap knows how: 0.8 and later, where it is not setuid.

    Its options stand in it as text; to ask it would start a process before anything is decided.
    """
    try:
        if os.stat(bwrap).st_mode & stat.S_ISUID:
            return False
        return b"--disable-userns" in Path(bwrap).read_bytes()
    except OSError:
        return False


def _absolute(path: Path) -> Path:
    """Without links being followed: it is the name that has to exist inside."""
    return Path(os.path.abspath(path))


def _existing(path: Path, name: str) -> Path:
    if not os.path.exists(path):
        raise Misconfigured(
            f"the server {name!r}: its sandbox names {str(path)!r}, which is not there"
        )
    found = _absolute(path)
    # A link in a project is its author's, and a root is checked nowhere else.
    if is_never_given(found) or is_never_given(Path(os.path.realpath(found))):
        raise Misconfigured(
            f"the server {name!r}: {shown_path(found)!r} cannot be given to a sandbox"
        )
    return found


def _program(command: str, search: str, start: Path) -> Path | None:
    if os.path.dirname(command):
        path = _absolute(start / command)
        return path if os.access(path, os.X_OK) and os.path.isfile(path) else None
    found = shutil.which(command, path=search)
    return None if found is None else _absolute(Path(found))


def _system(place: str) -> Sequence[str]:
    """The bind of one of the system's paths, or the link that it is."""
    if os.path.islink(place) and not place.startswith("/etc/"):
        return ("--symlink", os.readlink(place), place)
    return ("--ro-bind-try", os.path.realpath(place), place)


def _program_paths(program: Path) -> list[Path]:
    """What has to be there for a program outside of the system's folders to run.

    Itself, what its links lead to, the libraries of where it is installed, and the interpreter
    that its first line names. All of this is shown without being named, and may be a stranger's:
    so a folder is one of programs by its own name, libraries lie beside it and not behind a link,
    and an interpreter can be run.
    """
    found: list[Path] = []
    waiting = [program]
    # Links and first lines together, so that no ring of them goes round for ever.
    for _ in range(_MOST_LINKS):
        if not waiting:
            break
        path = waiting.pop()
        if path in found:
            continue
        found.append(path)
        folder = path.parent
        if folder.name == "bin" == Path(os.path.realpath(folder)).name:
            beside = [folder.parent / one for one in _BESIDE_BIN]
            beside = [one for one in beside if one.exists() and _leads_into(one, folder.parent)]
            found += [folder, *(one for one in beside if one not in found)]
        if path.is_symlink():
            waiting.append(_absolute(folder / os.readlink(path)))
        real = Path(os.path.realpath(path))
        if real != path:
            waiting.append(real)
        interpreter = _interpreter(path)
        if (
            interpreter is not None
            and os.path.isfile(interpreter)
            and os.access(interpreter, os.X_OK)
        ):
            waiting.append(interpreter)
    return [path for path in dict.fromkeys(found) if not _is_system(path)]


def _is_system(path: Path) -> bool:
    return any(path.is_relative_to(one) for one in _SYSTEM)


def _interpreter(path: Path) -> Path | None:
    try:
        with path.open("rb") as file:
            # 256 bytes: no kernel reads a longer first line.
            first = file.read(256).partition(b"\n")[0]
    except OSError:
        return None
    words = first[2:].split() if first.startswith(b"#!") else []
    if not words or not words[0].startswith(b"/"):
        return None
    return _absolute(Path(os.fsdecode(words[0])))
