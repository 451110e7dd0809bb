"""The dragoman client against the reference servers of the protocol's own repository."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from dragoman import Client, RemoteFailure, ToolError
from dragoman.model.completion import PromptReference, ResourceTemplateReference
from dragoman.model.content import EmbeddedResource, ImageContent, ResourceLink, TextContent
from dragoman.model.elicitation import ElicitParams, ElicitResult
from dragoman.model.roots import Root
from dragoman.model.sampling import CreateMessageParams, CreateMessageResult
from interop import peers
from tests.interop.documents import PNG_SIGNATURE, REVISIONS
from tests.interop.serving import PATHS, Program

pytestmark = pytest.mark.interop

EVERYTHING = "@modelcontextprotocol/server-everything"
FILESYSTEM = "@modelcontextprotocol/server-filesystem"
MEMORY = "@modelcontextprotocol/server-memory"


async def on_sampling(params: CreateMessageParams) -> CreateMessageResult:
    answer = TextContent(text=f"at most {params.max_tokens} tokens")
    return CreateMessageResult(role="assistant", content=answer, model="our-model")


async def on_elicit(params: ElicitParams) -> ElicitResult:
    return ElicitResult(action="decline")


Reach = Callable[[], "str | list[str]"]


@pytest.fixture(scope="module", params=["(stdio)", "(sse)", "(streamable)"])
def reach(request: pytest.FixtureRequest) -> Iterator[Reach]:
    """How to reach server-everything over each transport; over HTTP one process serves all tests."""
    transport = request.param.strip("()")
    if transport == "stdio":
        yield lambda: peers.binary("server-everything", EVERYTHING, "stdio")
        return
    mode = {"sse": "sse", "streamable": "streamableHttp"}[transport]
    with Program(
        f"server-everything-{mode}",
        lambda port: peers.binary("server-everything", EVERYTHING, mode),
        env=lambda port: {"PORT": str(port)},
    ) as program:
        yield lambda: program.url + PATHS[transport]


def everything(
    reach: Reach,
    use: Callable[[Client], Awaitable[None]],
    *,
    revision: str | None = None,
    roots: tuple[Root, ...] = (),
) -> None:
    """Run `use` with a client of server-everything that can answer whatever it is asked."""

    async def run() -> None:
        async with Client(
            reach(),
            revision=revision,
            timeout_s=20,
            sampling_handler=on_sampling,
            elicitation_handler=on_elicit,
            roots=list(roots),
        ) as client:
            await use(client)

    asyncio.run(run())


@pytest.mark.parametrize("revision", REVISIONS)
def test_everything_speaks_every_revision(reach: Reach, revision: str) -> None:
    async def use(client: Client) -> None:
        assert client.protocol_version == revision
        assert client.server_info.name == "mcp-servers/everything"
        result = await client.call_tool("get-sum", {"a": 2, "b": 3})
        assert result.text == "The sum of 2 and 3 is 5."

    everything(reach, use, revision=revision)


def test_everything_lists_what_it_offers(reach: Reach) -> None:
    async def use(client: Client) -> None:
        tools = {tool.name: tool for tool in await client.list_tools()}
        assert {"echo", "get-sum", "get-structured-content", "get-tiny-image"} <= set(tools)
        assert tools["get-structured-content"].output_schema is not None
        templates = [entry.uri_template for entry in await client.list_resource_templates()]
        assert "demo://resource/dynamic/text/{resourceId}" in templates
        prompts = {prompt.name: prompt for prompt in await client.list_prompts()}
        assert prompts["args-prompt"].title == "Arguments Prompt"
        assert len(await client.list_resources()) >= 7

    everything(reach, use)


def test_everything_returns_every_kind_of_content(reach: Reach) -> None:
    async def use(client: Client) -> None:
        picture = (await client.call_tool("get-tiny-image")).content
        assert [type(block) for block in picture] == [TextContent, ImageContent, TextContent]
        assert isinstance(picture[1], ImageContent)
        assert base64.b64decode(picture[1].data, validate=True).startswith(PNG_SIGNATURE)
        links = (await client.call_tool("get-resource-links", {"count": 2})).content
        assert [type(block) for block in links] == [TextContent, ResourceLink, ResourceLink]
        assert isinstance(links[2], ResourceLink)
        assert links[2].uri == "demo://resource/dynamic/text/2"
        arguments = {"resourceType": "Text", "resourceId": 1}
        embedded = (await client.call_tool("get-resource-reference", arguments)).content[1]
        assert isinstance(embedded, EmbeddedResource)
        assert embedded.resource.uri == "demo://resource/dynamic/text/1"
        arguments = {"messageType": "error", "includeImage": False}
        (noted,) = (await client.call_tool("get-annotated-message", arguments)).content
        assert noted.annotations is not None
        assert noted.annotations.audience == ["user", "assistant"]

    everything(reach, use)


def test_everything_returns_structured_content(reach: Reach) -> None:
    async def use(client: Client) -> None:
        result = await client.call_tool("get-structured-content", {"location": "New York"})
        assert result.data == {"temperature": 33, "conditions": "Cloudy", "humidity": 82}

    everything(reach, use)


def test_everything_reports_progress(reach: Reach) -> None:
    steps: list[tuple[float, float | None]] = []

    async def use(client: Client) -> None:
        result = await client.call_tool(
            "trigger-long-running-operation",
            {"duration": 0.3, "steps": 3},
            on_progress=lambda update: steps.append((update.progress, update.total)),
        )
        assert "completed" in result.text
        assert steps == [(1, 3), (2, 3), (3, 3)]

    everything(reach, use)


def test_everything_samples_and_elicits(reach: Reach) -> None:
    async def use(client: Client) -> None:
        sampled = await client.call_tool(
            "trigger-sampling-request", {"prompt": "hello", "maxTokens": 17}
        )
        assert "at most 17 tokens" in sampled.text
        elicited = await client.call_tool("trigger-elicitation-request", {})
        assert "decline" in elicited.text

    everything(reach, use)


def test_everything_sees_our_roots(reach: Reach) -> None:
    async def use(client: Client) -> None:
        result = await client.call_tool("get-roots-list")
        assert "file:///srv/project" in result.text

    everything(reach, use, roots=(Root(uri="file:///srv/project", name="project"),))


def test_everything_completes_with_what_is_settled_already(reach: Reach) -> None:
    async def use(client: Client) -> None:
        prompt = PromptReference(name="completable-prompt")
        assert (await client.complete(prompt, "department", "E")).values == ["Engineering"]
        settled = await client.complete(prompt, "name", "", context={"department": "Engineering"})
        assert settled.values == ["Alice", "Bob", "Charlie"]
        template = ResourceTemplateReference(uri="demo://resource/dynamic/text/{resourceId}")
        assert (await client.complete(template, "resourceId", "1")).values == ["1"]

    everything(reach, use)


def test_everything_refuses_what_it_does_not_have(reach: Reach) -> None:
    async def use(client: Client) -> None:
        with pytest.raises(ToolError, match="no-such-tool"):
            await client.call_tool("no-such-tool")
        with pytest.raises(RemoteFailure) as caught:
            await client.get_prompt("no-such-prompt", {})
        assert caught.value.code == -32602

    everything(reach, use)


@pytest.mark.parametrize("mode", ["(sse)", "(streamableHttp)"])
def test_everything_that_is_killed_and_started_again_is_found(mode: str) -> None:
    mode = mode.strip("()")
    program = Program(
        f"server-everything-restarted-{mode}",
        lambda port: peers.binary("server-everything", EVERYTHING, mode),
        env=lambda port: {"PORT": str(port)},
    )

    async def use() -> None:
        path = {"sse": "/sse", "streamableHttp": "/mcp"}[mode]
        async with Client(program.url + path, timeout_s=20) as client:
            await client.call_tool("get-sum", {"a": 2, "b": 3})
            await asyncio.to_thread(program.kill)
            await asyncio.to_thread(program.start)
            result = await client.call_tool("get-sum", {"a": 2, "b": 4}, idempotent=True)
            assert result.text == "The sum of 2 and 4 is 6."

    with program:
        asyncio.run(use())


def test_filesystem_works_inside_our_roots_and_nowhere_else(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")

    async def use() -> None:
        async with Client(
            peers.binary("server-filesystem", FILESYSTEM, str(outside)),
            roots=[Root(uri=inside.as_uri(), name="inside")],
        ) as client:
            # The server takes our roots instead of its command line, once it has asked for them.
            async with asyncio.timeout(20):
                allowed = ""
                while str(inside) not in allowed:
                    allowed = (await client.call_tool("list_allowed_directories")).text
            path = str(inside / "note.txt")
            await client.call_tool("write_file", {"path": path, "content": "grüße\n"})
            assert Path(path).read_text("utf-8") == "grüße\n"
            assert (await client.call_tool("read_text_file", {"path": path})).text == "grüße\n"
            with pytest.raises(ToolError, match="Access denied"):
                await client.call_tool("read_text_file", {"path": str(outside / "secret.txt")})

    asyncio.run(use())


def test_memory_keeps_what_it_is_told(tmp_path: Path) -> None:
    async def use() -> None:
        async with Client(
            peers.binary("server-memory", MEMORY),
            env={"MEMORY_FILE_PATH": str(tmp_path / "graph.jsonl")},
        ) as client:
            ada = {"name": "Ada", "entityType": "person", "observations": ["wrote programs"]}
            made = await client.call_tool("create_entities", {"entities": [ada]})
            assert made.data == {"entities": [ada]}
            found = await client.call_tool("search_nodes", {"query": "programs"})
            assert found.data == {"entities": [ada], "relations": []}
            assert [type(block) for block in found.content] == [TextContent]
        # A second server on the same file remembers.
        async with Client(
            peers.binary("server-memory", MEMORY),
            env={"MEMORY_FILE_PATH": str(tmp_path / "graph.jsonl")},
        ) as client:
            graph = await client.call_tool("read_graph")
            assert graph.data == {"entities": [ada], "relations": []}

    asyncio.run(use())
