"""Run an everything client against an everything server, and check the document it prints.

The checks hold for every pair of programs in interop/programs: each takes the document and the `Pair` it
came from, and fails with what it found.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest

Document = dict[str, Any]

REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
ECHOED = "grüße \U0001f600 \u2028 end"
TOOLS = {
    "add",
    "ask_model",
    "echo",
    "fail",
    "grow",
    "hang",
    "hang_state",
    "image",
    "list_my_roots",
    "log_all_levels",
    "media",
    "ping_client",
    "show_meta",
    "slow",
    "touch",
    "weather",
}
# Tools of the servers whose SDK has what they ask of the client.
OPTIONAL_TOOLS = {"ask_with_tools", "cut", "elicit", "elicit_url"}
WAV = "UklGRgAAAABXQVZF"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

# A client that has not finished by then hangs; most take one or two seconds.
RUN_TIMEOUT_S = 50.0


@dataclass(frozen=True, slots=True)
class Pair:
    """Which programs met, what they must agree on and what one of them cannot do.

    `icons`: its tools have icons. `messages`: progress carries a message. `elicits`: the client answers elicitation. `cancels`: the
    server survives a cancelled request. `cuts`: the server closes the stream of a request before it answers,
    and the client has to come back for the answer. `codes`: the server's error numbers, where a request is answered
    with an error; a name that is missing is answered with a tool result that is an error. `media`: the
    kinds of content it can return at this revision.
    """

    revision: str
    server: str
    codes: dict[str, int]
    media: tuple[str, ...] = ("text", "audio", "resource", "resource_link")
    icons: bool = True
    messages: bool = True
    elicits: bool = True
    cancels: bool = True
    cuts: bool = False

    def has(self, revision: str) -> bool:
        """Whether the agreed revision is `revision` or newer."""
        return REVISIONS.index(self.revision) >= REVISIONS.index(revision)


def grouped(names: Iterable[str]) -> list[Any]:
    """A parameter for each name; tests that share one run in one process (tests/interop/conftest.py)."""
    return [pytest.param(name, id=f"({name})") for name in names]


def run(command: list[str]) -> Document:
    """Run an everything client; its document. Fails with the end of its stderr."""
    done = subprocess.run(command, capture_output=True, timeout=RUN_TIMEOUT_S)
    if done.returncode != 0:
        tail = done.stderr.decode("utf-8", "replace")[-3000:]
        raise AssertionError(f"{command} exited with status {done.returncode}:\n{tail}")
    document = json.loads(done.stdout)
    assert isinstance(document, dict)
    return document


def text_of(result: Document) -> str:
    """The one text of a tool result that is no error."""
    assert not result.get("isError", False), result
    (block,) = result["content"]
    assert block["type"] == "text"
    text = block["text"]
    assert isinstance(text, str)
    return text


def negotiated(document: Document, pair: Pair) -> None:
    assert document["protocolVersion"] == pair.revision


def introduced(document: Document, pair: Pair) -> None:
    assert document["serverInfo"]["name"] == pair.server
    assert document["instructions"] == "Use the tools."
    declared = document["capabilities"]
    assert declared["tools"]["listChanged"] is True
    assert declared["resources"] == {"listChanged": True, "subscribe": True}
    assert declared["prompts"]["listChanged"] is True
    assert "logging" in declared
    assert ("completions" in declared) == pair.has("2025-03-26")


def listed_tools(document: Document, pair: Pair) -> None:
    assert set(document["tools"]) - OPTIONAL_TOOLS == TOOLS
    tool = document["tools"]["add"]
    assert tool["description"] == "Add two integers."
    assert sorted(tool["inputSchema"]["required"]) == ["a", "b"]
    assert tool["inputSchema"]["properties"]["a"]["type"] == "integer"


def decorated(document: Document, pair: Pair) -> None:
    """Each revision shows what it knows and nothing of what came after it."""
    tool = document["tools"]["weather"]
    hinted = tool.get("annotations", {}).get("readOnlyHint")
    assert hinted is (True if pair.has("2025-03-26") else None)
    assert tool.get("title") == ("The weather" if pair.has("2025-06-18") else None)
    icons = [{"src": "https://example.test/sun.png", "mimeType": "image/png"}]
    assert tool.get("icons") == (icons if pair.icons and pair.has("2025-11-25") else None)


def called(document: Document, pair: Pair) -> None:
    assert text_of(document["add"]) == "5"
    assert text_of(document["echo"]) == ECHOED


def called_at_once(document: Document, pair: Pair) -> None:
    assert sorted(document["many"]) == [[number, str(2 * number)] for number in range(32)]


def called_with_a_large_text(document: Document, pair: Pair) -> None:
    assert document["large"] is True


def structured(document: Document, pair: Pair) -> None:
    record = {"city": "Oslo", "degrees": 21.5}
    assert json.loads(text_of(document["weather"])) == record
    declared = "outputSchema" in document["tools"]["weather"]
    assert declared == pair.has("2025-06-18")
    found = document["weather"].get("structuredContent")
    assert found == (record if pair.has("2025-06-18") else None)


def progressed(document: Document, pair: Pair) -> None:
    assert text_of(document["slow"]) == "done 3"
    wanted = [[step, 3, f"step {step}" if pair.messages else None] for step in (1, 2, 3)]
    assert document["progress"] == wanted


def failed(document: Document, pair: Pair) -> None:
    assert document["fail"]["isError"] is True
    (block,) = document["fail"]["content"]
    assert "deliberate failure" in block["text"]


def pictured(document: Document, pair: Pair) -> None:
    (block,) = document["image"]["content"]
    assert (block["type"], block["mimeType"]) == ("image", "image/png")
    assert base64.b64decode(block["data"], validate=True).startswith(PNG_SIGNATURE)


def mixed(document: Document, pair: Pair) -> None:
    assert not document["media"].get("isError", False)
    blocks = document["media"]["content"]
    assert tuple(block["type"] for block in blocks) == pair.media
    assert blocks[0]["text"] == "media"
    for block in blocks:
        if block["type"] == "audio":
            assert (block["data"], block["mimeType"]) == (WAV, "audio/wav")
        if block["type"] == "resource_link":
            assert (block["uri"], block["name"]) == ("interop://blob", "blob")
    texts = [block["resource"].get("text") for block in blocks if block["type"] == "resource"]
    assert "hello from the peer" in texts


def annotated(document: Document, pair: Pair) -> None:
    """What a caller puts into `_meta` arrives."""
    assert json.loads(text_of(document["show_meta"])) == {"interop/note": "kept"}


def sampled(document: Document, pair: Pair) -> None:
    assert text_of(document["ask_model"]) == "assistant|peer-model|answer to why?"
    asked = document["samplingRequests"][0]
    (message,) = asked["messages"]
    assert message["role"] == "user"
    content = message["content"]
    # An array is allowed from 2025-11-25 on.
    (block,) = content if isinstance(content, list) else [content]
    assert (block["type"], block["text"]) == ("text", "why?")
    assert (asked["maxTokens"], asked["systemPrompt"]) == (50, "be brief")
    assert (asked["temperature"], asked["stopSequences"]) == (0.5, ["STOP"])
    assert asked["modelPreferences"] == {"hints": [{"name": "small"}], "speedPriority": 0.9}


def sampled_with_tools(document: Document, pair: Pair) -> None:
    if not pair.has("2025-11-25"):
        assert len(document["samplingRequests"]) == 1
        return
    used = json.loads(text_of(document["ask_with_tools"]))
    assert used == ["toolUse", "tool_use", "lookup", {"q": "x"}]
    asked = document["samplingRequests"][1]
    assert asked["tools"] == [{"name": "lookup", "inputSchema": {"type": "object"}}]
    assert asked["toolChoice"] == {"mode": "required"}


def rooted(document: Document, pair: Pair) -> None:
    assert json.loads(text_of(document["list_my_roots"])) == [["file:///srv/project", "project"]]
    assert document["rootsServed"] >= 1


def logged(document: Document, pair: Pair) -> None:
    assert text_of(document["log_all_levels"]) == "logged"
    levels = ["warning", "error", "critical", "alert", "emergency"]
    found = [
        # FastMCP servers wrap the text in a record of their own.
        [level, logger, data["msg"] if isinstance(data, dict) else data]
        for level, logger, data in document["logs"]
    ]
    assert found == [[level, "interop", f"message at {level}"] for level in levels]


def pinged(document: Document, pair: Pair) -> None:
    assert document["ping"] == {}
    assert text_of(document["ping_client"]) == "pong"


def elicited(document: Document, pair: Pair) -> None:
    if not (pair.has("2025-06-18") and pair.elicits):
        assert document["elicitRequests"] == []
        return
    assert json.loads(text_of(document["elicit"])) == ["accept", {"name": "Ada", "age": 36}]
    asked = document["elicitRequests"][0]
    assert asked["message"] == "who are you?"
    fields = asked["requestedSchema"]["properties"]
    assert (fields["name"]["type"], fields["age"]["type"]) == ("string", "integer")
    assert sorted(asked["requestedSchema"]["required"]) == ["age", "name"]


def sent_to_a_page(document: Document, pair: Pair) -> None:
    if not pair.has("2025-11-25"):
        assert len(document["elicitRequests"]) <= 1
        return
    assert text_of(document["elicit_url"]) == "accept"
    asked = document["elicitRequests"][1]
    assert (asked["mode"], asked["message"]) == ("url", "please sign in")
    assert (asked["url"], asked["elicitationId"]) == ("https://example.test/sign-in", "visit-1")
    assert document["elicitationsCompleted"] == ["visit-1"]


def listed_resources(document: Document, pair: Pair) -> None:
    assert set(document["resources"]) == {"interop://greeting", "interop://blob"}
    entry = document["resources"]["interop://greeting"]
    assert entry["name"] == "greeting"
    assert entry["description"] == "A text"
    assert entry["mimeType"] == "text/plain"
    assert document["templates"]["interop://item/{id}"]["name"] == "item"


def read(document: Document, pair: Pair) -> None:
    (greeting,) = document["greeting"]
    assert greeting["uri"] == "interop://greeting"
    assert (greeting["mimeType"], greeting["text"]) == ("text/plain", "hello from the peer")
    (blob,) = document["blob"]
    assert blob["mimeType"] == "application/octet-stream"
    assert base64.b64decode(blob["blob"], validate=True) == bytes(range(256))
    (item,) = document["item"]
    assert (item["uri"], item["text"]) == ("interop://item/12", "item 12")


def subscribed(document: Document, pair: Pair) -> None:
    assert text_of(document["touch"]) == "announced"
    # The second change came after the subscription had ended.
    assert text_of(document["touchAgain"]) in ("nobody subscribed", "announced")
    assert document["resourcesUpdated"] == ["interop://greeting"]


def prompted(document: Document, pair: Pair) -> None:
    (entry,) = document["prompts"].values()
    assert (entry["name"], entry["description"]) == ("review", "Ask for a review.")
    required = {argument["name"]: argument["required"] for argument in entry["arguments"]}
    assert required == {"code": True, "tone": False}
    (message,) = document["review"]["messages"]
    assert message["role"] == "user"
    assert message["content"]["text"] == "Review this, be harsh: x = 1"


def completed(document: Document, pair: Pair) -> None:
    assert document["complete"]["values"] == ["kind", "kindly"]
    assert document["completeTemplate"]["values"] == ["1", "12"]
    assert document["complete"].get("hasMore", False) is False
    assert document["complete"].get("total", 2) == 2


def refused(document: Document, pair: Pair) -> None:
    found = document["errors"]
    codes = {name: entry["code"] for name, entry in found.items() if "code" in entry}
    assert codes == pair.codes
    for name, entry in found.items():
        assert "code" in entry or entry["isError"] is True, name


def grown(document: Document, pair: Pair) -> None:
    assert text_of(document["grow"]) == "grown"
    for kind in ("tools", "resources", "prompts"):
        assert document[f"{kind}Changed"] >= 1, kind
        extra = "interop://extra" if kind == "resources" else "extra"
        assert document[f"{kind}AfterGrow"] == sorted([*document[kind], extra])


def cancelled(document: Document, pair: Pair) -> None:
    if pair.cancels:
        assert document["cancel"]["state"] == {"hanging": 0, "cancelled": 1}
    else:
        assert "cancel" not in document


def resumed(document: Document, pair: Pair) -> None:
    if pair.cuts:
        assert text_of(document["cut"]) == "resumed"
    else:
        assert "cut" not in document


def faultless(document: Document, pair: Pair) -> None:
    """Nothing came that the client could not read."""
    assert "faults" not in document


CHECKS: tuple[Callable[[Document, Pair], None], ...] = (
    negotiated,
    introduced,
    listed_tools,
    decorated,
    called,
    called_at_once,
    called_with_a_large_text,
    structured,
    progressed,
    failed,
    pictured,
    mixed,
    annotated,
    sampled,
    sampled_with_tools,
    rooted,
    logged,
    pinged,
    elicited,
    sent_to_a_page,
    listed_resources,
    read,
    subscribed,
    prompted,
    completed,
    refused,
    grown,
    cancelled,
    resumed,
    faultless,
)
