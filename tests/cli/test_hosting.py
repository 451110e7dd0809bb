"""`dragoman run --transport http`: a server out of a file, over HTTP or a Unix socket."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from dragoman import Client
from tests.cli.aids import PATIENCE_S, document, dragoman, environment
from tests.cli.serving import Running, counter
from tests.support import run

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")

HTTP = ("--transport", "http", "--port", "0")


@pytest.mark.long
def test_a_file_is_served_over_http_and_every_command_reaches_it(tmp_path: Path) -> None:
    with Running(str(counter(tmp_path)), *HTTP) as server:
        url = server.url()
        assert urlsplit(url).hostname == "127.0.0.1"
        assert urlsplit(url).path == "/mcp"
        assert dragoman("call", url, "version").stdout == "1\n"
        assert dragoman("read", url, "note://x").stdout == "1\n"
        assert document("inspect", url)["serverInfo"]["name"] == "counter"
        assert {one["name"] for one in document("list", url)["tools"]} >= {"version", "session"}
        assert document("ping", url, "--revision", "2024-11-05")["protocolVersion"] == "2024-11-05"
        wire = dragoman("call", url, "version", "--wire").stderr
        assert '"method":"tools/call"' in wire
        assert server.stop() == 0
        assert server.stderr == ""


def test_a_person_is_told_where_it_is_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "dragoman", "run", str(counter(tmp_path)), *HTTP],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=environment(),
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("counter is at http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=PATIENCE_S) == ("", "")
    assert process.returncode == 0


@pytest.mark.long
def test_the_older_transport_is_served_under_its_own_address(tmp_path: Path) -> None:
    file = str(counter(tmp_path))
    for words, path in (((), "/sse"), (("--path", "/events"), "/events")):
        with Running(file, "--transport", "sse", "--port", "0", *words) as server:
            url = server.url()
            assert urlsplit(url).path == path

            async def talk(url: str = url) -> object:
                async with Client(url, http_mode="sse") as client:
                    return (await client.call_tool("version")).data

            assert run(talk()) == 1


def test_the_prefix_that_a_proxy_takes_off_is_told_to_clients_that_post(tmp_path: Path) -> None:
    words = [*HTTP, "--root-path", "/tools"]
    with Running(str(counter(tmp_path)), *words) as server:
        place = urlsplit(server.url())
        assert place.path == "/mcp"
        assert place.port is not None
        connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=PATIENCE_S)
        connection.request("GET", "/sse", headers={"Accept": "text/event-stream"})
        answer = connection.getresponse()
        assert answer.readline() == b"event: endpoint\n"
        assert answer.readline().startswith(b"data: /tools/messages?session_id=")
        connection.close()
        assert server.stop() == 0


def test_path_and_names_are_those_that_were_asked_for(tmp_path: Path) -> None:
    words = [*HTTP, "--path", "/here", "--allow-host", "api.example.com"]
    words += ["--allow-origin", "https://app.example.com"]
    with Running(str(counter(tmp_path)), *words) as server:
        parts = urlsplit(server.url())
        assert parts.path == "/here"

        def status(**headers: str) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=PATIENCE_S)
            try:
                connection.request("OPTIONS", "/here", headers=headers)
                return connection.getresponse().status
            finally:
                connection.close()

        assert status(Host="api.example.com", Origin="https://app.example.com") == 204
        assert status(Host="api.example.com", Origin="https://other.example.com") == 403
        assert status(Host="evil.example.com") == 403


@pytest.mark.long
@posix
def test_a_unix_socket_is_its_owner_s_alone_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "my socket"
    with Running(str(counter(tmp_path)), "--transport", "unix", "--socket", str(path)) as server:
        url = server.url()
        assert url == f"http+unix://{quote(str(path), safe='')}/mcp"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert dragoman("call", url, "version").stdout == "1\n"
        taken = dragoman(
            "run", str(counter(tmp_path)), "--transport", "unix", "--socket", str(path)
        )
        assert taken.returncode == 2
        assert "listens on" in taken.stderr
        assert server.stop() == 0
        assert not path.exists()


@pytest.mark.long
def test_a_session_survives_a_restart_when_it_is_kept(tmp_path: Path) -> None:
    file = str(counter(tmp_path))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = [file, "--transport", "http", "--port", port]
    words += ["--keep-sessions", str(tmp_path / "sessions.db")]

    async def talk() -> None:
        with Running(*words) as server:
            url = server.url()
            async with Client(url) as client:
                before = (await client.call_tool("session")).data
                # The loop turns meanwhile: the client sees that its connections end.
                assert await asyncio.to_thread(server.stop) == 0
                with Running(*words) as again:
                    assert await asyncio.to_thread(again.url) == url
                    assert (await client.call_tool("session")).data == before

    run(talk())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--port", "1"), "--transport http"),
        (("--reload",), "--transport http"),
        (("--transport", "stdio", "--reload"), "--reload"),
        (("--transport", "http", "--socket", "x"), "--transport unix"),
        (("--transport", "unix"), "--socket FILE"),
        (("--transport", "unix", "--socket", "x", "--port", "1"), "--port"),
        (("--transport", "http", "--port", "70000"), "70000"),
        (("--transport", "http", "--path", "here"), "begins with a slash"),
        (("--transport", "http", "--host", "0.0.0.0"), "--allow-host"),
        (("--transport", "http", "--host", "0.0.0.0", "--reload"), "--allow-host"),
        (("--transport", "http", "--host", "no.such.host.invalid", "--allow-host", "*"), "listen"),
        (("--transport", "http", "--allow-host", "http://x"), "is not a host"),
        (("--transport", "http", "--allow-origin", "x"), "is not an origin"),
        (("--transport", "http", "--keep-sessions", "/no/such/folder/x.db"), "/no/such/folder"),
    ],
)
@pytest.mark.long
def test_what_cannot_work_is_one_line(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    file = str(counter(tmp_path))
    done = dragoman("run", file, *words)
    assert (done.returncode, done.stdout) == (2, "")
    first, *rest = done.stderr.splitlines()
    assert first.startswith("error: ")
    assert said in first
    # Wrong words also get a usage line and where to read more.
    assert not rest or rest[-1] == "More: dragoman run --help"


def test_what_cannot_work_is_a_document_for_a_program(tmp_path: Path) -> None:
    error = document("run", str(counter(tmp_path)), *HTTP, "--path", "here", code=2)["error"]
    assert error["kind"] == "usage"


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = dragoman("run", str(counter(tmp_path)), "--transport", "http", "--port", port)
    assert done.returncode == 2
    assert port in done.stderr
    assert len(done.stderr.splitlines()) == 1


FAILING = """
from contextlib import asynccontextmanager
from dragoman import Server

