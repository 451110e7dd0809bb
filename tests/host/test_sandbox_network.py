"""A confined server with a list of hosts: real processes, a real network, a real gatekeeper."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dragoman.errors import CannotStart
from dragoman.host.sandbox import connector
from dragoman.host.sandbox.gatekeeper import GateLimits
from tests.host.confined import child, descriptors, needs_bubblewrap, origin, reach_of
from tests.support import run

pytestmark = needs_bubblewrap

HERE = ipaddress.ip_address("127.0.0.1")


def test_a_listed_address_is_reached_by_a_program_that_knows_no_proxy_and_by_one_that_does() -> (
    None
):
    async def main() -> None:
        async with origin() as server:
            code = f"""
            direct = urllib.request.urlopen("http://127.0.0.1:{server.port}/a")
            named = urllib.request.urlopen("http://localhost:{server.port}/b")
            asked = b"GET http://localhost:{server.port}/c?d=1 HTTP/1.1\\r\\nA: b\\r\\n\\r\\n"
            tell(said=[direct.read().decode(), named.read().decode(), proxied(asked)])
            tell(said=tunnel("127.0.0.1:{server.port}"))
            """
            async with child(code, f"localhost:{server.port}") as found:
                direct, named, proxied = (await found.told())["said"]
                assert direct == named == "hello"
                assert proxied.startswith("HTTP/1.1 200 OK\r\n")
                assert proxied.endswith("\r\n\r\nhello")
                assert (await found.told())["said"] == "HTTP/1.1 200 Connection established"
                assert await found.exit_code() == 0
                assert found.refused == []
            assert server.heard[2].startswith(
                f"GET /c?d=1 HTTP/1.1\r\nHost: localhost:{server.port}\r\n".encode()
            )

    run(main())


def test_nothing_else_is_reached_and_the_host_hears_of_what_was_asked() -> None:
    async def main() -> None:
        async with origin() as server, origin() as other:
            code = f"""
            def connect(host, port):
                socket.create_connection((host, port), 5).close()
            def ask_dns():
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
                    udp.sendto(b"x", ("1.1.1.1", 53))
            tell(
                port=attempt(connect, "127.0.0.1", {other.port}),
                address=attempt(connect, "1.1.1.1", 443),
                metadata=attempt(connect, "169.254.169.254", 80),
                v6=attempt(connect, "2606:4700:4700::1111", 443),
                dns=attempt(ask_dns),
                name=attempt(socket.getaddrinfo, "example.com", 443),
                interfaces=[one[1] for one in socket.if_nameindex()],
            )
            tell(**{{one: tunnel(one) for one in (
                "127.0.0.1:{other.port}", "example.com:443", "1.1.1.1:443", "169.254.169.254:80",
                "[::ffff:127.0.0.1]:{other.port}", "2130706433:{server.port}", "0:{server.port}",
                "127.1:{server.port}", "[fe80::1%25lo]:80", "x@127.0.0.1:{server.port}",
            )}})
            """
            async with child(code, f"127.0.0.1:{server.port}") as found:
                direct = await found.told()
                asked = await found.told()
                await found.exit_code()
            assert direct == {
                "port": "ConnectionRefusedError",
                "address": "OSError",
                "metadata": "OSError",
                "v6": "OSError",
                "dns": "OSError",
                "name": "gaierror",
                "interfaces": ["lo"],
            }
            refused = {one for one, said in asked.items() if said == "HTTP/1.1 403 Forbidden"}
            unread = {one for one, said in asked.items() if said == "HTTP/1.1 400 Bad Request"}
            assert refused | unread == set(asked)
            assert refused == {
                f"127.0.0.1:{other.port}",
                "example.com:443",
                "1.1.1.1:443",
                "169.254.169.254:80",
                f"[::ffff:127.0.0.1]:{other.port}",
            }
            assert other.heard == server.heard == []
            assert any("169.254.169.254:80" in one for one in found.refused)
            assert any("example.com:443" in one for one in found.refused)

    run(main())


def test_a_listed_name_leads_where_the_host_resolves_it_and_not_into_this_machine() -> None:
    async def main() -> None:
        async with origin() as server:
            port = server.port
            # One of them leads to an address that is listed itself.
            names = {"api.test": [HERE], "evil.test": [HERE], "a.wide.test": [HERE]}
            code = f"""
            def fetch(host, port):
                with socket.create_connection((host, port), 5) as far:
                    far.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
                    return far.recv(8192).decode()[:12]
            tell(
                name=attempt(fetch, "api.test", {port}),
                low=attempt(fetch, "evil.test", 443),
                proxied=tunnel("evil.test:443"),
                below=tunnel("A.Wide.Test.:{port}"),
                above=tunnel("wide.test:{port}"),
                beside=tunnel("awide.test:{port}"),
                lost=tunnel("b.wide.test:{port}"),
            )
            """
            listed = (f"api.test:{port}", "evil.test:443", f"*.wide.test:{port}")
            async with child(code, *listed, f"127.0.0.1:{port}", names=names) as found:
                told = await found.told()
                await found.exit_code()
            assert told["name"] == "HTTP/1.1 200"
            assert told["low"] in ("ConnectionResetError", "")
            assert told["proxied"] == "HTTP/1.1 403 Forbidden"
            assert told["below"] == "HTTP/1.1 200 Connection established"
            assert told["above"] == told["beside"] == "HTTP/1.1 403 Forbidden"
            assert told["lost"] == "HTTP/1.1 502 Bad Gateway"
            assert any("evil.test:443, which leads to 127.0.0.1" in one for one in found.refused)

    run(main())


def test_socks_is_spoken_on_the_same_port() -> None:
    async def main() -> None:
        async with origin() as server:
            code = f"""
            def socks(kind, where, port):
                hello = bytes([5, 1, 0])
                asked = bytes([5, 1, 0, kind]) + where + struct.pack(">H", port)
                return proxied(hello, asked, until=b"\\x00" * 6)[1]
            name = b"localhost"
            tell(
                name=ord(socks(3, bytes([len(name)]) + name, {server.port})),
                address=ord(socks(1, socket.inet_aton("127.0.0.1"), {server.port})),
                refused=ord(socks(1, socket.inet_aton("1.1.1.1"), 443)),
                mapped=ord(socks(4, socket.inet_pton(10, "::ffff:1.1.1.1"), 443)),
            )
            """
            async with child(code, f"localhost:{server.port}") as found:
                told = await found.told()
            assert told == {"name": 0, "address": 0, "refused": 2, "mapped": 2}

    run(main())


def _ignored() -> int:
    """The signals that this process ignores, as bits; nohup begins with one."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("SigIgn:")[2].split()[0], 16)


