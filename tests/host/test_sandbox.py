"""Confining a server: what a real child in a real sandbox can and cannot do."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dragoman
from dragoman import Client
from dragoman.client.config import ServerEntry
from dragoman.errors import Misconfigured
from dragoman.host.config import HostEntry, load_servers
from dragoman.host.sandbox import Root, Sandbox, confine, find_bubblewrap, read_sandbox
from tests.support import run

SOURCE = Path(dragoman.__file__).parent.parent


def _works() -> bool:
    if sys.platform != "linux" or shutil.which("bwrap") is None:
        return False
    done = subprocess.run(
        ["bwrap", "--unshare-user", "--ro-bind", "/", "/", "true"], capture_output=True, timeout=30
    )
    return done.returncode == 0


needs_bubblewrap = pytest.mark.skipif(not _works(), reason="bubblewrap does not work here")

# Runs the lines it is given, and says what each came to.
PROBE = """
import json, os, socket, sys
found = {}
for name, line in json.loads(sys.argv[1]).items():
    try:
        found[name] = repr(eval(line))
    except OSError as error:
        found[name] = type(error).__name__
print(json.dumps(found))
"""


def probe(
    sandbox: Sandbox,
    lines: dict[str, str],
    *,
    roots: tuple[Root, ...] = (),
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
) -> dict[str, str]:
    """What each of these expressions comes to inside."""
    entry = ServerEntry(
        name="x",
        source=Path("mcp.json"),
        command=sys.executable,
        args=("-I", "-c", PROBE, json.dumps(lines)),
        env=env or {},
        cwd=cwd,
    )
    confined = confine(entry, sandbox, roots=roots)
    done = subprocess.run(
        [confined.command, *confined.args],
        cwd=confined.cwd,
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **(env or {})},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@needs_bubblewrap
def test_a_confined_server_sees_no_file_of_the_user_and_writes_none(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("s3cret")
    outside = tmp_path / "outside.txt"
    found = probe(
        Sandbox(),
        {
            "read": f"open({str(secret)!r}).read()",
            "list": f"os.listdir({str(tmp_path)!r})",
            "write": f"open({str(outside)!r}, 'w').write('x')",
            "system": "open('/usr/written', 'w').write('x')",
            "etc": "open('/etc/written', 'w').write('x')",
            "shadow": "open('/etc/shadow').read()",
            "home": "os.listdir(os.path.expanduser('~'))",
            "tmp": "open('/tmp/own', 'w').write('x')",
            "tmp_is_private": "sorted(os.listdir('/tmp'))",
        },
    )
    assert found["read"] == found["list"] == "FileNotFoundError"
    assert found["write"] == "FileNotFoundError"
    assert found["system"] == "OSError"
    assert found["shadow"] == "FileNotFoundError"
    assert "s3cret" not in str(found)
    assert found["tmp"] == "1"
    assert "own" in found["tmp_is_private"]
    assert not Path("/tmp/own").exists()
    assert not outside.exists()
    assert not Path("/etc/written").exists()


@needs_bubblewrap
def test_a_confined_server_reaches_nobody_unless_it_declares_the_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connect = f"socket.create_connection(('127.0.0.1', {listening.getsockname()[1]}), 5)"
        assert probe(Sandbox(), {"connect": connect})["connect"] == "ConnectionRefusedError"
        assert "socket" in probe(Sandbox(has_network=True), {"connect": connect})["connect"]


@needs_bubblewrap
def test_a_confined_server_sees_no_process_but_its_own() -> None:
    canary = subprocess.Popen([sys.executable, "-c", "input()", "canary-of-the-test"], stdin=-1)
    try:
        assert canary.stdin is not None
        found = probe(
            Sandbox(),
            {
                "numbers": "sorted(int(one) for one in os.listdir('/proc') if one.isdigit())",
                "lines": "[open(f'/proc/{one}/cmdline').read() for one in os.listdir('/proc')"
                " if one.isdigit()]",
                "signal": f"os.kill({canary.pid}, 0)",
            },
        )
        assert canary.poll() is None
    finally:
        canary.communicate(b"\n")
    assert len(json.loads(found["numbers"])) <= 3
    assert "canary-of-the-test" not in found["lines"]
    assert found["signal"] == "ProcessLookupError"


@needs_bubblewrap
def test_roots_and_paths_are_there_as_they_were_declared(tmp_path: Path) -> None:
    for name in ("ro", "rw", "data", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    sandbox = Sandbox(read=(tmp_path / "data",), write=(tmp_path / "out",))
    roots = (Root(tmp_path / "ro"), Root(tmp_path / "rw", is_writable=True))
    lines = {name: f"open({str(tmp_path / name / 'f')!r}).read()" for name in ("ro", "rw", "data")}
    lines |= {
        f"write {name}": f"open({str(tmp_path / name / 'new')!r}, 'w').write('x')"
        for name in ("ro", "rw", "data", "out")
    }
    found = probe(sandbox, {**lines, "cwd": "os.getcwd()"}, roots=roots, cwd=tmp_path / "rw")
    assert [found[name] for name in ("ro", "rw", "data")] == ["'ro'", "'rw'", "'data'"]
    assert found["write ro"] == found["write data"] == "OSError"
    assert found["write rw"] == found["write out"] == "1"
    assert found["cwd"] == repr(str(tmp_path / "rw"))


@needs_bubblewrap
def test_a_link_out_of_a_root_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret").write_text("s3cret")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "secret")
    link = str(tmp_path / "root" / "link")
    found = probe(Sandbox(), {"read": f"open({link!r}).read()"}, roots=(Root(tmp_path / "root"),))
    assert found["read"] == "FileNotFoundError"


@needs_bubblewrap
def test_the_environment_is_handed_on_and_stands_in_no_command_line(tmp_path: Path) -> None:
    entry = ServerEntry(
        name="x", source=tmp_path, command=sys.executable, env={"TOKEN": "canary-token"}
    )
    confined = confine(entry, Sandbox())
    assert "canary-token" not in " ".join(confined.args)
    found = probe(Sandbox(), {"env": "os.environ.get('TOKEN')"}, env={"TOKEN": "canary-token"})
    assert found["env"] == "'canary-token'"


@needs_bubblewrap
def test_shell_characters_in_arguments_are_inert(tmp_path: Path) -> None:
    entry = ServerEntry(
        name="x",
        source=tmp_path,
        command=sys.executable,
        args=("-c", "import sys; print(sys.argv[1:])", "$(touch /tmp/x)", "; id", "--bind"),
        env={},
    )
    confined = confine(entry, Sandbox())
    done = subprocess.run([confined.command, *confined.args], capture_output=True, text=True)
    assert done.stdout.strip() == "['$(touch /tmp/x)', '; id', '--bind']"


@needs_bubblewrap
def test_what_steers_the_loader_does_not_steer_bubblewrap(tmp_path: Path) -> None:
    entry = ServerEntry(
        name="x",
        source=tmp_path,
        command=sys.executable,
        args=("-I", "-c", "import os; print(os.environ['LD_PRELOAD'], os.environ['A'])"),
        env={"LD_PRELOAD": "/nowhere.so", "A": "1"},
    )
    confined = confine(entry, Sandbox())
    assert confined.env == {"A": "1", "TMPDIR": "/tmp"}
    done = subprocess.run(
        [confined.command, *confined.args], env=confined.env, capture_output=True, text=True
    )
    assert done.stdout.strip() == "/nowhere.so 1"


SERVER = """
import os
from dragoman import Server

