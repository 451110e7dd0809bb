"""The state folder and its files: nobody but their owner writes to them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dragoman.errors import Misconfigured
from dragoman.host.state import StateDir, open_private, private_folder
from tests.requirements.duties import duty

posix_only = pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_is_where_the_xdg_specification_says(tmp_path: Path) -> None:
    state = StateDir(environ={"XDG_STATE_HOME": str(tmp_path / "state"), "HOME": "/nowhere"})
    assert state.path == tmp_path / "state" / "dragoman"
    assert state.grants == state.path / "grants.sqlite"
    assert state.audit.parent.is_dir()


def test_without_that_variable_it_is_in_the_home_folder(tmp_path: Path) -> None:
    state = StateDir(environ={"HOME": str(tmp_path)})
    assert state.path == tmp_path / ".local" / "state" / "dragoman"


def test_a_relative_path_in_the_variable_is_ignored(tmp_path: Path) -> None:
    state = StateDir(environ={"XDG_STATE_HOME": "here", "HOME": str(tmp_path)})
    assert state.path == tmp_path / ".local" / "state" / "dragoman"


@duty("trust.data.protected")
@posix_only
def test_a_new_folder_is_closed_to_others_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        state = StateDir(tmp_path / "state")
        inner = state.definitions
    finally:
        os.umask(before)
    assert mode_of(state.path) == mode_of(inner) == 0o700


@duty("trust.data.protected")
@posix_only
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_a_folder_that_others_may_write_to_is_refused_with_the_remedy(
    tmp_path: Path, mode: int
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(Misconfigured, match="chmod 0700"):
        StateDir(folder)


@posix_only
def test_a_folder_that_others_may_only_read_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)
    assert private_folder(folder) == folder


def of_another_user(tmp_path: Path) -> Path:
    """A folder that belongs to somebody else, whoever runs this."""
    if os.geteuid() != 0:
        return Path("/usr")
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o755)
    os.chown(folder, 65534, 65534)
    return folder


@posix_only
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="belongs to user"):
        private_folder(of_another_user(tmp_path))


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("x")
    with pytest.raises(Misconfigured, match="cannot be used"):
        StateDir(tmp_path / "state")


@posix_only
def test_a_new_file_is_closed_to_others_from_the_start(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        os.close(open_private(tmp_path / "f", os.O_RDWR | os.O_CREAT))
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "f") == 0o600


@posix_only
def test_a_file_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "f").touch(mode=0o644)
    os.close(open_private(tmp_path / "f", os.O_RDWR))
    assert mode_of(tmp_path / "f") == 0o600


@posix_only
def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "f").chmod(0o620)
    with pytest.raises(Misconfigured, match="chmod 0600"):
        open_private(tmp_path / "f", os.O_RDWR)


@posix_only
def test_a_link_a_pipe_and_a_folder_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    with pytest.raises(Misconfigured, match="symbolic link"):
        open_private(tmp_path / "link", os.O_RDWR)
    with pytest.raises(Misconfigured, match="no plain file"):
        open_private(tmp_path / "pipe", os.O_RDWR)
    with pytest.raises(Misconfigured, match="no plain file"):
        open_private(tmp_path / "folder", os.O_RDONLY)
