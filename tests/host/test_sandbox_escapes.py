"""What an attacker in a sandbox would try next: each way out, by a real process."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dragoman
from dragoman.client.config import ServerEntry
from dragoman.errors import Misconfigured
from dragoman.host.config import load_servers
from dragoman.host.identity import identity_of
from dragoman.host.sandbox import Root, Sandbox, confine, find_bubblewrap
from tests.host.confined import child, needs_bubblewrap
from tests.support import run

pytestmark = needs_bubblewrap


def told_by(code: str, **given: Any) -> Any:
    """What a confined process tells."""

    async def main() -> Any:
        async with child(code, **given) as found:
            return await found.told()

    return run(main())


def test_the_machines_settings_are_not_to_be_written_not_even_by_root() -> None:
    told = told_by(
        """
        paths = ("sys/kernel/core_pattern", "sys/kernel/modprobe", "sysrq-trigger",
            "irq/default_smp_affinity", "sys/kernel/hostname", "sys/vm/drop_caches")
        tell(opened=[one for one in paths if type(attempt(open, f"/proc/{one}", "a")) is not str])
        """
    )
    assert told == {"opened": []}


def test_no_namespace_is_made_in_which_it_would_have_capabilities() -> None:
    if b"--disable-userns" not in Path(find_bubblewrap()).read_bytes():
        pytest.skip("this bubblewrap cannot forbid it")
    told = told_by(
        """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        tell(made=[libc.unshare(flag) for flag in (0x10000000, 0x20000, 0x40000000)])
        """
    )
    assert told == {"made": [-1, -1, -1]}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of the calls are others")
def test_the_keys_of_the_users_session_are_not_read() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    mine = -3
    key = libc.syscall(248, b"user", b"dragoman-canary", b"s3cret", 6, mine)
    if key < 0:
        pytest.skip("there are no keyrings here")
    code = f"""
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    text = ctypes.create_string_buffer(64)
    found = libc.syscall(250, 10, {mine}, b"user", b"dragoman-canary", 0)
    tell(found=found, read=libc.syscall(250, 11, {key}, text, 64), text=text.value.decode())
    """
    try:
        assert told_by(code) == {"found": -1, "read": -1, "text": ""}
    finally:
        libc.syscall(250, 21, key)


def test_nothing_of_the_users_session_is_there_to_talk_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent of ssh, the session's bus, the display: not their sockets, not their names."""
    for name in ("SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "XAUTHORITY"):
        monkeypatch.setenv(name, "/tmp/canary")
    abstract = f"\0dragoman-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listening, open(os.devnull) as leaked:
        listening.bind(abstract)
        listening.listen()
        os.set_inheritable(leaked.fileno(), True)
        told = told_by(
            f"""
            def connect(where):
                with socket.socket(socket.AF_UNIX) as far:
                    far.connect(where)
            tell(
                environ=sorted(os.environ),
                first=open("/proc/1/environ").read(),
                abstract=attempt(connect, {abstract!r}),
                places=[one for one in ("/run", "/var", "/tmp/.X11-unix") if os.path.exists(one)],
                descriptors=sorted(int(one) for one in os.listdir("/proc/self/fd"))[:-1],
                home=os.listdir(os.path.expanduser("~")),
                dev=[one for one in os.listdir("/dev") if one.startswith(("sd", "vd", "mem", "kvm"))],
                node=attempt(os.mknod, "/tmp/node", 0o20666, os.makedev(1, 1)),
                tty=attempt(open, "/dev/tty"),
                temporary=os.environ["TMPDIR"],
            )
            """
        )
    assert "canary" not in str(told)
    assert told["abstract"] == "ConnectionRefusedError"
    assert told["places"] == told["dev"] == []
    assert [one for one in told["home"] if one not in (*Path(sys.executable).parts, ".pyenv")] == []
    assert told["descriptors"] == [0, 1, 2]
    assert told["node"] == "PermissionError"
    assert told["tty"] == "OSError"
    assert told["temporary"] == "/tmp"


def test_it_ends_nobody_but_itself() -> None:
    """All that it may signal: its own group has its supervisor in it, and nobody else of ours."""

    async def main() -> None:
        for signal in (
            "os.kill(-1, 9)",
            "os.killpg(0, 9)",
            "os.kill(1, 9); os.kill(os.getppid(), 9)",
        ):
            async with child(f"tell(up=True); {signal}; tell(alive=True)") as found:
                assert await found.told() == {"up": True}
                await (found.told() if "kill(1" in signal else found.exit_code())

    run(main())


def test_no_way_leads_from_one_folder_into_another(tmp_path: Path) -> None:
    """Links, hard ones included, devices and programs that are another user's."""
    for name in ("ro", "rw"):
        (tmp_path / name).mkdir()
    (tmp_path / "ro" / "f").write_text("ro")
    (tmp_path / "secret").write_text("s3cret")
    (tmp_path / "rw" / "out").symlink_to(tmp_path / "secret")
    ro, rw = str(tmp_path / "ro"), str(tmp_path / "rw")
    told = told_by(
        f"""
        os.symlink({str(tmp_path)!r}, {rw!r} + "/up")
        tell(
            hard=attempt(os.link, {ro!r} + "/f", {rw!r} + "/f"),
            moved=attempt(os.rename, {ro!r} + "/f", {rw!r} + "/f"),
            mode=attempt(os.chmod, {ro!r} + "/f", 0o777),
            out=attempt(open, {rw!r} + "/out"),
            up=sorted(os.listdir({rw!r} + "/up")),
            flags=[os.statvfs(one).f_flag & 6 for one in ("/", "/usr", {ro!r}, {rw!r})],
            mount=attempt(os.rename, {rw!r}, {rw!r} + "2"),
        )
        """,
        roots=(Root(tmp_path / "ro"), Root(tmp_path / "rw", is_writable=True)),
    )
    assert told["hard"] == told["moved"] == told["mode"] == told["mount"] == "OSError"
    assert told["out"] == "FileNotFoundError"
    assert told["up"] == ["ro", "rw"]
    # Neither devices nor a setuid bit mean anything.
    assert told["flags"] == [6, 6, 6, 6]


def test_its_own_settings_and_its_own_program_are_not_for_it_to_write(tmp_path: Path) -> None:
    project = tmp_path / "project"
    settings = project / "deep" / ".vscode" / "mcp.json"
    program = project / "tools" / "here" / "server.py"
    for one in (settings, program):
        one.parent.mkdir(parents=True)
        one.write_text("as it was")
    # In the same folder: what keeps one in its place must not lay the other one open.
    policy = project / "deep" / "policy.json"
    policy.write_text("as it was")
    entry = ServerEntry(name="x", source=settings, command="/bin/sh", args=(str(program),), env={})
    program.write_text(
        f"""
cd {project}
for one in {settings} {program} {policy}; do
    echo changed > $one; rm -f $one; mv $one $one.old; ln -sf /etc/passwd $one
done
mv deep elsewhere; mv deep/.vscode deep/code; mv tools elsewhere; mv tools/here tools/there
rm -rf deep tools
echo changed > new
"""
    )
    before = program.read_text()
    roots = [Root(project, is_writable=True)]
    confined = confine(entry, Sandbox(), roots=roots, guarded=[policy])

    async def main() -> None:
        import asyncio

        line = (confined.command, *confined.args)
        process = await asyncio.create_subprocess_exec(
            *line, env={"PATH": "/usr/bin:/bin"}, stderr=-1
        )
        await process.communicate()

    run(main())
    assert settings.read_text() == "as it was"
    assert policy.read_text() == "as it was"
    assert program.read_text() == before
    # All else in there is for it to write.
    assert (project / "new").exists()


def test_the_code_of_the_host_is_not_for_it_to_write() -> None:
    """Where it lies in a folder of the project: it runs outside when the next server starts."""
    code = Path(dragoman.__file__).parent
    told = told_by(
        f'tell(opened=attempt(open, {str(code / "new")!r}, "w"))',
        roots=[Root(code.parent, is_writable=True)],
    )
    assert told == {"opened": "OSError"}


def test_what_the_host_remembers_is_not_opened_to_it(tmp_path: Path) -> None:
    state = tmp_path / "home" / ".local" / "state" / "dragoman"
    state.mkdir(parents=True)
    (state / "grants.sqlite").write_text("canary")
    (tmp_path / "home" / "notes").write_text("mine")
    home = str(tmp_path / "home")
    told = told_by(
        f"""
        tell(
            state=os.listdir({str(state)!r}),
            notes=open({home!r} + "/notes").read(),
        )
        """,
        sandbox=Sandbox(read=(tmp_path / "home",)),
        guarded=[state],
    )
    assert told == {"state": [], "notes": "mine"}
    entry = ServerEntry(name="x", source=tmp_path / "f", command=sys.executable, env={})
    for path in (state, state.parent, state / "grants.sqlite", tmp_path / "home" / ".local"):
        with pytest.raises(Misconfigured, match="what you have allowed"):
            confine(entry, Sandbox(write=(path,)), guarded=[state])
    with pytest.raises(Misconfigured, match="what you have allowed"):
        confine(entry, Sandbox(read=(state,)), guarded=[state])
    # What is believed when it is there is not for it to put there.
    with pytest.raises(Misconfigured, match="what you have allowed"):
        confine(entry, Sandbox(write=(state.parent,)), guarded=[state.parent / "later"])
    link = tmp_path / "link"
    link.symlink_to(state)
    with pytest.raises(Misconfigured, match="what you have allowed"):
        confine(entry, Sandbox(read=(link,)), guarded=[state])


@pytest.mark.parametrize("how", ["write", "root"])
def test_all_of_the_home_is_not_for_it_to_write(tmp_path: Path, how: str) -> None:
    entry = ServerEntry(name="x", source=tmp_path / "f", command=sys.executable, env={})
    (tmp_path / "home" / "project").mkdir(parents=True)
    environ = {**os.environ, "HOME": str(tmp_path / "home")}
    for path in (tmp_path / "home", tmp_path):
        sandbox = Sandbox(write=(path,)) if how == "write" else Sandbox()
        roots = [] if how == "write" else [Root(path, is_writable=True)]
        with pytest.raises(Misconfigured, match="name the folders in it"):
            confine(entry, sandbox, roots=roots, environ=environ)
    confine(entry, Sandbox(write=(tmp_path / "home" / "project",)), environ=environ)


def test_a_link_that_it_may_change_is_not_followed_out_of_its_folder(tmp_path: Path) -> None:
    """Or it would choose, for its next start, what it is shown."""
    (tmp_path / "rw" / "within").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "rw" / "data").symlink_to(tmp_path / "secret")
    (tmp_path / "rw" / "same").symlink_to(tmp_path / "rw" / "within")
    entry = ServerEntry(name="x", source=tmp_path / "f", command=sys.executable, env={})
    roots = [Root(tmp_path / "rw", is_writable=True)]
    with pytest.raises(Misconfigured, match="name where it leads"):
        confine(entry, Sandbox(read=(tmp_path / "rw" / "data",)), roots=roots)
    with pytest.raises(Misconfigured, match="name where it leads"):
        confine(entry, Sandbox(), roots=[*roots, Root(tmp_path / "rw" / "data")])
    confine(entry, Sandbox(write=(tmp_path / "rw" / "same",)), roots=roots)


