"""Where a model is and which key goes there: addresses, variables, what a server really is sent."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import pytest

from dragoman.errors import Misconfigured
from dragoman.host.models.anthropic_messages import AnthropicMessages
from dragoman.host.models.base import (
    ModelError,
    ModelRequest,
    TextDelta,
    Trouble,
    streamed,
)
from dragoman.host.models.endpoint import endpoint
from dragoman.host.models.openai_chat import OpenAIChat
from dragoman.host.models.opening import open_model
from dragoman.model.content import TextContent
from dragoman.model.sampling import SamplingMessage
from tests.host.model_servers import ModelServer, Reply, chunks, error, message, model_server
from tests.support import run

# Loaded by the first test that needs them: it takes a second or two.
pytestmark = pytest.mark.skipif(
    find_spec("openai") is None or find_spec("anthropic") is None,
    reason="openai or anthropic is not installed",
)

HELLO = ModelRequest(messages=[SamplingMessage(role="user", content=TextContent(text="hi"))])
SECRET = "sk-the-real-one"

# What either library takes from the environment and sends along.
AMBIENT = {
    "OPENAI_API_KEY": SECRET,
    "OPENAI_ADMIN_KEY": SECRET,
    "OPENAI_ORG_ID": SECRET,
    "OPENAI_PROJECT_ID": SECRET,
    "OPENAI_CUSTOM_HEADERS": f"X-Gateway: {SECRET}\nAuthorization: Bearer {SECRET}",
    "ANTHROPIC_API_KEY": SECRET,
    "ANTHROPIC_CUSTOM_HEADERS": f"X-Gateway: {SECRET}\nAuthorization: Bearer {SECRET}",
}

Make = Callable[..., OpenAIChat | AnthropicMessages]
both = pytest.mark.parametrize("make", [OpenAIChat, AnthropicMessages])


@pytest.fixture(autouse=True)
def no_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN", *AMBIENT):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ambient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AMBIENT.items():
        monkeypatch.setenv(name, value)


def ok(make: Make) -> Reply:
    return Reply(body=chunks("ok") if make is OpenAIChat else message("ok"))


async def ask(model: OpenAIChat | AnthropicMessages) -> str:
    try:
        async with streamed(model, HELLO) as events:
            return "".join([one.text async for one in events if isinstance(one, TextDelta)])
    finally:
        await model.aclose()


async def asked(make: Make, *replies: Reply, **options: str) -> ModelServer:
    """What a server got that a model with these options was sent to."""
    async with model_server(*(replies or (ok(make),))) as server:
        assert await ask(make("m", base_url=f"{server.base_url}/v1", **options)) == "ok"
        return server


def keys_in(headers: dict[str, str]) -> set[str]:
    """The keys that were sent, whichever headers carry them."""
    found = (headers.get("x-api-key", ""), headers.get("authorization", ""))
    return {one.removeprefix("Bearer ") for one in found} - {""}


# --- which key goes where ----------------------------------------------------------------------


@both
@pytest.mark.usefixtures("ambient")
def test_another_address_is_sent_nothing_of_the_environment(make: Make) -> None:
    server = run(asked(make))
    assert SECRET not in str(server.headers)
    assert keys_in(server.headers[0]) == set()
    # Nor what the library tells its own provider about this machine.
    assert not [name for name in server.headers[0] if name.startswith("x-")]


@both
@pytest.mark.usefixtures("ambient")
def test_another_address_is_sent_the_key_that_was_given_for_it(make: Make) -> None:
    server = run(asked(make, api_key="for-this-one\n"))
    assert SECRET not in str(server.headers)
    assert keys_in(server.headers[0]) == {"for-this-one"}
    # Gateways look for it there, whatever the API.
    assert server.headers[0]["authorization"] == "Bearer for-this-one"
    own = server.headers[0].get("x-api-key")
    assert own == ("for-this-one" if make is AnthropicMessages else None)


@both
@pytest.mark.usefixtures("ambient")
def test_an_address_in_the_environment_is_another_address_as_well(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def through_the_variable() -> ModelServer:
        async with model_server(ok(make)) as server:
            monkeypatch.setenv("OPENAI_BASE_URL", f"{server.base_url}/v1")
            monkeypatch.setenv("ANTHROPIC_BASE_URL", server.base_url)
            assert await ask(make("m")) == "ok"
            return server

    server = run(through_the_variable())
    assert SECRET not in str(server.headers)
    # As at any other server that only speaks the same.
    assert "max_tokens" in server.requests[0]


@both
@pytest.mark.usefixtures("ambient")
def test_who_is_refused_without_a_key_hears_which_one_was_not_sent(make: Make) -> None:
    with pytest.raises(ModelError) as caught:
        run(asked(make, error(401, {"error": {"message": "who are you"}})))
    assert caught.value.kind is Trouble.AUTH
    assert "_API_KEY was not sent there" in str(caught.value)
    assert "--key-env" in str(caught.value)
    assert SECRET not in str(caught.value)


@both
def test_who_has_no_key_hears_which_variable_should_hold_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make("m")
    assert model.missing_key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")
    with pytest.raises(ModelError, match=f"set {model.missing_key}, or name another") as caught:
        run(ask(model))
    assert caught.value.kind is Trouble.AUTH
    assert make("m", api_key="sk-1").missing_key == ""
    assert make("m", base_url="http://127.0.0.1:1").missing_key == ""
    monkeypatch.setenv(model.missing_key, SECRET)
    assert model.missing_key == ""


def test_a_token_in_the_environment_is_not_sent_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", SECRET)
    server = run(asked(AnthropicMessages))
    assert keys_in(server.headers[0]) == set()
    with pytest.raises(ModelError, match="ANTHROPIC_AUTH_TOKEN was not sent there"):
        run(asked(AnthropicMessages, error(401, {"error": {"message": "who are you"}})))


@both
@pytest.mark.parametrize("key", ["", "  ", "two words", "k\u00e9y", "a\nb"])
def test_what_can_be_no_key_is_refused_at_once(make: Make, key: str) -> None:
    with pytest.raises(Misconfigured, match="the key is empty, or has characters"):
        make("m", api_key=key)


# --- which addresses there are -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "url"),
    [
        ("openai", None),
        ("openai", "https://api.openai.com/v1"),
        ("openai", "https://eu.api.openai.com/v1/"),
        ("anthropic", "https://api.anthropic.com"),
    ],
)
def test_the_providers_own_addresses_are_no_others(provider: str, url: str | None) -> None:
    end = endpoint(provider, url, None, allow_plain_http=False)
    assert (end.is_own, end.sink) == (False, provider)


@pytest.mark.parametrize(
    ("url", "sink"),
    [
        ("https://llm.example.com/v1", "llm.example.com"),
        ("https://api.openai.com:8443/v1", "api.openai.com:8443"),
        ("https://api.openai.com.example.com/v1", "api.openai.com.example.com"),
        ("https://xapi.openai.com/v1", "xapi.openai.com"),
        ("http://127.0.0.1:11434/v1", "127.0.0.1:11434"),
        ("http://[::1]:8080/v1", "[::1]:8080"),
        ("http://localhost:1234/v1", "localhost:1234"),
    ],
)
def test_any_other_address_is_called_by_its_host(url: str, sink: str) -> None:
    end = endpoint("openai", url, None, allow_plain_http=False)
    assert (end.is_own, end.sink) == (True, sink)
    model = OpenAIChat("qwen3", base_url=url)
    # Two models of one name are told apart, and rules on flows see where the words go.
    assert (model.name, model.provider) == (f"openai:qwen3@{sink}", sink)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://llm.example.com/v1", "not encrypted"),
        ("http://192.168.1.5:11434/v1", "not encrypted"),
        ("http://127.0.0.1.example.com/v1", "not encrypted"),
        ("http://api.openai.com/v1", "not encrypted"),
        ("https://user:pass@llm.example.com/v1", "name or password"),
        ("https://llm.example.com/v1?key=abc", "a query"),
        ("ftp://llm.example.com", "begins with http"),
        ("llm.example.com", "begins with http"),
        ("", "begins with http"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_with_its_reason(url: str, why: str) -> None:
    with pytest.raises(Misconfigured, match=why) as caught:
        endpoint("openai", url, "k", allow_plain_http=False)
    assert "pass" not in str(caught.value).replace("password", "")
    assert "abc" not in str(caught.value)


def test_a_network_that_is_trusted_may_be_talked_to_in_the_clear() -> None:
    model = open_model(
        "openai:qwen3", base_url="http://192.168.1.5:11434/v1", allow_plain_http=True
    )
    assert model.provider == "192.168.1.5:11434"


@both
def test_no_proxy_of_the_environment_hears_what_is_said_to_this_machine(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def with_a_proxy() -> int:
        async with model_server(ok(make)) as proxy:
            for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
                monkeypatch.setenv(name, proxy.base_url)
            monkeypatch.delenv("NO_PROXY", raising=False)
            monkeypatch.delenv("no_proxy", raising=False)
            await asked(make)
            return len(proxy.requests)

    assert run(with_a_proxy()) == 0


@both
def test_a_proxy_of_the_environment_is_used_for_what_is_elsewhere(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def with_a_proxy() -> ModelServer:
        async with model_server(ok(make)) as proxy:
            for name in ("HTTP_PROXY", "http_proxy"):
                monkeypatch.setenv(name, proxy.base_url)
            monkeypatch.delenv("NO_PROXY", raising=False)
            monkeypatch.delenv("no_proxy", raising=False)
            model = make("m", base_url="http://llm.invalid/v1", allow_plain_http=True)
            assert await ask(model) == "ok"
            return proxy

    proxy = run(with_a_proxy())
    assert proxy.paths[0].startswith("http://llm.invalid/v1/")
    assert "content-length" in proxy.headers[0]


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_the_messages_are_found_whether_the_address_ends_with_v1_or_not(end: str) -> None:
    async def through(path: str) -> list[str]:
        async with model_server(ok(AnthropicMessages)) as server:
            await ask(AnthropicMessages("m", base_url=server.base_url + path))
            return server.paths

    assert run(through(end)) == ["/v1/messages"]


def test_an_address_that_lacks_v1_is_told_so() -> None:
    async def without() -> None:
        async with model_server(error(404, {"detail": "Not Found"})) as server:
            await ask(OpenAIChat("m", base_url=server.base_url))

    with pytest.raises(ModelError, match="end with /v1") as caught:
        run(without())
    assert (caught.value.kind, caught.value.status) == (Trouble.NOT_FOUND, 404)


def test_a_script_has_no_address() -> None:
    with pytest.raises(Misconfigured, match="takes no base_url"):
        open_model("scripted:x.json", base_url="http://127.0.0.1:1/v1")


# --- parameters that not every server takes ----------------------------------------------------

REFUSALS = [
    # As OpenAI and Azure say it, as servers made with pydantic do, and as vLLM does.
    (400, {"error": {"message": "Unsupported parameter: 'max_tokens' is not supported with this"
                     " model. Use 'max_completion_tokens' instead.", "param": "max_tokens"}}),
    (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "max_tokens"],
                       "msg": "Extra inputs are not permitted"}]}),
    (400, {"object": "error", "message": "[{'type': 'extra_forbidden', 'loc': ('body', "
           "'max_tokens')}]", "code": 400}),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body"), REFUSALS)
def test_a_server_that_wants_the_limit_under_its_other_name_gets_it(
    status: int, body: dict[str, object]
) -> None:
    async def twice() -> ModelServer:
        replies = (error(status, body), ok(OpenAIChat), ok(OpenAIChat))
        async with model_server(*replies) as server:
            model = OpenAIChat("m", base_url=server.base_url)
            for _ in range(2):
                async with streamed(model, HELLO) as events:
                    heard = [one async for one in events]
                assert TextDelta("ok") in heard
            await model.aclose()
            return server

    first, second, third = run(twice()).requests
    assert "max_tokens" in first
    # It is remembered: the refusal is paid for once.
    for later in (second, third):
        assert later["max_completion_tokens"] == 4096
        assert "max_tokens" not in later


def test_a_server_that_knows_neither_the_limits_name_nor_usage_is_asked_without() -> None:
    def unknown(name: str) -> Reply:
        return error(422, {"detail": [{"type": "extra_forbidden", "loc": ["body", name]}]})

    server = run(
        asked(OpenAIChat, unknown("stream_options"), unknown("max_tokens"), ok(OpenAIChat))
    )
    assert "stream_options" in server.requests[0]
    assert "stream_options" not in server.requests[2]
    assert "max_completion_tokens" in server.requests[2]


def test_a_limit_that_is_only_too_large_is_for_the_person_to_read() -> None:
    body = {"error": {"message": "max_tokens is too large: 4096; this model has 2048"}}
    with pytest.raises(ModelError, match="too large") as caught:
        run(asked(OpenAIChat, error(400, body)))
    assert caught.value.kind is Trouble.BAD_REQUEST


def test_what_is_refused_again_is_not_asked_for_ever() -> None:
    refusal = error(*REFUSALS[0])
    other = error(400, {"error": {"message": "max_completion_tokens is not supported"}})

    async def count() -> int:
        async with model_server(refusal, other, refusal, other) as server:
            with pytest.raises(ModelError):
                await ask(OpenAIChat("m", base_url=server.base_url))
            return len(server.requests)

    assert run(count()) == 3


@both
@pytest.mark.parametrize("before", ["", None])
def test_a_variable_that_is_empty_or_comes_later_does_not_move_the_provider(
    make: Make, before: str | None, monkeypatch: pytest.MonkeyPatch, ambient: None
) -> None:
    name = "OPENAI_BASE_URL" if make is OpenAIChat else "ANTHROPIC_BASE_URL"
    if before is not None:
        monkeypatch.setenv(name, before)

    async def main() -> str:
        model = make("m")
        if before is None:
            monkeypatch.setenv(name, "https://elsewhere.example/v1")
        client = model.connected(
            getattr(model.library, "AsyncOpenAI" if make is OpenAIChat else "AsyncAnthropic"),
            None,
            model.endpoint.url,
        )
        await model.aclose()
        return str(client.base_url)

    official = "https://api.openai.com/v1" if make is OpenAIChat else "https://api.anthropic.com/v1"
    assert run(main()).rstrip("/") == official
