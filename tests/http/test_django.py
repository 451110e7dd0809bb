"""The app beside a real Django, chosen by path as docs/http.md says, served by a real uvicorn."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from dragoman import Client
from tests.support import run

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "http.md"

PATIENCE_S = 30.0

# What a project has around the lines of the page; settings, routes and the server in one file.
BEFORE = """
import socket
import django
import uvicorn
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path
from dragoman import Context, Server

settings.configure(ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF=__name__, SECRET_KEY="of a test")
server = Server("beside-django")

@server.tool
async def count(to: int, ctx: Context) -> str:
    for number in range(1, to + 1):
        await ctx.report_progress(number, to)
    return f"counted to {to}"

urlpatterns = [path("hello", lambda request: HttpResponse("from Django"))]
"""
AFTER = """
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
config = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=5)
uvicorn.Server(config).run(sockets=[listening])
"""


def quoted() -> str:
    """The lines for Django's `asgi.py` that the page shows."""
    (found,) = [
        block.split("```")[0]
        for block in PAGE.read_text("utf-8").split("```py\n")[1:]
        if "get_asgi_application" in block.split("```")[0]
    ]
    return found


@pytest.mark.long
def test_a_django_project_serves_both_transports_beside_its_own_pages(tmp_path: Path) -> None:
    file = tmp_path / "asgi.py"
    file.write_text(BEFORE + quoted() + AFTER, "utf-8")
    process = subprocess.Popen(
        [sys.executable, str(file)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "DJANGO_SETTINGS_MODULE": ""},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        place = f"http://127.0.0.1:{int(line)}"
        assert urlopen(f"{place}/hello", timeout=PATIENCE_S).read() == b"from Django"

        async def use(path: str) -> None:
            heard: list[float] = []
            async with Client(f"{place}/agents/{path}") as client:
                result = await client.call_tool(
                    "count", {"to": 3}, on_progress=lambda told: heard.append(told.progress)
                )
                assert result.text == "counted to 3"
                assert heard == [1, 2, 3]

        run(use("mcp"))
        run(use("sse"))
        # Django goes on beside it.
        assert urlopen(f"{place}/hello", timeout=PATIENCE_S).read() == b"from Django"
        process.terminate()
        _, said = process.communicate(timeout=PATIENCE_S)
        assert "Traceback" not in said
    finally:
        process.kill()
        process.communicate()
