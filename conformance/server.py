"""The server that the official suite looks at: an ordinary dragoman server.

    python conformance/server.py --port 3001

Names, texts and schemas are the suite's; see conformance/README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from dataclasses import dataclass
from typing import Any, Literal

from dragoman import (
    Audio,
    Context,
    EmbeddedResource,
    Image,
    PromptMessage,
    ResourceContents,
    Server,
    TextContent,
    ToolError,
)

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c02"
    "0000000b4944415478da6364f80f00010501012718e3660000000049454e44ae426082"
)
# The header of a WAV file of 16-bit mono at 8 kHz, without samples.
WAV = bytes.fromhex(
    "524946462400000057415645666d74201000000001000100401f0000803e0000020010006461746100000000"
)

# The suite looks at order, not at time; the official fixtures wait as long between their steps.
STEP_S = 0.05

ADDRESS_SCHEMA: dict[str, Any] = {
    "$anchor": "addressDef",
    "type": "object",
    "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
}
# Every keyword must reach the client as it is.
CONTACT_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": ADDRESS_SCHEMA},
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}

# The five ways to ask for one or more of a few values, in the words of the suite.
CHOICES_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "untitledSingle": {"type": "string", "enum": ["option1", "option2", "option3"]},
        "titledSingle": {
            "type": "string",
            "oneOf": [
                {"const": "value1", "title": "First Option"},
                {"const": "value2", "title": "Second Option"},
                {"const": "value3", "title": "Third Option"},
            ],
        },
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {
            "type": "array",
            "items": {"type": "string", "enum": ["option1", "option2", "option3"]},
        },
        "titledMulti": {
            "type": "array",
            "items": {
                "anyOf": [
                    {"const": "value1", "title": "First Choice"},
                    {"const": "value2", "title": "Second Choice"},
                    {"const": "value3", "title": "Third Choice"},
                ]
            },
        },
    },
}

# The suite's own client always offers the newest revision; a server that knows only an older one
# makes it speak that.
server = Server(
    "dragoman-conformance", version="1", revision=os.environ.get("CONFORMANCE_REVISION") or None
)


# --- tools ------------------------------------------------------------------------------------------


@server.tool(description="Return a text.")
def test_simple_text() -> str:
    return "This is a simple text response for testing."


@server.tool(description="Return a picture.")
def test_image_content() -> Image:
    return Image(PNG)


@server.tool(description="Return sound.")
def test_audio_content() -> Audio:
    return Audio(WAV)


@server.tool(description="Return an embedded resource.")
def test_embedded_resource() -> EmbeddedResource:
    return EmbeddedResource(
        resource=ResourceContents(
            uri="test://embedded-resource",
            mime_type="text/plain",
            text="This is an embedded resource content.",
        )
    )


@server.tool(description="Return a text, a picture and an embedded resource.")
def test_multiple_content_types() -> list[str | Image | EmbeddedResource]:
    data = ResourceContents(
        uri="test://mixed-content-resource",
        mime_type="application/json",
        text=json.dumps({"test": "data", "value": 123}),
    )
    return ["Multiple content types test:", Image(PNG), EmbeddedResource(resource=data)]


@server.tool(description="Log three messages.")
async def test_tool_with_logging(ctx: Context) -> str:
    await ctx.info("Tool execution started")
    await asyncio.sleep(STEP_S)
    await ctx.info("Tool processing data")
    await asyncio.sleep(STEP_S)
    await ctx.info("Tool execution completed")
    return "Tool with logging executed successfully"


@server.tool(description="Report progress three times.")
async def test_tool_with_progress(ctx: Context) -> str:
    for done in (0, 50, 100):
        await ctx.report_progress(done, 100, f"Completed step {done} of 100")
        await asyncio.sleep(STEP_S)
    return "Tool with progress executed successfully"


@server.tool(description="Fail.")
def test_error_handling() -> str:
    raise ToolError("This tool intentionally returns an error for testing")


@server.tool(description="Ask the client's model.")
async def test_sampling(prompt: str, ctx: Context) -> str:
    answer = await ctx.sample(prompt, max_tokens=100)
    return f"LLM response: {answer.text}"


@dataclass
class Account:
    """What `test_elicitation` asks for."""

    username: str
    email: str


@server.tool(description="Ask the client's user.")
async def test_elicitation(message: str, ctx: Context) -> str:
    answer = await ctx.elicit(message, Account)
    return f"User response: action={answer.action}, content={json.dumps(answer.content)}"


@dataclass
class Profile:
    """A form that is filled in already."""

    name: str = "John Doe"
    age: int = 30
    score: float = 95.5
    status: Literal["active", "inactive", "pending"] = "active"
    verified: bool = True


@server.tool(description="Ask the client's user with a form that has defaults.")
async def test_elicitation_sep1034_defaults(ctx: Context) -> str:
    answer = await ctx.elicit("Please review and update the form fields with defaults", Profile)
    return f"Elicitation completed: action={answer.action}, content={json.dumps(answer.content)}"


@server.tool(description="Ask the client's user to choose, in five ways.")
async def test_elicitation_sep1330_enums(ctx: Context) -> str:
    answer = await ctx.elicit("Please select options from the enum fields", CHOICES_SCHEMA)
    return f"Elicitation completed: action={answer.action}, content={json.dumps(answer.content)}"


@server.tool(description="Close the stream of the call, and finish all the same.")
async def test_reconnection(ctx: Context) -> str:
    await ctx.close_stream(retry_s=0.1)
    # The client comes back at its own time; this is what it may have missed.
    await asyncio.sleep(4 * STEP_S)
    return "Reconnection test completed successfully"


@server.tool(
    "json_schema_2020_12_tool",
    description="Has an input schema with the keywords of JSON Schema 2020-12.",
    input_schema=CONTACT_SCHEMA,
)
def contact(arguments: dict[str, Any]) -> str:
    return f"JSON Schema 2020-12 tool called with: {json.dumps(arguments)}"


# --- resources --------------------------------------------------------------------------------------


@server.resource("test://static-text", description="A text", mime_type="text/plain")
def static_text() -> str:
    return "This is the content of the static text resource."


@server.resource("test://static-binary", description="A picture", mime_type="image/png")
def static_binary() -> bytes:
    return PNG


@server.resource(
    "test://template/{id}/data", description="Data by its id", mime_type="application/json"
)
def template_data(id: str) -> dict[str, Any]:
    return {"id": id, "templateTest": True, "data": f"Data for ID: {id}"}


@server.resource("test://watched-resource", description="May be watched", mime_type="text/plain")
def watched_resource() -> str:
    return "Watched resource content"


# --- prompts ----------------------------------------------------------------------------------------


@server.prompt(description="A text.")
def test_simple_prompt() -> str:
    return "This is a simple prompt for testing."


@server.prompt(description="A text with two arguments in it.")
def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
    return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"


@server.prompt("test_prompt_with_embedded_resource", description="A resource, then a text.")
def embedding_prompt(resourceUri: str) -> list[PromptMessage]:  # noqa: N803 - the suite's name
    contents = ResourceContents(
        uri=resourceUri, mime_type="text/plain", text="Embedded resource content for testing."
    )
    return [
        PromptMessage(role="user", content=EmbeddedResource(resource=contents)),
        PromptMessage(
            role="user", content=TextContent(text="Please process the embedded resource above.")
        ),
    ]


@server.prompt(description="A picture, then a text.")
def test_prompt_with_image() -> list[Image | str]:
    return [Image(PNG), "Please analyze the image above."]


@server.completion("test_prompt_with_arguments")
def complete(argument: str, value: str) -> list[str]:
    return [f"{value}-{argument}"]


def main() -> None:
    """Serve on 127.0.0.1 until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    server.run("http", host=options.host, port=options.port)


if __name__ == "__main__":
    main()