def test_a_server_gets_what_it_would_get_without_the_list_and_its_proxy() -> None:
    """Its streams, its exit code, its environment, no descriptor and no process besides."""

    async def main() -> None:
        code = """
        mask = [one for one in open("/proc/self/status") if one.startswith(("Sig", "Cap", "NoNew"))]
        here = [one for one in os.listdir("/proc") if one.isdigit()]
        tell(
            heard=json.loads(sys.stdin.readline()),
            environ=dict(os.environ),
            descriptors=sorted(os.readlink(f"/proc/self/fd/{one}") for one in (0, 1, 2)),
            more=[one for one in os.listdir("/proc/self/fd") if int(one) > 3],
            processes=len(here),
            mask=mask,
            door=[one for one in os.listdir("/tmp") if one.startswith("dragoman")],
            hosts=open("/etc/hosts").read().split(),
        )
        os._exit(7)
        """
        async with child(code, "api.test:443", env={"A": "1", "http_proxy": "x"}) as found:
            found.link.send(b'{"said": 1}')
            told = await found.told()
            assert await found.exit_code() == 7
        assert told["heard"] == {"said": 1}
        environ = told["environ"]
        assert environ["A"] == "1"
        assert environ["http_proxy"] == environ["HTTPS_PROXY"] == environ["ALL_PROXY"]
        assert environ["NO_PROXY"] == "localhost,127.0.0.1,::1"
        assert not {"LC_CTYPE", "SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS"} & set(environ)
        assert all(one.startswith("pipe:") for one in told["descriptors"])
        assert told["more"] == []
        # bubblewrap's first process, and this one.
        assert told["processes"] == 2
        masks = dict(one.split(":\t") for one in told["mask"])
        # An interpreter ignores these two itself; what else is ignored here is there as well.
        assert int(masks["SigIgn"], 16) == _ignored() | 0x1001000
        assert int(masks["SigBlk"], 16) == 0
        assert {int(value, 16) for name, value in masks.items() if name.startswith("Cap")} == {0}
        assert int(masks["NoNewPrivs"]) == 1
        assert told["door"] == []
        assert told["hosts"][-2:] == ["127.64.0.2", "api.test"]

    run(main())


