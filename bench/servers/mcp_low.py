"""The benchmark's server on ``mcp`` 2.x, low level. Argument: quickstart, calls or list."""

from __future__ import annotations

import sys
from typing import Any

import anyio
import mcp_types as types
from mcp.server import Server
from mcp.server.stdio import stdio_server

mode = sys.argv[1]
gate = anyio.Event()

INTEGERS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}
TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
SUM = {"type": "object", "properties": {"result": {"type": "integer"}}, "required": ["result"]}
NOTHING: dict[str, Any] = {"type": "object", "properties": {}}
MANY = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "Name of the city."},
        "days": {"type": "integer", "description": "How many days.", "default": 3},
        "units": {"type": "string", "description": "metric or imperial.", "default": "m"},
    },
    "required": ["city"],
}

if mode == "list":
    tools = [
        types.Tool(
            name=f"tool_{n}",
            description="A tool with three arguments, one of a hundred.",
            input_schema=MANY,
            output_schema=SUM,
        )
        for n in range(100)
    ]
else:
    tools = [
        types.Tool(name="add", description="Add.", input_schema=INTEGERS, output_schema=SUM),
        types.Tool(name="echo", description="Echo.", input_schema=TEXT),
        types.Tool(name="hold", description="Wait.", input_schema=NOTHING),
        types.Tool(name="release", description="Go.", input_schema=NOTHING),
    ]


async def list_tools(ctx: Any, params: Any) -> types.ListToolsResult:
    """All of them."""
    return types.ListToolsResult(tools=tools)


async def call_tool(ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
    """Dispatch by name."""
    global gate
    arguments = params.arguments or {}
    if params.name == "add":
        total = arguments["a"] + arguments["b"]
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=str(total))],
            structured_content={"result": total},
        )
    if params.name == "echo":
        text = arguments["text"]
    elif params.name == "hold":
        await gate.wait()
        text = "held"
    else:
        gate.set()
        gate = anyio.Event()
        text = "released"
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)])


server = Server("bench", on_list_tools=list_tools, on_call_tool=call_tool)


async def main() -> None:
    """Serve until stdin closes."""
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


if __name__ == "__main__":
    anyio.run(main)
