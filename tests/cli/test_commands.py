"""Every command in a real process, against real servers."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dragoman as package
from dragoman.cli import main
from tests.cli.aids import (
    BARE,
    ODD,
    PATIENCE_S,
    WEATHER,
    assert_harmless,
    document,
    dragoman,
    environment,
)

# --- version and help -------------------------------------------------------------------------


def test_version_is_one_line_and_loads_neither_click_nor_rich() -> None:
    code = (
        "import sys; from dragoman.cli import main; main(['version']); "
        "sys.exit(any(one in sys.modules for one in ('click', 'rich', 'msgspec')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.stdout == f"dragoman {package.__version__}\n"
    assert done.returncode == 0


def test_version_as_json_names_the_revisions() -> None:
    found = document("version")
    assert found["dragoman"] == package.__version__
    assert "2024-11-05" in found["revisions"]


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_its_extra_the_command_line_says_what_to_install(missing: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None; from dragoman.cli import main; "
        "sys.exit(main(sys.argv[1:]))"
    )
    argv = [sys.executable, "-c", code, "list", "x"]
    done = subprocess.run(argv, capture_output=True, encoding="utf-8")
    assert done.returncode == 2
    assert "pip install 'dragoman[cli]'" in done.stderr
    assert "Traceback" not in done.stderr
    as_json = subprocess.run([*argv, "--json"], capture_output=True, encoding="utf-8")
    assert json.loads(as_json.stdout)["error"]["install"] == "pip install 'dragoman[cli]'"


def test_help_names_every_command_and_every_exit_code() -> None:
    done = dragoman("--help")
    assert done.returncode == 0
    for name in ["run", "list", "call", "read", "prompt", "complete", "ping", "inspect", "version"]:
        assert f"\n  {name} " in done.stdout
    assert "Exit codes: 0 done, 1 the tool failed" in done.stdout


@pytest.mark.long
def test_without_words_help_is_shown_once_and_is_no_success() -> None:
    done = dragoman()
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout == dragoman("--help").stdout


@pytest.mark.long
def test_a_shell_is_told_what_could_be_typed() -> None:
    shell = {"_DRAGOMAN_COMPLETE": "bash_complete", "COMP_WORDS": "dragoman in", "COMP_CWORD": "1"}
    assert dragoman(env=shell).stdout == "plain,inspect\n"


# --- what there is ----------------------------------------------------------------------------


def test_list_shows_all_four_kinds_without_trailing_blanks() -> None:
    done = dragoman("list", WEATHER)
    assert done.returncode == 0
    for text in ("collect_readings", "weather://cities", "weather://{city}/now", "plan_trip"):
        assert text in done.stdout
    assert "city: text, days?: integer, 1 to 7" in done.stdout
    assert not any(line.endswith(" ") for line in done.stdout.splitlines())
    assert done.stderr == ""


@pytest.mark.long
def test_list_as_json_is_one_document_in_the_protocols_words() -> None:
    found = document("list", WEATHER, "--only", "tools", "--only", "templates")
    assert set(found) == {"tools", "resourceTemplates"}
    assert found["tools"][0]["inputSchema"]["required"] == ["city"]
    assert found["resourceTemplates"][0]["uriTemplate"] == "weather://{city}/now"


@pytest.mark.long
def test_inspect_shows_the_whole_server() -> None:
    done = dragoman("inspect", WEATHER)
    assert done.returncode == 0
    for text in (
        "Weather of four cities",
        "2025-11-25",
        "tools (3)",
        "says it is read only",
        '"celsius" or "fahrenheit"',
        "days[].sky",
        "how many, from 1 to 7",
        "resources (1)",
        "resource templates (1)",
        "prompts (1)",
        "Ask for a forecast by city.",
    ):
        assert text in done.stdout


def test_inspect_as_json_holds_identity_capabilities_and_lists() -> None:
    found = document("inspect", WEATHER, "--revision", "2024-11-05")
    assert found["serverInfo"] == {"name": "weather", "version": "1.0"}
    assert found["protocolVersion"] == "2024-11-05"
    assert found["capabilities"]["prompts"] == {"listChanged": True}
    assert {"instructions", "tools", "resources", "resourceTemplates", "prompts"} <= set(found)


def test_ping_says_who_answered() -> None:
    done = dragoman("ping", WEATHER)
    assert done.returncode == 0
    assert done.stdout.startswith("weather 1.0 answered in ")


# --- using it ---------------------------------------------------------------------------------


def test_call_reads_values_by_the_tools_schema() -> None:
    words = ["text=7", "count=7", "tags=a", "tags=b", "place.city=Oslo", "is_loud=yes"]
    done = dragoman("call", ODD, "echo", *words)
    assert done.stdout == "'7' 7 ['a', 'b'] Place(city='Oslo', floor=0) True\n"
    assert done.returncode == 0


@pytest.mark.long
def test_call_takes_all_arguments_as_json_and_from_stdin() -> None:
    arguments = '{"text": "x", "count": 2}'
    given = dragoman("call", ODD, "echo", "--args", arguments)
    piped = dragoman("call", ODD, "echo", "--args", "-", stdin=arguments)
    assert given.stdout == piped.stdout == "'x' 2 None None False\n"


@pytest.mark.long
def test_call_lays_out_structured_results() -> None:
    done = dragoman("call", WEATHER, "forecast", "city=paris", "days=1")
    assert json.loads(done.stdout)["days"][0]["date"] == "2026-05-01"
    found = document("call", WEATHER, "forecast", "city=paris", "days=1")
    assert found["isError"] is False
    assert found["structuredContent"]["city"] == "Paris"
    assert json.loads(found["content"][0]["text"]) == found["structuredContent"]


def test_call_names_every_fault_before_anything_is_called() -> None:
    done = dragoman("call", WEATHER, "forecast", "cty=Paris", "days=x")
    assert done.returncode == 2
    assert done.stdout == ""
    for text in ("cty", "did you mean 'city'", "days: expected integer", "city: missing"):
        assert text in done.stderr


@pytest.mark.long
def test_call_of_an_unknown_tool_names_the_closest() -> None:
    done = dragoman("call", WEATHER, "forcast")
    assert done.returncode == 2
    assert "did you mean 'forecast'" in done.stderr


@pytest.mark.long
def test_a_failed_tool_has_its_own_exit_code() -> None:
    done = dragoman("call", ODD, "fail")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "the tool failed: it cannot be done" in done.stderr
    assert_harmless(done.stderr)
    assert document("call", ODD, "fail", code=1)["isError"] is True


@pytest.mark.long
def test_binary_content_is_a_line_or_a_new_file(tmp_path: Path) -> None:
    plain = dragoman("call", ODD, "picture")
    assert plain.stdout == ("look:\n[image image/png, 100 bytes]\n[link to odd://text (text)]\n")
    for number in (1, 2):
        saved = dragoman("call", ODD, "picture", "--save", str(tmp_path))
        assert f"picture-{number}.png" in saved.stdout
    for number in (1, 2):
        assert (tmp_path / f"picture-{number}.png").stat().st_size == 100


@pytest.mark.long
def test_read_prints_text_and_summarises_bytes(tmp_path: Path) -> None:
    done = dragoman("read", ODD, "odd://text")
    assert done.stdout.startswith("first\nsecond \\x1b[2J")
    assert_harmless(done.stdout)
    saved = dragoman("read", ODD, "odd://bytes", "--save", str(tmp_path))
    assert "256 bytes" in saved.stdout
    assert (tmp_path / "odd-bytes-1.png").read_bytes() == bytes(range(256))


def test_read_of_an_unknown_resource_is_the_servers_refusal() -> None:
    found = document("read", ODD, "odd://nowhere", code=4)
    assert found["error"]["kind"] == "remote"
    assert found["error"]["code"] == -32002
    assert found["error"]["data"] == {"uri": "odd://nowhere"}


@pytest.mark.long
def test_prompt_prints_its_messages() -> None:
    done = dragoman("prompt", ODD, "greet", "name=Ada", "tone=cold")
    assert done.stdout == "user: Greet Ada in a cold way.\n"
    assert dragoman("prompt", ODD, "greet").returncode == 4


@pytest.mark.long
def test_complete_takes_prompts_and_templates() -> None:
    assert dragoman("complete", ODD, "greet", "tone", "w").stdout == "warm\n"
    found = dragoman("complete", ODD, "odd://{name}/part", "name", "x")
    assert found.stdout == "xa\nxb\\x1b[31m\n"
    many = dragoman("complete", ODD, "odd://{name}/part", "name", "x", "many=1")
    assert len(many.stdout.splitlines()) == 100
    assert "150" in many.stderr


@pytest.mark.long
def test_prompt_complete_and_ping_print_the_result_as_json() -> None:
    filled = document("prompt", ODD, "greet", "name=Ada")
    assert filled["messages"][0]["role"] == "user"
    assert document("complete", ODD, "greet", "tone", "c")["values"] == ["cold"]
    assert document("ping", ODD)["serverInfo"]["name"] == "odd"


# --- what the server asks ---------------------------------------------------------------------


def test_a_sampling_request_is_refused_where_nobody_is() -> None:
    done = dragoman("call", ODD, "ask_model")
    assert done.returncode == 1
    assert "refused: -1" in done.stderr
    assert "Knock knock." in done.stderr
    assert_harmless(done.stdout, done.stderr)


@pytest.mark.long
def test_a_sampling_request_is_answered_with_what_was_given() -> None:
    assert dragoman("call", ODD, "ask_model", "--answer", "It is me").stdout == "It is me\n"
    assert dragoman("call", ODD, "ask_model", "--yes").stdout == "yes\n"


@pytest.mark.long
def test_a_form_is_filled_with_what_was_given() -> None:
    whole = '{"name": "Ada", "size": "large"}'
    accepted = "accept Answer(name='Ada', size='{}', age=None)\n"
    given = dragoman("call", ODD, "ask_person", "--answer", whole)
    assert given.stdout == accepted.format("large")
    single = dragoman("call", ODD, "ask_person", "--answer", "Ada")
    assert single.stdout == accepted.format("small")


@pytest.mark.long
def test_a_form_that_needs_more_than_a_yes_is_declined() -> None:
    assert dragoman("call", ODD, "ask_person").stdout == "decline None\n"
    done = dragoman("call", ODD, "ask_person", "--yes")
    assert done.stdout == "decline None\n"
    assert "the form needs name" in done.stderr


def test_an_address_is_shown_and_agreed_to() -> None:
    done = dragoman("call", ODD, "ask_visit", "--yes")
    assert done.stdout == "accept\n"
    assert "https://example.com/pay" in done.stderr


def test_roots_are_told_to_the_server(tmp_path: Path) -> None:
    found = document("call", ODD, "roots", "--roots", str(tmp_path))
    assert found["structuredContent"] == {"result": [tmp_path.as_uri()]}


# --- beside the result ------------------------------------------------------------------------


@pytest.mark.long
def test_log_messages_go_to_stderr_from_their_level_on() -> None:
    plain = dragoman("call", ODD, "chatter")
    assert plain.stdout == "said\n"
    assert "[warning odd] a warning" in plain.stderr
    assert '[error odd] {"code":7}' in plain.stderr
    assert "a detail" not in plain.stderr
    assert_harmless(plain.stderr)
    assert "[debug odd] a detail" in dragoman("call", ODD, "chatter", "--log-level", "debug").stderr


def test_wire_shows_every_message_and_nothing_a_terminal_obeys() -> None:
    done = dragoman("call", ODD, "hostile", "--wire", "--json")
    lines = done.stderr.splitlines()
    assert lines[0].startswith('→ {"jsonrpc":"2.0","id":1,"method":"initialize"')
    # initialize, initialized, tools/list and tools/call, and three answers.
    assert [line[0] for line in lines] == list("→←→→←→←")
    assert "hello \x1b[2J" in json.loads(done.stdout)["content"][0]["text"]
    assert_harmless(done.stdout, done.stderr)


def test_nothing_a_server_says_of_itself_is_obeyed() -> None:
    for command in ("list", "inspect"):
        done = dragoman(command, ODD)
        assert "\\x1b[2J" in done.stdout
        assert_harmless(done.stdout, done.stderr)


@pytest.mark.long
def test_a_flood_of_such_lines_is_said_once() -> None:
    done = run_bare("flood")
    assert done.returncode == 0
    assert done.stderr.count("noise") == 5
    assert done.stderr.count("not shown") == 1


@pytest.mark.long
def test_a_broken_rule_is_told_and_does_no_harm() -> None:
    done = run_bare("stray")
    assert done.returncode == 0
    assert "[dragoman] the server broke the protocol" in done.stderr
    assert_harmless(done.stderr)


@pytest.mark.long
def test_a_line_that_is_no_message_is_shown_and_does_no_harm() -> None:
    done = dragoman("call", BARE, "variables", "names=HOME")
    assert done.returncode == 0
    assert "no message: Welcome to \\x1b[2Jthe server" in done.stderr
    assert_harmless(done.stderr)


@pytest.mark.long
def test_the_servers_stderr_is_shown_when_asked_for() -> None:
    done = dragoman("ping", ODD, "--stderr")
    assert "[stderr] a banner that must not reach the client" in done.stderr
    assert "banner" not in dragoman("ping", ODD).stderr


@pytest.mark.long
def test_a_stream_that_holds_only_ascii_gets_escapes() -> None:
    env = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    plain = dragoman("inspect", WEATHER, env=env)
    assert plain.returncode == 0
    assert "\\xb0C" in plain.stdout
    assert plain.stdout.isascii()
    as_json = dragoman("inspect", WEATHER, "--json", env=env)
    assert "°C" in json.loads(as_json.stdout)["instructions"]
    wire = dragoman("ping", WEATHER, "--wire", env=env)
    assert (wire.returncode, wire.stderr[:6]) == (0, "\\u2192")


@pytest.mark.long
def test_a_result_of_megabytes_is_printed_whole() -> None:
    done = dragoman("call", ODD, "echo", "--args", "-", stdin=json.dumps({"text": "x" * 3_000_000}))
    assert len(done.stdout) == 3_000_000 + len("'' 1 None None False\n")


# --- targets ----------------------------------------------------------------------------------


def test_a_command_line_stands_after_two_dashes() -> None:
    done = dragoman("call", "echo", "text=hi", "--", sys.executable, ODD)
    assert done.stdout == "'hi' 1 None None False\n"


@pytest.mark.long
def test_an_object_in_a_file_is_a_target(tmp_path: Path) -> None:
    file = tmp_path / "two.py"
    file.write_text("from dragoman import Server\na = Server('first')\nb = Server('second')\n")
    assert dragoman("ping", f"{file}:b").stdout.startswith("second 0 answered")


@pytest.mark.long
def test_a_name_is_found_in_the_projects_file(tmp_path: Path) -> None:
    settings = {
        "command": sys.executable,
        "args": [BARE],
        "env": {"GREETING": "${WORD}", "OTHER": "file"},
        "cwd": "inner",
    }
    (tmp_path / "inner").mkdir()
    (tmp_path / ".mcp.json").write_text(json.dumps({"mcpServers": {"mine": settings}}))
    words = ["--env", "OTHER=option", "--json"]
    done = dragoman(
        "call", "mine", "variables", "names=GREETING", "names=OTHER", "names=HIDDEN", *words,
        env={"WORD": "hello", "HIDDEN": "secret"}, cwd=tmp_path,
    )  # fmt: skip
    assert json.loads(done.stdout)["structuredContent"] == {
        "GREETING": "hello",
        "OTHER": "option",
        "HIDDEN": None,
    }
    where = dragoman("call", "mine", "where", env={"WORD": "hello"}, cwd=tmp_path)
    assert where.stdout == f"{tmp_path / 'inner'}\n"
    unset = dragoman("ping", "mine", cwd=tmp_path)
    assert unset.returncode == 2
    assert "not set: WORD" in unset.stderr


def test_with_config_every_target_is_a_name_in_that_file(tmp_path: Path) -> None:
    file = tmp_path / "some.json"
    file.write_text(json.dumps({"servers": {"o": {"command": sys.executable, "args": [ODD]}}}))
    assert dragoman("ping", "o", "--config", str(file)).returncode == 0
    done = dragoman("ping", ODD, "--config", str(file))
    assert done.returncode == 2
    assert str(file) in done.stderr


def test_a_file_without_a_suffix_needs_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "weather").write_text("")
    monkeypatch.chdir(tmp_path)
    assert main(["list", "weather"]) == 2
    assert "write ./weather" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["list"], "TARGET is missing"),
        (["list", "nowhere.py"], "nowhere.py"),
        (["list", "nowhere"], "nowhere"),
        (["list", "ftp://example.com/mcp"], "https://"),
        (["list", "--"], "empty"),
        (["list", ODD, "more"], "one word too many"),
        (["call", ODD], "TOOL is missing"),
        (["call", ODD, "echo", "text"], "name=value"),
        (["call", ODD, "echo", "text=a", "--args", "{}"], "not both"),
        (["call", ODD, "echo", "--args", "[]"], "JSON object"),
        (["list", ODD, "--revision", "1999-01-01"], "1999-01-01"),
        (["list", ODD, "--timeout", "0"], "timeout"),
        (["list", ODD, "--env", "A"], "NAME=VALUE"),
        (["lst", ODD], "Did you mean 'list'"),
        (["list", ODD, "--jsn"], "--json"),
    ],
)
def test_wrong_words_are_named_and_start_nothing(
    words: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # In this process, since none of them gets as far as starting one.
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert named in err
    assert "Traceback" not in err


CRASHES = """
from dragoman import Server
server = Server("crashes")