def test_a_link_that_leads_elsewhere_than_before_makes_another_server(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "one")
    path = tmp_path / "mcp.json"

    def of(**settings: object) -> list[str]:
        raw = {"command": "run", **settings}
        path.write_text(json.dumps({"mcpServers": {"x": raw}}))
        entry = load_servers(path).servers["x"]
        digests = [identity_of(entry).digest]
        link.unlink()
        link.symlink_to(tmp_path / "two")
        digests.append(identity_of(entry).digest)
        assert str(tmp_path / "two") in str(identity_of(entry).lines)
        link.unlink()
        link.symlink_to(tmp_path / "one")
        return digests

    for settings in (
        {"sandbox": {"read": ["link"]}},
        {"sandbox": {"write": ["link"]}},
        {"sandbox": True, "roots": ["link"]},
    ):
        before, after = of(**settings)
        assert before != after


@pytest.mark.parametrize("path", ["/run", "/run/user", "/run/user/1000", "/var/run", "/run/"])
def test_the_sockets_of_everything_that_runs_here_are_not_given_at_once(
    tmp_path: Path, path: str
) -> None:
    settings = {"command": "run", "sandbox": {"read": [path]}}
    file = tmp_path / "mcp.json"
    file.write_text(json.dumps({"mcpServers": {"x": settings}}))
    with pytest.raises(Misconfigured, match="cannot be given"):
        load_servers(file)


