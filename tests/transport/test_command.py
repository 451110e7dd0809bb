"""What to start, with which environment, and what is said when that cannot be."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.errors import CannotStart, Misconfigured
from dragoman.transport.stdio.command import (
    batch_command_line,
    child_environment,
    command_for,
    explain_failed_start,
    resolve,
)


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("server.py", sys.executable),
        ("SERVER.PY", sys.executable),
        ("server.js", "node"),
        ("server.mjs", "node"),
        ("server.cjs", "node"),
    ],
)
def test_a_script_runs_under_its_interpreter(name: str, program: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.touch()
    assert command_for(path) == (program, (str(path),))
    assert command_for(str(path)) == (program, (str(path),))


def test_a_relative_script_is_found_from_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "server.py").touch()
    monkeypatch.chdir(tmp_path)
    assert command_for("server.py") == (sys.executable, (str(tmp_path / "server.py"),))


def test_an_executable_file_runs_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "server"
    path.touch(mode=0o755)
    assert command_for(path) == (str(path), ())


@pytest.mark.parametrize("target", [["npx", "-y", "server"], ("npx", "-y", "server")])
def test_a_list_is_taken_as_it_is(target: Sequence[str]) -> None:
    assert command_for(target) == ("npx", ("-y", "server"))


def test_an_empty_list_names_no_program() -> None:
    with pytest.raises(Misconfigured, match="no program"):
        command_for([])


def test_a_missing_script_is_named_with_the_closest_one(tmp_path: Path) -> None:
    (tmp_path / "weather.py").touch()
    with pytest.raises(Misconfigured, match=r"did you mean .*weather\.py"):
        command_for(tmp_path / "wether.py")
    with pytest.raises(Misconfigured, match="there is no file") as caught:
        command_for(tmp_path / "nowhere" / "other.py")
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("npx -y server", "as a list: ['npx', '-y', 'server']"),
        ("sh", "as a list: ['sh']"),
    ],
)
def test_a_command_that_is_no_script_is_asked_for_as_a_list(target: str, said: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        command_for(target)
    assert said in str(caught.value)


def test_what_cannot_be_run_says_what_could(tmp_path: Path) -> None:
    (tmp_path / "server.ts").touch()
    (tmp_path / "notes.txt").touch(mode=0o644)
    with pytest.raises(Misconfigured, match="'npx', 'tsx'"):
        command_for(tmp_path / "server.ts")
    with pytest.raises(Misconfigured, match="as a list"):
        command_for(tmp_path / "notes.txt")
    with pytest.raises(Misconfigured, match="is a directory"):
        command_for(tmp_path)


def test_a_child_inherits_a_short_list_and_the_given_values_win() -> None:
    source = {
        "PATH": "/bin",
        "HOME": "/home/me",
        "LC_ALL": "C",
        "OPENAI_API_KEY": "secret",
        "SHELL": "() { :; }",
    }
    assert child_environment(None, source) == {"PATH": "/bin", "HOME": "/home/me", "LC_ALL": "C"}
    assert child_environment({"HOME": "/x", "TOKEN": "t"}, source) == {
        "PATH": "/bin",
        "HOME": "/x",
        "LC_ALL": "C",
        "TOKEN": "t",
    }


def test_a_windows_child_inherits_what_windows_programs_need() -> None:
    source = {"APPDATA": "a", "SYSTEMROOT": "s", "PATHEXT": ".EXE", "HOME": "h", "TOKEN": "t"}
    assert child_environment(None, source, platform="win32") == {
        "APPDATA": "a",
        "SYSTEMROOT": "s",
        "PATHEXT": ".EXE",
    }


def test_a_batch_file_is_found_and_run_by_the_windows_shell(tmp_path: Path) -> None:
    batch = tmp_path / "npx.cmd"
    batch.touch(mode=0o755)
    program = tmp_path / "server.exe"
    program.touch(mode=0o755)
    env = {"PATH": str(tmp_path)}
    line = f'cmd.exe /d /s /v:off /c ""{batch}" "-y" "a server""'
    assert resolve(str(batch), ["-y", "a server"], env, None, platform="win32") == line
    assert resolve(str(program), ["-y"], env, None, platform="win32") == [str(program), "-y"]
    assert resolve("unknown", ["-y"], env, None, platform="win32") == ["unknown", "-y"]


@given(st.lists(st.text(st.characters(exclude_characters='"%\r\n\0'), min_size=0, max_size=8)))
def test_arguments_of_a_batch_file_are_quoted_whole(args: list[str]) -> None:
    line = batch_command_line("x.cmd", args)
    inner = line.removeprefix('cmd.exe /d /s /v:off /c "').removesuffix('"')
    # Every quotation mark opens or closes one argument, and nothing lies between but a space.
    pieces = inner.split('"')
    assert pieces[0] == pieces[-1] == ""
    assert set(pieces[2:-1:2]) <= {" "}
    quoted = pieces[1::2]
    assert len(quoted) == len(args) + 1
    for argument, piece in zip(args, quoted[1:], strict=True):
        body = argument.rstrip("\\")
        # Backslashes before a closing quotation mark count double for the program behind.
        assert piece == body + "\\" * (2 * (len(argument) - len(body)))


@pytest.mark.parametrize("character", ['"', "%", "\r", "\n"])
def test_an_argument_no_batch_file_can_take_safely_is_refused(character: str) -> None:
    with pytest.raises(CannotStart) as caught:
        batch_command_line("x.cmd", [f"a{character}b"])
    assert caught.value.sent is False
    assert caught.value.hint is not None


def test_a_failed_start_is_explained() -> None:
    env = {"PATH": os.environ["PATH"]}
    too_long = explain_failed_start(OSError(errno.E2BIG, "too long"), "sh", ["x"], env)
    assert "too long" in str(too_long)
    assert too_long.command == ("sh", "x")
    odd = explain_failed_start(FileNotFoundError(), "zqxjkvbw", [], env)
    assert odd.hint is None
    far = explain_failed_start(FileNotFoundError(), "/no/such/place/server", [], env)
    assert far.hint is None
    assert "PATH" not in str(far)


def test_a_neighbour_of_a_missing_path_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "server-one").touch()
    error = explain_failed_start(FileNotFoundError(), str(tmp_path / "server-on"), [], {})
    assert error.hint is not None
    assert "server-one" in error.hint


def test_the_server_side_of_stdio_is_cheap_to_import() -> None:
    # `shutil` alone loads four compression libraries.
    code = (
        "import sys, asyncio\n"
        "before = set(sys.modules)\n"
        "import dragoman.transport.stdio.serve\n"
        "new = set(sys.modules) - before\n"
        "print(sorted(new & {'shutil', 'difflib', 'pathlib', 'lzma', 'tempfile', 'msgspec'}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert out == b"[]\n"