@server.tool
def crash() -> str:
    raise KeyError("inside")

server.run()
"""


@pytest.mark.long
def test_a_crash_says_where_its_traceback_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "crashes.py"
    file.write_text(CRASHES)
    plain = dragoman("call", str(file), "crash")
    assert plain.returncode == 1
    assert "error id" in plain.stderr
    assert "--stderr shows" in plain.stderr
    asked = dragoman("call", str(file), "crash", "--stderr")
    assert "KeyError: 'inside'" in asked.stderr
    assert "--stderr shows" not in asked.stderr


def test_the_logs_of_a_program_are_left_as_they_were() -> None:
    logger = logging.getLogger("dragoman")
    before = (list(logger.handlers), logger.propagate)
    assert main(["list", ODD, "--revision", "1999-01-01"]) == 2
    assert (list(logger.handlers), logger.propagate) == before


# --- how it ends ------------------------------------------------------------------------------


def run_bare(*words: str) -> subprocess.CompletedProcess[str]:
    """A bare server that misbehaves; options stand before the dashes."""
    *options, how = words
    return dragoman("ping", *options, "--", sys.executable, BARE, how)


@pytest.mark.long
def test_a_server_that_cannot_start_is_told_with_its_last_words() -> None:
    done = run_bare("exit")
    assert done.returncode == 3
    assert "exited with status 7" in done.stderr
    assert "no licence \\x1b[31mfound" in done.stderr
    error = json.loads(run_bare("--json", "exit").stdout)["error"]
    assert error["kind"] == "no-connection"
    assert error["childExitCode"] == 7
    assert dragoman("ping", "--", "no-such-program-anywhere").returncode == 3


@pytest.mark.long
def test_a_script_that_does_not_serve_gets_a_hint() -> None:
    done = run_bare("leave")
    assert done.returncode == 3
    assert "server.run()" in done.stderr


def test_a_server_that_dies_during_a_call_is_a_lost_connection() -> None:
    done = dragoman("call", ODD, "die")
    assert done.returncode == 3
    assert "dying now" in done.stderr
    assert_harmless(done.stderr)


@pytest.mark.long
def test_a_server_that_does_not_answer_is_a_timeout() -> None:
    done = run_bare("--timeout", "0.4", "silent")
    assert done.returncode == 5
    assert "timeout_s" not in done.stderr
    found = document("call", ODD, "hang", "--timeout", "0.4", code=5)
    assert found["error"]["kind"] == "timeout"
    assert "pass --timeout SECONDS to wait longer" in found["error"]["message"]


@pytest.mark.long
def test_a_server_of_another_revision_is_a_remote_fault() -> None:
    assert run_bare("answer").returncode == 4


def test_ctrl_c_ends_the_command_and_its_server_without_a_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "dragoman", "call", ODD, "hang", "--wire"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=environment(),
    )
    with process:
        assert process.stderr is not None
        assert process.stdout is not None
        seen = ""
        while "notifications/progress" not in seen:
            seen += process.stderr.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.stdout.read() == ""
        assert process.wait(PATIENCE_S) == 130
    assert "notifications/cancelled" in rest
    assert rest.endswith("error: interrupted\n")
    assert "Traceback" not in rest


@pytest.mark.long
@pytest.mark.parametrize("words", [["list", ODD], ["inspect", ODD, "--json"], ["version"]])
def test_a_reader_that_leaves_ends_the_command_quietly(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "dragoman", *words],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=environment(),
            timeout=PATIENCE_S,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.long
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is always full")
@pytest.mark.parametrize("words", [["list", ODD], ["list", "nowhere", "--json"], ["version"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_stdout_is_told_in_a_line(words: list[str], unbuffered: str) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "dragoman", *words],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=environment(PYTHONUNBUFFERED=unbuffered),
            timeout=PATIENCE_S,
        )
    said = "error: it could not be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (74, said)


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="closes streams by their numbers")
@pytest.mark.parametrize("closed", [(1,), (0,), (0, 1, 2)])
def test_a_closed_stream_is_nowhere_and_no_file_takes_its_place(closed: tuple[int, ...]) -> None:
    code = (
        "import os, sys\n"
        f"for number in {closed}: os.close(number)\n"
        f"os.execv(sys.executable, [sys.executable, '-m', 'dragoman', 'call', {ODD!r}, 'echo',"
        " 'text=x'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        encoding="utf-8",
        env=environment(),
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.long
def test_an_error_in_json_is_one_document_too() -> None:
    for words, kind in (
        (["list", "nowhere"], "usage"),
        (["nothing"], "usage"),
        (["call", ODD, "echo", "x=1"], "usage"),
    ):
        found: Any = document(*words, code=2)
        assert found["error"]["kind"] == kind
        assert found["error"]["exit"] == 2
        assert found["error"]["message"]