@pytest.mark.parametrize("target", ["/", "/proc", "/proc/self", "/dev", "/sys", "/run"])
@pytest.mark.parametrize("way", ["read", "write", "root", "link as root"])
def test_what_no_sandbox_opens_is_opened_by_no_link_and_as_no_root(
    tmp_path: Path, target: str, way: str
) -> None:
    link = tmp_path / "data"
    link.symlink_to(target)
    sandbox: Any = {way: ["data"]} if way in ("read", "write") else True
    roots = [] if sandbox is not True else [target if way == "root" else "data"]
    file = tmp_path / "mcp.json"
    settings = {"command": sys.executable, "sandbox": sandbox, "roots": roots}
    file.write_text(json.dumps({"mcpServers": {"x": settings}}))
    entry = load_servers(file).servers["x"]
    with pytest.raises(Misconfigured, match="cannot be given to a sandbox"):
        entry.connector(roots=entry.roots)


def _project_with_a_key(tmp_path: Path) -> tuple[Path, Path]:
    """A repository with a program in it, and a key of the user beside it."""
    key = tmp_path / "keys" / "id"
    key.parent.mkdir()
    key.write_text("PRIVATE")
    program = tmp_path / "repository" / "bin" / "server"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\ncd "${0%/*}/.."; cat lib/id pyvenv.cfg 2>/dev/null; echo end')
    program.chmod(0o755)
    return program, key


