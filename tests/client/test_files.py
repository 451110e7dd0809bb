"""What is read is a file: not a pipe that nobody writes to, and nothing without an end."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dragoman.client.config import read_config
from dragoman.client.files import read_bounded
from dragoman.errors import Misconfigured
from dragoman.host.env_file import read_env_file
from dragoman.host.formats import read_file, save
from dragoman.host.located import read_located
from dragoman.host.secrets import FileVault
from dragoman.host.settings import load_policy, project_digest

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX files")


def test_a_file_is_read_whole_and_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert read_bounded(path, 3) is None
    path.write_bytes(b"abc")
    assert read_bounded(path, 3) == b"abc"
    with pytest.raises(Misconfigured, match="larger than 2 bytes"):
        read_bounded(path, 2)
    with pytest.raises(Misconfigured, match="a folder"):
        read_bounded(tmp_path, 3)


@posix
def test_a_link_is_followed_and_one_to_nothing_is_told(tmp_path: Path) -> None:
    path = tmp_path / "link"
    path.symlink_to("x")
    with pytest.raises(Misconfigured, match="a link to nothing"):
        read_bounded(path, 3)
    (tmp_path / "x").write_bytes(b"abc")
    assert read_bounded(path, 3) == b"abc"
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(Misconfigured, match="cannot be read"):
        read_bounded(path, 3)


@pytest.mark.parametrize("name", ["x\0y", "x" * 5000])
def test_what_cannot_be_a_name_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(Misconfigured):
        read_bounded(tmp_path / name, 3)


@posix
@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/stdin"])
def test_a_device_is_not_read(path: str) -> None:
    with pytest.raises(Misconfigured, match="regular file"):
        read_bounded(Path(path), 3)


@posix
def test_a_socket_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its name has to be short.
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s")
        with pytest.raises(Misconfigured, match="a socket"):
            read_bounded(Path("s"), 3)


READERS: dict[str, Callable[[Path], Any]] = {
    "a name's mcp.json": read_config,
    "a host's mcp.json": read_located,
    "a policy": lambda path: load_policy(user=path),
    "a project's policy or lock": lambda path: project_digest(path.parent),
    "variables": read_env_file,
    "another product's file": lambda path: read_file(path, "cursor"),
    "a file to be written": lambda path: save(path, "x", before=""),
    "secrets": lambda path: FileVault(path).names(),
}


@posix
@pytest.mark.parametrize("kind", READERS)
def test_a_pipe_that_nobody_writes_to_holds_nobody_up(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "dragoman.lock"
    os.mkfifo(path, 0o600)
    with pytest.raises(Misconfigured, match=r"a pipe|regular file"):
        READERS[kind](path)
    assert path.is_fifo()
