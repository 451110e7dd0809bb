"""The script that makes the peers: what it says, what it caches, what it does when asked twice."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from interop import peers

SCRIPT = Path(peers.__file__)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRAGOMAN_PEERS", str(tmp_path))
    return tmp_path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True)


def test_every_peer_is_pinned_to_one_version() -> None:
    for peer in peers.PEERS:
        first = peer.packages[0]
        mark = "==" if peer.kind == "python" else "@"
        assert first.rpartition(mark)[2].replace(".", "").isdigit(), first
    assert len({peer.name for peer in peers.PEERS}) == len(peers.PEERS)


@pytest.mark.usefixtures("empty_cache")
def test_the_list_names_every_peer_and_makes_none() -> None:
    done = run("--list")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == [p.name for p in peers.PEERS]


def test_json_says_where_a_peer_is_and_whether_it_is_ready(empty_cache: Path) -> None:
    done = run("--json", "--only", "mcp-1.6")
    described = json.loads(done.stdout)
    assert described["cache"] == str(empty_cache)
    (peer,) = described["peers"]
    assert peer["name"] == "mcp-1.6"
    assert peer["ready"] is False
    assert Path(peer["directory"]) == empty_cache / "mcp-1.6"


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    done = run("--only", "mcp-0.1")
    assert done.returncode == 2
    assert "mcp-0.1" in done.stderr
    assert "mcp-1.6" in done.stderr


@pytest.mark.usefixtures("empty_cache")
def test_a_program_of_a_missing_peer_says_how_to_make_it() -> None:
    with pytest.raises(peers.PeerError, match=r"python interop/peers.py --only ts-1"):
        peers.program("ts-1", "ts1_server.mjs")


def test_without_node_the_error_says_what_to_install(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(empty_cache))
    monkeypatch.setattr(peers, "_node_seen", [])
    with pytest.raises(peers.PeerError, match=r"node was not found on PATH; install Node.js"):
        peers.make(peers.find("ts-1"))


def test_a_stamp_of_other_packages_is_not_ready(empty_cache: Path) -> None:
    peer = peers.find("mcp-1.6")
    stamp = empty_cache / "mcp-1.6" / peers.STAMP
    stamp.parent.mkdir()
    stamp.write_text(json.dumps({"packages": ["mcp==1.5.0"], "runtime": "?"}))
    assert peers.ready(peer) is False


@pytest.mark.interop
@pytest.mark.usefixtures("empty_cache")
def test_a_peer_asked_for_by_many_at_once_is_made_once() -> None:
    peer = peers.Peer("nothing", "npm", (), "a peer without packages")
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: peers.make(peer), range(4)))
    assert sorted(made) == [False, False, False, True]
    assert peers.ready(peer)


@pytest.mark.interop
@pytest.mark.usefixtures("empty_cache")
def test_a_failed_install_leaves_a_peer_that_is_not_ready() -> None:
    peer = peers.Peer("broken", "npm", ("file:./not-there@1",), "a package that cannot be")
    with pytest.raises(peers.PeerError, match=r"npm install .* ended with code"):
        peers.make(peer)
    assert peers.ready(peer) is False