def test_the_door_is_opened_by_the_process_that_was_started_and_by_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    async def main() -> None:
        async with child("tell(up=True); sys.stdin.read()", "api.test:443") as found:
            (door,) = tmp_path.glob("dragoman-*/d")
            assert door.parent.stat().st_mode & 0o777 == 0o700
            # Before the process has come: it is somebody else who asks.
            reader, writer = await asyncio.open_unix_connection(str(door))
            assert await reader.read() == b""
            writer.close()
            assert await found.told() == {"up": True}
            # It is shut for good, and nothing is left of it.
            assert not door.parent.exists()

    run(main())


def test_a_server_that_is_killed_leaves_no_process_no_connection_and_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    async def main() -> None:
        async with origin() as server:
            server.body = bytes(64 * 1024 * 1024)
            code = f"""
            if os.fork() == 0:
                signal.pause()
            far = urllib.request.urlopen("http://localhost:{server.port}/")
            tell(read=len(far.read(65536)))
            signal.pause()
            """
            before = descriptors()
            async with child(code, f"localhost:{server.port}") as found:
                assert (await found.told())["read"] == 65536
                started = found.link.pid
                group = members_of(started)
                # Its supervisor, the first process of the sandbox, the server and what it started.
                assert len(group) == 4
                os.kill(group[-1], 9)
                os.kill(group[-2], 9)
                assert await found.exit_code() == 128 + 9
            assert members_of(started) == []
            await server.over.wait()
            assert server.sent < len(server.body)
            assert found.gatekeepers[0].carried == 0
            assert descriptors() <= before
            assert list(tmp_path.iterdir()) == []

    run(main())


@pytest.mark.skipif(
    b"default-signal" not in Path("/usr/bin/env").read_bytes(), reason="env resets no signal"
)
@pytest.mark.parametrize("listed", [(), ("api.test:443",)])
def test_a_server_that_is_told_to_end_may_put_things_in_order(listed: tuple[str, ...]) -> None:
    async def main() -> None:
        orderly = """
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        tell(up=True)
        signal.sigwait({signal.SIGTERM})
        tell(ended=True)
        os._exit(5)
        """
        async with child(orderly, *listed) as found:
            assert await found.told() == {"up": True}
            os.killpg(found.link.pid, 15)
            assert await found.told() == {"ended": True}
            assert await found.exit_code() == 5
        # One that knows nothing of it ends as it would anywhere.
        async with child("tell(up=True); signal.pause()", *listed) as found:
            await found.told()
            os.killpg(found.link.pid, 15)
            assert await found.exit_code() == 128 + 15

    run(main())


