"""A dragoman server under the clients of other implementations, each in its own process."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from interop import peers
from tests.interop.clients import CLIENTS, RUNS, pair
from tests.interop.documents import (
    CHECKS,
    ECHOED,
    OPTIONAL_TOOLS,
    RUN_TIMEOUT_S,
    TOOLS,
    Document,
    Pair,
    grouped,
    run,
)
from tests.interop.serving import PATHS, address, serve_peer
from tests.interop.wire import complaints
from tests.revisions.official import needs_spec

pytestmark = pytest.mark.interop

OURS = [sys.executable, str(peers.PROGRAMS / "dragoman_server.py")]


@functools.cache
def document(name: str) -> Document:
    client, transport = RUNS[name]
    peer, script, options, _ = CLIENTS[client]
    with address(f"ours-for-{name}", "dragoman", "dragoman_server.py", transport) as server:
        return run(peers.program(peer, script, *options, *server))


@pytest.mark.parametrize("name", grouped(RUNS))
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_peer_client_sees_all_of_our_server(
    check: Callable[[Document, Pair], None], name: str
) -> None:
    check(document(name), pair(name))


# --- what is on the wire --------------------------------------------------------------------------


@needs_spec
@pytest.mark.parametrize("name", ["mcp-1.6", "mcp-1.9", "mcp-1.22", "mcp-1.29"])
def test_our_server_writes_nothing_the_agreed_revision_does_not_know(
    name: str, tmp_path: Path
) -> None:
    record = tmp_path / "wire.jsonl"
    peer, script, options, revision = CLIENTS[name]
    tee = [sys.executable, str(peers.PROGRAMS / "tee.py"), str(record)]
    run(peers.program(peer, script, *options, *tee, *OURS))
    lines = [json.loads(line) for line in record.read_text("utf-8").splitlines()]
    found, checked = complaints([(who == "server", text) for who, text in lines], revision)
    assert found == []
    # Some fifty answers, and what the server tells and asks by itself.
    assert checked > 60


def test_a_probe_for_a_newer_revision_is_refused_and_is_no_cause_for_complaint() -> None:
    # The default of mcp 2.3, FastMCP 4.1 and TypeScript 2.4: no user has done anything wrong.
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    probe = {"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": meta}}
    line = json.dumps(probe).encode() + b"\n"
    done = subprocess.run(OURS, input=line, capture_output=True, timeout=RUN_TIMEOUT_S)
    assert json.loads(done.stdout)["error"]["code"] == -32601
    assert done.stderr == b""


# --- the Inspector's command line -----------------------------------------------------------------


def inspect(*arguments: str, server: Sequence[str] = OURS) -> Any:
    """One call of the Inspector's --cli; the JSON it prints."""
    package = "@modelcontextprotocol/inspector"
    command = peers.binary("inspector", package, "--cli", *server, *arguments)
    done = subprocess.run(command, capture_output=True, timeout=RUN_TIMEOUT_S)
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")[-2000:]
    return json.loads(done.stdout)


def test_the_inspector_lists_every_tool() -> None:
    listed = inspect("--method", "tools/list")
    assert {tool["name"] for tool in listed["tools"]} == TOOLS | OPTIONAL_TOOLS - {"cut"}


def test_the_inspector_calls_a_tool_with_typed_arguments() -> None:
    arguments = ("--tool-name", "add", "--tool-arg", "a=2", "--tool-arg", "b=3")
    result = inspect("--method", "tools/call", *arguments)
    assert result["content"] == [{"type": "text", "text": "5"}]
    assert result["structuredContent"] == {"result": 5}


def test_the_inspector_passes_text_of_any_script() -> None:
    arguments = ("--tool-name", "echo", "--tool-arg", f"text={ECHOED}")
    result = inspect("--method", "tools/call", *arguments)
    assert result["content"] == [{"type": "text", "text": ECHOED}]


def test_the_inspector_lists_and_reads_resources() -> None:
    listed = inspect("--method", "resources/list")
    assert [entry["uri"] for entry in listed["resources"]] == [
        "interop://greeting",
        "interop://blob",
    ]
    (contents,) = inspect("--method", "resources/read", "--uri", "interop://item/2")["contents"]
    assert (contents["text"], contents["mimeType"]) == ("item 2", "text/plain")


def test_the_inspector_lists_resource_templates() -> None:
    listed = inspect("--method", "resources/templates/list")
    (template,) = listed["resourceTemplates"]
    assert template["uriTemplate"] == "interop://item/{id}"


