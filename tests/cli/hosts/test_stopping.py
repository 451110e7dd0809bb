"""A person stops what they began, and sees that it is being stopped."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.aids import ODD
from tests.cli.hosts.places import Place, call
from tests.requirements.duties import duty

RULES = ("server.start(odd)", "tool.expose(odd/*)", "tool(odd/hang)")


@duty("calls.cancel.shown", "tools.ui.invoked")
def test_that_a_call_is_being_cancelled_is_shown_at_once_and_the_chat_goes_on(
    tmp_path: Path,
) -> None:
    if sys.platform == "win32":
        pytest.skip("needs a POSIX terminal")
    odd = Place(
        tmp_path, {"odd": {"command": sys.executable, "args": ["-m", "dragoman", "run", ODD]}}
    )
    model = odd.script(call("odd__hang"), "After that.")
    rules = [word for rule in RULES for word in ("--policy", f"allow {rule}")]
    with odd.screen("chat", "--model", model, *rules, TERM="dumb") as screen:
        screen.expect("/help")
        screen.expect("> ")
        screen.type("Hang!\n")
        screen.expect("→ odd/hang")
        screen.type("\x03")
        screen.expect("cancelling; Ctrl-C again leaves")
        screen.expect("cancelled")
        screen.expect("> ")
        screen.type("Go on\n")
        screen.expect("After that.")
        screen.expect("> ")
        screen.type("\x04")
        assert screen.finish() == 0