def members_of(group: int) -> list[int]:
    """The living processes of a group."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(stat[2]) == group and stat[0] not in "ZX":
                found.append(int(name))
    return sorted(found)


def test_a_hundred_connections_at_once_are_all_served() -> None:
    async def main() -> None:
        async with origin() as server:
            server.body = bytes(100_000)
            code = f"""
            done = []
            start = threading.Barrier(100)
            def work(number):
                start.wait()
                where = "http://127.0.0.1:{server.port}/"
                done.append(len(urllib.request.urlopen(where).read()))
            threads = [threading.Thread(target=work, args=(one,)) for one in range(100)]
            [one.start() for one in threads]
            [one.join() for one in threads]
            tell(done=done)
            """
            async with child(code, f"127.0.0.1:{server.port}") as found:
                assert (await found.told())["done"] == [100_000] * 100
                await found.exit_code()
            assert found.gatekeepers[0].carried == 0

    run(main())


@pytest.mark.long
def test_a_slow_reader_holds_up_its_sender_and_not_the_host() -> None:
    async def main() -> None:
        async with origin() as server:
            server.body = bytes(256 * 1024 * 1024)
            code = f"""
            far = urllib.request.urlopen("http://127.0.0.1:{server.port}/")
            far.read(65536)
            tell(slow=True)
            sys.stdin.readline()
            rest = 0
            while chunk := far.read(1 << 20):
                rest += len(chunk)
            tell(rest=rest)
            """
            async with child(code, f"127.0.0.1:{server.port}") as found:
                await found.told()
                await server.stalled.wait()
                # What the kernel's four buffers and ours hold.
                assert server.sent < 64 * 1024 * 1024
                found.link.send(b"{}")
                assert (await found.told())["rest"] == len(server.body) - 65536

    run(main())


def test_who_asks_for_nothing_is_sent_away() -> None:
    async def main() -> None:
        code = """
        silent = socket.create_connection((PROXY[0], int(PROXY[2])))
        tell(said=attempt(silent.recv, 100) in (b"", "ConnectionResetError"))
        half = socket.create_connection((PROXY[0], int(PROXY[2])))
        half.sendall(b"CONNECT x:1 HTTP/1.1\\r\\n" + b"a: b\\r\\n" * 20000)
        tell(said=(attempt(half.recv, 100) or b"")[:12] in (b"HTTP/1.1 431", "ConnectionRe"))
        """
        async with child(code, "a.test:1", limits=GateLimits(ask_s=0.2)) as found:
            assert (await found.told())["said"] is True
            assert (await found.told())["said"] is True

    run(main())


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_takes_the_way_it_is_told() -> None:
    async def main() -> None:
        async with origin() as server:
            code = f"""
            import subprocess
            def curl(where):
                line = ["curl", "-sS", "--max-time", "10", "-o", "-", "-w", "%{{http_code}}", where]
                done = subprocess.run(line, capture_output=True, text=True)
                return done.stdout + done.stderr
            tell(
                listed=curl("http://api.test:{server.port}/"),
                below=curl("http://x.wide.test:{server.port}/"),
                other=curl("http://other.test/"),
                secure=curl("https://other.test/"),
            )
            """
            names = {"api.test": [HERE], "x.wide.test": [HERE]}
            listed = [f"{one}:{server.port}" for one in ("api.test", "*.wide.test", "127.0.0.1")]
            async with child(code, *listed, names=names) as found:
                told = await found.told()
            assert told["listed"] == told["below"] == "hello200"
            assert told["other"].endswith("403")
            assert "403" in told["secure"]

    run(main())


@pytest.mark.skipif(
    sys.platform != "linux" or not Path("/usr/bin/node").exists(), reason="there is no node"
)
@pytest.mark.long
def test_node_reaches_a_listed_name_though_it_knows_of_no_proxy() -> None:
    async def main() -> None:
        async with origin() as server:
            code = f"""
            import subprocess
            script = "fetch(process.argv[1]).then(r => r.text()).then(console.log, e => " \\
                "console.log(e.cause ? e.cause.code : e))"
            def node(where):
                line = ["/usr/bin/node", "-e", script, where]
                return subprocess.run(line, capture_output=True, text=True).stdout.strip()
            tell(listed=node("http://api.test:{server.port}/"), other=node("http://other.test/"))
            """
            names = {"api.test": [HERE]}
            listed = [f"api.test:{server.port}", f"127.0.0.1:{server.port}"]
            async with child(code, *listed, names=names) as found:
                told = await found.told()
            assert told["listed"] == "hello"
            assert told["other"] != "hello"

    run(main())


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        ({"listen": [("127.0.0.1", 81), ("127.0.0.1", 81)]}, "127.0.0.1 port 81"),
        ({"listen": [("127.0.0.1", 81)], "argv": ["/no/such/bwrap"]}, "No such file"),
        ({"addresses": ["nowhere"]}, "illegal IP address"),
        (None, "the host has closed the door"),
    ],
)
def test_a_network_that_cannot_be_made_is_said_and_nothing_is_started(
    tmp_path: Path, plan: dict[str, object] | None, why: str
) -> None:
    marker = tmp_path / "ran"
    whole = {"addresses": [], "listen": [], "hosts": "", "at": 1, "env": {}}
    whole |= {"argv": ["/bin/touch", str(marker)], **(plan or {})}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if plan is not None:
            writer.write(json.dumps(whole).encode() + b"\n")
            if await reader.read(1):
                writer.write(b"G")
        writer.close()

    async def main() -> None:
        async with await asyncio.start_unix_server(serve, tmp_path / "d"):
            launch = Path(connector.__file__).with_name("launch.py")
            line = (sys.executable, "-I", "-S", str(launch), str(tmp_path / "d"))
            process = await asyncio.create_subprocess_exec(*line, stderr=-1)
            _, said = await process.communicate()
            assert process.returncode == 1
            assert said.startswith(b"dragoman: the sandbox cannot be made: ")
            assert why in said.decode()
            assert said.count(b"\n") == 1
            assert not marker.exists()

    run(main())


def test_without_its_interpreter_nothing_is_left_of_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    async def main() -> None:
        python = sys.executable
        monkeypatch.setattr(sys, "executable", "/no/such/python")
        with pytest.raises(CannotStart):
            async with child("", "api.test:443", program=python):
                raise AssertionError("it was started")
        # One that never comes to the door: the end of the link is the end of all.
        monkeypatch.setattr(sys, "executable", "/bin/false")
        async with child("", "api.test:443", program=python) as found:
            assert await found.exit_code() == 1
        assert list(tmp_path.iterdir()) == []

    run(main())


def test_sockets_that_are_not_those_that_were_asked_for_are_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = sys.executable
    stranger = tmp_path / "stranger"
    stranger.write_text(
        f"""#!{python}