def _said_by(program: Path) -> str:
    entry = ServerEntry(
        name="x", source=Path("mcp.json"), command=str(program), args=(), env={}, cwd=None
    )
    confined = confine(entry, Sandbox())
    line = [confined.command, *confined.args]
    done = subprocess.run(line, env=dict(confined.env), capture_output=True, timeout=30)
    return done.stdout.decode()


def test_what_a_program_is_made_of_is_nothing_that_links_beside_it_choose(tmp_path: Path) -> None:
    program, key = _project_with_a_key(tmp_path)
    folder = program.parent.parent
    (folder / "lib").symlink_to(key.parent)
    (folder / "pyvenv.cfg").symlink_to(key)
    assert _said_by(program) == "end\n"
    (folder / "lib").unlink()
    (folder / "lib").mkdir()
    (folder / "lib" / "id").write_text("a library\n")
    assert _said_by(program) == "a library\nend\n"


def test_a_first_line_that_names_what_cannot_be_run_shows_nothing(tmp_path: Path) -> None:
    program, key = _project_with_a_key(tmp_path)
    program.write_text(f"#!{key}\n")
    entry = ServerEntry(
        name="x", source=tmp_path / "mcp.json", command=str(program), args=(), env={}, cwd=None
    )
    assert str(key) not in confine(entry, Sandbox()).args


@pytest.mark.parametrize("how", ["alone", "in a root", "in a folder that is a link"])
def test_an_argument_that_looks_like_a_script_shows_no_other_file(tmp_path: Path, how: str) -> None:
    program, key = _project_with_a_key(tmp_path)
    folder = program.parent.parent
    (key.parent / "settings.py").write_text("PASSWORD = 1")
    (folder / "a.py").symlink_to(key)
    (folder / "b").symlink_to(key.parent)
    arg = "b/settings.py" if how.endswith("link") else "a.py"
    file = folder / "mcp.json"
    settings: dict[str, Any] = {"command": "cat", "args": [arg], "sandbox": True, "cwd": "."}
    settings["roots"] = [{"path": ".", "write": True}] if how == "in a root" else ["."]
    file.write_text(json.dumps({"mcpServers": {"x": settings}}))
    entry = load_servers(file).servers["x"]
    with pytest.raises(Misconfigured, match="name it in 'read'"):
        entry.connector(roots=entry.roots)
    settings["sandbox"] = {"read": [arg]}
    file.write_text(json.dumps({"mcpServers": {"x": settings}}))
    named = load_servers(file).servers["x"]
    assert "(which is " in str(identity_of(named))


@pytest.mark.skipif(not os.path.isdir("/etc/ssl/private"), reason="there is no such folder")
def test_the_private_keys_of_the_machine_are_not_shown() -> None:
    assert told_by('tell(keys=os.listdir("/etc/ssl/private"))') == {"keys": []}
