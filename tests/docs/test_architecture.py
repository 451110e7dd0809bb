"""The page on the architecture names the files that one call of a host really passes through."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from dragoman.host import Host
from tests.docs.test_documented import page, sections
from tests.layout.source import ROOT, SRC, modules
from tests.support import run

HOST = SRC / "host"


def test_the_files_that_a_host_call_passes_through_are_those_that_are_listed(
    tmp_path: Path,
) -> None:
    weather = {"command": sys.executable, "args": [str(ROOT / "examples/weather_server.py")]}
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"weather": weather}}))
    passed: set[str] = set()

    def notice(frame: FrameType, event: str, argument: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(HOST):
            passed.add(path.relative_to(HOST).as_posix())

    async def call() -> None:
        options: Any = {"approver": lambda request: True, "state": tmp_path / "state"}
        # A rule that has to be looked at, and says nothing about this call.
        rules = ["deny tool(weather/forecast, city=Atlantis)"]
        async with Host.load(config, rules=rules, environ={}, **options) as host:
            await host.ready()
            before = sys.getprofile()
            sys.setprofile(notice)
            try:
                await host.call_tool("weather", "forecast", {"city": "Oslo"})
            finally:
                sys.setprofile(before)

    run(call())
    text = sections(page("architecture.md"))["The files one host call passes through"]
    steps = text.partition("\n1. ")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([\w/]+\.py)`", steps)) - {"client/client.py"}
    assert named == passed
    assert f"{_WORDS[len(passed)]} files of `host/`" in text


_WORDS = {18: "eighteen", 19: "nineteen", 20: "twenty", 21: "twenty-one"}


def test_every_file_of_the_host_has_its_place_on_the_page() -> None:
    text = sections(page("architecture.md"))["The files one host call passes through"]
    for module in modules().values():
        if module.layer != "host" or module.path.name == "__init__.py":
            continue
        path = module.path.relative_to(HOST)
        assert f"`{path.as_posix()}`" in text or f"`{path.parts[0]}/`" in text, path


def test_every_layer_that_is_there_is_in_the_table() -> None:
    text = sections(page("architecture.md"))["The layers"]
    for layer in {module.layer for module in modules().values()} - {"", "__main__", "errors"}:
        assert f"`{layer}/`" in text, layer