server = Server("confined")

@server.tool
def look(path: str) -> str:
    "Read a file."
    try:
        return open(path).read()
    except OSError as error:
        return type(error).__name__

server.run()
"""


def confined_server(tmp_path: Path) -> HostEntry:
    """A real server of ours, confined to its root `data`."""
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "f").write_text("within")
    (tmp_path / "secret").write_text("s3cret")
    path = tmp_path / "mcp.json"
    settings = {
        "command": sys.executable,
        "args": [str(script)],
        "roots": ["data"],
        "sandbox": {"read": [str(SOURCE)]},
    }
    path.write_text(json.dumps({"mcpServers": {"x": settings}}))
    return load_servers(path).servers["x"]


@needs_bubblewrap
def test_a_confined_server_is_called_like_any_other_and_leaves_no_process(tmp_path: Path) -> None:
    entry = confined_server(tmp_path)

    async def main() -> None:
        async with Client(entry.connector(roots=entry.roots)) as client:
            assert len(processes_with(str(tmp_path / "server.py"))) >= 1
            inside = await client.call_tool("look", {"path": str(tmp_path / "data" / "f")})
            outside = await client.call_tool("look", {"path": str(tmp_path / "secret")})
            # Nothing to type into: it has no terminal.
            terminal = await client.call_tool("look", {"path": "/dev/tty"})
        assert "within" in str(inside)
        assert "FileNotFoundError" in str(outside)
        assert "OSError" in str(terminal)

    run(main())
    assert processes_with(str(tmp_path / "server.py")) == []


@needs_bubblewrap
def test_a_confined_server_dies_with_its_host(tmp_path: Path) -> None:
    confined_server(tmp_path)
    host = f"""