import socket, sys
kind, door = {str(tmp_path)!r}, sys.argv[-1]
channel = socket.socket(socket.AF_UNIX)
channel.connect(door)
channel.recv(1 << 20)
with open(kind + "/how") as how:
    given = [eval(one) for one in how.read().splitlines()]
socket.send_fds(channel, [b"L"], [one.fileno() for one in given])
print('{{"answer": "' + channel.recv(1).decode() + '"}}', flush=True)
"""
    )
    stranger.chmod(0o755)
    right = "socket.create_server(('127.64.0.1', 0))"

    async def main() -> None:
        for how in (
            [right],
            [right, "socket.socket()"],
            [right, "open('/dev/null')"],
            [right, "socket.create_server(('127.0.0.1', 0))"],
            [right, "socket.create_server(('127.64.0.2', 0))"],
            [right, "(lambda s: s.bind(chr(0) + 'x') or s.listen() or s)(socket.socket(1))"],
            [right, right, right],
        ):
            (tmp_path / "how").write_text("\n".join(how))
            monkeypatch.setattr(sys, "executable", str(stranger))
            before = descriptors()
            async with child("", "api.test:7443", program=python) as found:
                assert await found.told() == {"answer": ""}
                assert await found.exit_code() == 0
            assert descriptors() <= before

    run(main())


def test_a_door_that_somebody_else_has_put_up_is_not_gone_through(tmp_path: Path) -> None:
    """A confined server that may write where doors are would else start anything, outside."""
    marker = tmp_path / "ran"
    plan = {"addresses": [], "listen": [("127.0.0.1", 81)], "hosts": "", "at": 1, "env": {}}
    plan["argv"] = ["/bin/touch", str(marker)]
    other = f"""