def test_the_inspector_lists_and_fills_prompts() -> None:
    (entry,) = inspect("--method", "prompts/list")["prompts"]
    assert entry["name"] == "review"
    arguments = ("--prompt-name", "review", "--prompt-args", "code=x", "tone=harsh")
    (message,) = inspect("--method", "prompts/get", *arguments)["messages"]
    assert message["content"] == {"type": "text", "text": "Review this, be harsh: x"}


def test_the_inspector_is_introduced() -> None:
    seen = inspect("--method", "initialize")
    assert seen["protocolVersion"] == "2025-11-25"
    assert seen["serverInfo"] == {"name": "dragoman-everything", "version": "1"}
    assert seen["instructions"] == "Use the tools."


def test_the_inspector_that_probes_for_a_newer_revision_falls_back() -> None:
    seen = inspect("--method", "initialize", "--protocol-era", "auto")
    assert seen["protocolVersion"] == "2025-11-25"


def test_the_inspector_finds_no_fault_in_our_schemas() -> None:
    # --strict exits with 6 for a schema that some model provider would refuse.
    listed = inspect("--method", "tools/list", "--strict")
    assert len(listed["tools"]) == len(TOOLS | OPTIONAL_TOOLS - {"cut"})


def test_the_inspector_sends_metadata() -> None:
    arguments = ("--tool-name", "show_meta", "--tool-metadata", "interop/note=kept")
    (block,) = inspect("--method", "tools/call", *arguments)["content"]
    assert json.loads(block["text"]) == {"interop/note": "kept"}


def test_the_inspector_sets_the_logging_level() -> None:
    assert inspect("--method", "logging/setLevel", "--log-level", "warning") == {}


def test_the_inspector_loads_our_server_without_an_error() -> None:
    load = ("--load", "--load-requests", "500", "--load-concurrency", "32", "--format", "json")
    arguments = ("--tool-name", "add", "--tool-arg", "a=2", "b=3")
    summary = inspect("--method", "tools/call", *arguments, *load)["result"]
    assert (summary["requests"], summary["ok"], summary["errors"]) == (500, 500, 0)


@pytest.fixture(scope="module", params=["(inspector-over-sse)", "(inspector-over-streamable)"])
def target(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """What the Inspector takes to reach our server over HTTP."""
    transport = request.param.strip("()").removeprefix("inspector-over-")
    with serve_peer("ours-for-inspector", "dragoman", "dragoman_server.py", transport) as program:
        kind = {"sse": "sse", "streamable": "http"}[transport]
        yield ["--transport", kind, "--server-url", program.url + PATHS[transport]]


def test_the_inspector_is_introduced_over_http(target: list[str]) -> None:
    seen = inspect("--method", "initialize", server=target)
    assert seen["protocolVersion"] == "2025-11-25"
    assert seen["serverInfo"] == {"name": "dragoman-everything", "version": "1"}


def test_the_inspector_uses_our_server_over_http(target: list[str]) -> None:
    listed = inspect("--method", "tools/list", "--strict", server=target)
    assert {tool["name"] for tool in listed["tools"]} == TOOLS | OPTIONAL_TOOLS
    arguments = ("--tool-name", "echo", "--tool-arg", f"text={ECHOED}")
    result = inspect("--method", "tools/call", *arguments, server=target)
    assert result["content"] == [{"type": "text", "text": ECHOED}]
    (contents,) = inspect("--method", "resources/read", "--uri", "interop://item/2", server=target)[
        "contents"
    ]
    assert contents["text"] == "item 2"
    assert inspect("--method", "logging/setLevel", "--log-level", "warning", server=target) == {}


def test_the_inspector_fetches_an_answer_whose_stream_closed(target: list[str]) -> None:
    result = inspect("--method", "tools/call", "--tool-name", "cut", server=target)
    assert result["content"] == [{"type": "text", "text": "resumed"}]


def test_the_inspector_that_probes_over_http_falls_back(target: list[str]) -> None:
    seen = inspect("--method", "initialize", "--protocol-era", "auto", server=target)
    assert seen["protocolVersion"] == "2025-11-25"


def test_the_inspector_loads_our_server_over_http_without_an_error(target: list[str]) -> None:
    load = ("--load", "--load-requests", "500", "--load-concurrency", "32", "--format", "json")
    arguments = ("--tool-name", "add", "--tool-arg", "a=2", "b=3")
    summary = inspect("--method", "tools/call", *arguments, *load, server=target)["result"]
    assert (summary["requests"], summary["ok"], summary["errors"]) == (500, 500, 0)
