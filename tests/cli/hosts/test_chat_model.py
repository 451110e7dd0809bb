"""The flags of `dragoman chat` about its model."""

from __future__ import annotations

import asyncio
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from dragoman.cli import main
from tests.cli.aids import environment
from tests.cli.hosts.places import Place
from tests.host.model_servers import ModelServer, Reply, chunks, model_server
from tests.support import run

pytestmark = pytest.mark.skipif(find_spec("openai") is None, reason="openai is not installed")

BASE = ("chat", "Hello?", "--model", "openai:m")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--base-url", "http://192.168.1.5:11434/v1"), "--allow-plain-http"),
        (("--base-url", "127.0.0.1:11434"), "begins with http://"),
        (("--base-url", "https://me:secret@llm.example.com"), "give the key by itself"),
        (("--key-env", "NO_SUCH_KEY"), "no variable NO_SUCH_KEY"),
        (("--context-tokens", "3"), "--context-tokens"),
        (("--model", "scripted:x", "--base-url", "http://127.0.0.1:1"), "takes no base_url"),
    ],
)
def test_an_address_or_key_that_cannot_be_used_is_told_before_anything_starts(
    words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*BASE, *words]) == 2
    said = capsys.readouterr().err
    assert told in " ".join(said.split())
    assert "secret" not in said


def test_a_key_that_is_not_set_is_told_of_before_servers_are(tmp_path: Path) -> None:
    place = Place(tmp_path)
    done = place.run(*BASE)
    assert done.returncode != 0
    first, *others = done.stderr.splitlines()
    assert first.startswith("OPENAI_API_KEY is not set")
    assert any(line.startswith("weather is refused") for line in others)


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "sent"), [((), None), (("--key-env", "MY_KEY"), "Bearer for-this-one")]
)
def test_a_chat_with_a_server_at_an_address_of_its_own(
    tmp_path: Path, words: tuple[str, ...], sent: str | None
) -> None:
    place = Place(tmp_path, {})
    env = {"OPENAI_API_KEY": "sk-real", "MY_KEY": "for-this-one"}

    async def chat() -> tuple[str, ModelServer]:
        async with model_server(Reply(body=chunks("Good day."))) as server:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "dragoman", *BASE, "--base-url", f"{server.base_url}/v1"),
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment(**place.env, **env),
                cwd=place.folder,
            )
            out, err = await process.communicate()
            assert process.returncode == 0, err.decode()
            return out.decode(), server

    said, server = run(chat())
    assert "Good day." in said
    assert server.paths == ["/v1/chat/completions"]
    assert server.headers[0].get("authorization") == sent
    assert server.requests[0]["max_tokens"] > 0