import json, socket
with socket.socket(socket.AF_UNIX) as door:
    door.bind({str(tmp_path / "d")!r})
    door.listen()
    print("up", flush=True)
    channel, _ = door.accept()
    channel.sendall(json.dumps({plan!r}).encode() + b"\\n")
    if channel.recv(1):
        channel.sendall(b"G")
"""
    with subprocess.Popen([sys.executable, "-c", other], stdout=-1, stderr=-3) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == b"up\n"
        launch = Path(connector.__file__).with_name("launch.py")
        line = [sys.executable, "-I", "-S", str(launch), str(tmp_path / "d")]
        done = subprocess.run(line, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "the door is not the host's" in done.stderr
    assert not marker.exists()


def test_names_get_no_address_that_is_listed_itself() -> None:
    listed = reach_of("a.test:1", "127.64.0.2:1", "b.test:1", "localhost:1", "127.0.0.1:1")
    found, hosts = connector.openings(listed)
    assert [(one.address, one.port, str(one.target)) for one in found] == [
        ("127.64.0.1", 0, "None"),
        ("127.0.0.1", 1, "127.0.0.1:1"),
        ("127.64.0.2", 1, "127.64.0.2:1"),
        ("127.64.0.3", 1, "a.test:1"),
        ("127.64.0.4", 1, "b.test:1"),
    ]
    assert hosts == "127.0.0.1 localhost sandbox\n127.64.0.3 a.test\n127.64.0.4 b.test\n"


def test_an_address_that_is_listed_is_the_sandboxes_own_whatever_it_is() -> None:
    """So that a program without a proxy finds it; what the host makes of it is its own matter."""

    async def main() -> None:
        code = """
        def connect(host, port):
            with socket.create_connection((host, port), 5) as far:
                return far.getpeername()[0]
        tell(there=attempt(connect, "192.0.2.7", 81), other=attempt(connect, "192.0.2.8", 81))
        """
        limits = GateLimits(address_s=0.1, connect_s=0.1)
        async with child(code, "192.0.2.7:81", limits=limits) as found:
            assert await found.told() == {"there": "192.0.2.7", "other": "OSError"}

    run(main())


def test_what_happens_at_the_end_of_a_stream_happens_on_the_other_side_too() -> None:
    async def main() -> None:
        async with origin() as server:
            server.is_raw = True
            code = f"""
            far = socket.create_connection(("127.0.0.1", {server.port}))
            far.sendall(b"question")
            far.shutdown(socket.SHUT_WR)
            heard = b""
            while chunk := far.recv(100):
                heard += chunk
            tell(heard=heard.decode())
            """
            async with child(code, f"127.0.0.1:{server.port}") as found:
                assert await found.told() == {"heard": "hello"}
            assert server.heard == [b"question"]

    run(main())


def test_a_port_that_is_taken_on_all_addresses_is_no_ones_but_the_sandboxes() -> None:
    """The sockets of the sandbox are in a network of its own: this machine's ports are free."""

    async def main() -> None:
        with socket.create_server(("0.0.0.0", 0)) as taken:
            port = taken.getsockname()[1]
            async with child("tell(up=True)", f"api.test:{port}") as found:
                assert await found.told() == {"up": True}

    run(main())