import asyncio
from dragoman import Client
from dragoman.host.config import HostEntry, load_servers

async def main():
    entry = load_servers({str(tmp_path / "mcp.json")!r}).servers["x"]
    async with Client(entry.connector(roots=entry.roots)) as client:
        await client.list_tools()
        print("up", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
    process = subprocess.Popen([sys.executable, "-c", host], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        watched = processes_with(str(tmp_path / "server.py"))
        assert watched
        ended = [os.pidfd_open(pid) for pid in watched]
    finally:
        process.kill()
        process.communicate()
    for descriptor in ended:
        # Readable when that process has ended.
        assert select.select([descriptor], [], [], 10.0)[0]
        os.close(descriptor)


def processes_with(word: str) -> list[int]:
    """The processes that have a word in their command line."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                line = Path("/proc", name, "cmdline").read_text()
            except OSError:
                continue
            if word in line:
                found.append(int(name))
    return found


def test_a_sandbox_that_cannot_be_had_is_an_error_and_nothing_starts(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="bubblewrap"):
        find_bubblewrap({"PATH": str(tmp_path)})
    path = tmp_path / "mcp.json"
    marker = tmp_path / "ran"
    settings = {"command": "/usr/bin/touch", "args": [str(marker)], "sandbox": True}
    path.write_text(json.dumps({"mcpServers": {"x": settings}}))
    with pytest.raises(Misconfigured, match="bubblewrap"):
        load_servers(path).servers["x"].connector(environ={"PATH": str(tmp_path)})
    assert not marker.exists()


@needs_bubblewrap
def test_an_argument_that_can_be_no_path_is_no_script(tmp_path: Path) -> None:
    args = ("x" * 5000 + ".py", "..py", str(tmp_path / "none.py"))
    entry = ServerEntry(name="x", source=tmp_path, command=sys.executable, args=args, env={})
    assert confine(entry, Sandbox()).args[-3:] == args


@needs_bubblewrap
def test_what_is_not_there_is_named_before_anything_starts(tmp_path: Path) -> None:
    entry = ServerEntry(name="x", source=tmp_path, command="no-such-program", env={})
    with pytest.raises(Misconfigured, match="no-such-program"):
        confine(entry, Sandbox())
    entry = ServerEntry(name="x", source=tmp_path, command=sys.executable, env={})
    with pytest.raises(Misconfigured, match="nowhere"):
        confine(entry, Sandbox(read=(tmp_path / "nowhere",)))
    outside = ServerEntry(name="x", source=tmp_path, command=sys.executable, env={}, cwd=tmp_path)
    with pytest.raises(Misconfigured, match="'read' or 'write'"):
        confine(outside, Sandbox())


def _fault(at: tuple[str | int, ...], text: str) -> Misconfigured:
    return Misconfigured(f"{at}: {text}")


def _plain(text: str, at: tuple[str | int, ...]) -> str:
    return text


@pytest.mark.parametrize(
    "settings",
    [
        1,
        "yes",
        {"netwrk": True},
        {"network": "yes"},
        {"network": ["example.com"]},
        {"read": "x"},
        {"read": [1]},
        {"write": [""]},
        {"write": ["/"]},
        {"read": ["/proc/1"]},
        {"read": ["x/../../../../../../../../.."]},
    ],
)
def test_a_sandbox_that_makes_no_sense_is_a_fault(settings: Any) -> None:
    with pytest.raises(Misconfigured):
        read_sandbox(settings, Path("/srv/app"), _fault, _plain)


def test_a_sandbox_is_read_with_its_paths_from_the_projects_folder() -> None:
    folder = Path("/srv/app")
    assert read_sandbox(None, folder, _fault, _plain) is None
    assert read_sandbox(False, folder, _fault, _plain) is None
    assert read_sandbox(True, folder, _fault, _plain) == Sandbox()
    found = read_sandbox(
        {"network": True, "read": ["data", "/opt/x"], "write": ["../out"]}, folder, _fault, _plain
    )
    assert found == Sandbox(
        has_network=True, read=(folder / "data", Path("/opt/x")), write=(Path("/srv/out"),)
    )
    assert str(found) == "confined: network, reads /srv/app/data, reads /opt/x, writes /srv/out"