@asynccontextmanager
async def life(server):
    raise RuntimeError("no database today")
    yield

server = Server("s", lifespan=life)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("print('loaded')\ndef (:\n", "could not be loaded"),
        ("x = 3\n", "defines no Server"),
        (FAILING, "no database today"),
    ],
)
def test_a_file_that_cannot_be_served_over_http_is_explained(
    tmp_path: Path, content: str, said: str
) -> None:
    file = tmp_path / "file.py"
    file.write_text(content)
    done = dragoman("run", str(file), *HTTP)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


@pytest.mark.long
def test_the_first_line_of_stdout_is_ours_whatever_the_file_prints(tmp_path: Path) -> None:
    file = counter(tmp_path)
    file.write_text(file.read_text() + "\nprint('loaded')\n")
    with Running(str(file), *HTTP) as server:
        assert server.url().startswith("http://")
        server.expect("loaded")


MISSING = """
import importlib.util, sys
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == {name!r} else real(name, *more)
from dragoman.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("name", "words", "extra"),
    [("uvicorn", HTTP, "http"), ("watchfiles", (*HTTP, "--reload"), "cli")],
)
def test_a_missing_extra_is_said_with_the_line_that_installs_it(
    tmp_path: Path, name: str, words: tuple[str, ...], extra: str
) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-c", MISSING.format(name=name)),
            *("run", str(counter(tmp_path)), *words),
        ],
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert f"pip install 'dragoman[{extra}]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


GUARDED = """
from dragoman import Server
from dragoman.jsonrpc.frame import Principal

server = Server("guarded")

@server.tool
def hello() -> str:
    return "hello"

def identify(scope):
    headers = dict(scope["headers"])
    known = (headers.get(b"authorization"), headers.get(b"x-who"))
    return Principal("ada") if known in ((b"Bearer s3cret", None), (None, b"ada")) else None

server.run("http", port=0, identify=identify, on_ready=lambda url: print(url, flush=True))
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> object:
    file = tmp_path_factory.mktemp("guarded") / "guarded.py"
    file.write_text(GUARDED)
    process = subprocess.Popen([sys.executable, file], stdout=subprocess.PIPE, encoding="utf-8")
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.terminate()
    process.wait(PATIENCE_S)
    process.stdout.close()


@pytest.mark.long
def test_a_token_comes_from_a_variable_and_headers_from_words(guarded: str, tmp_path: Path) -> None:
    told = dragoman("call", guarded, "hello", "--token-env", "TOKEN", env={"TOKEN": "s3cret"})
    assert told.stdout == "hello\n"
    assert dragoman("call", guarded, "hello", "--header", "X-Who: ada").stdout == "hello\n"
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"g": {"url": guarded}}}))
    named = dragoman("call", "g", "hello", "--header", "X-Who:ada", cwd=tmp_path)
    assert named.stdout == "hello\n"


@pytest.mark.long
def test_a_server_that_wants_to_know_who_asks_is_a_refusal_with_a_remedy(guarded: str) -> None:
    refused = document("list", guarded, "--token-env", "TOKEN", code=2)
    assert "TOKEN is not set" in refused["error"]["message"]
    refused = document("list", guarded, code=4)
    assert refused["error"]["status"] == 401
    assert "--token-env" in refused["error"]["message"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("http://127.0.0.1:1/mcp", "--header", "a"), "NAME:VALUE"),
        (("http://127.0.0.1:1/mcp", "--header", "a b:c"), "a b"),
        (("http://127.0.0.1:1/mcp", "--env", "A=b"), "--env"),
        (("http://127.0.0.1:1/mcp", "--cwd", "."), "--cwd"),
        (("ws://127.0.0.1:1/mcp",), "http://"),
        (("http://example.com/mcp", "--header", "Authorization: Bearer s3cret"), "not encrypted"),
        (("server.py", "--header", "a:b"), "--header"),
        (("server.py", "--token-env", "PATH"), "--token-env"),
        (("server.py", "--ca", __file__), "--ca"),
        (("https://127.0.0.1:1/mcp", "--ca", __file__), "--ca"),
        (("https://127.0.0.1:1/mcp", "--ca", "no-such-file"), "no-such-file"),
    ],
)
@pytest.mark.long
def test_options_that_do_not_fit_the_target_are_told(words: tuple[str, ...], said: str) -> None:
    done = dragoman("list", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "s3cret" not in done.stderr


def test_a_server_that_is_not_there_is_told_with_its_address() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/mcp"
        assert url in document("list", url, code=3)["error"]["message"]
