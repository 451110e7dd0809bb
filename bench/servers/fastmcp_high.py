"""The benchmark's server on ``fastmcp`` 4.x. Argument: quickstart, calls, models or list."""

from __future__ import annotations

import sys

from fastmcp import FastMCP

mode = sys.argv[1]
server = FastMCP("bench")

if mode != "models" and mode != "list":

    @server.tool
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b


if mode == "quickstart":

    @server.resource("greeting://{name}")
    async def greeting(name: str) -> str:
        """A greeting."""
        return f"Hello, {name}!"

    @server.prompt
    def greet(name: str) -> str:
        """Ask for a greeting."""
        return f"Write a greeting for {name}."


if mode == "calls":
    import anyio

    gate = anyio.Event()

    @server.tool
    async def echo(text: str):  # type: ignore[no-untyped-def]  # no return type: text alone
        """The text as it came."""
        return text

    @server.tool
    async def hold():  # type: ignore[no-untyped-def]
        """Wait until released."""
        await gate.wait()
        return "held"

    @server.tool
    async def release():  # type: ignore[no-untyped-def]
        """End every wait."""
        global gate
        gate.set()
        gate = anyio.Event()
        return "released"


if mode == "models":
    from pydantic import BaseModel, Field

    class Item(BaseModel):
        sku: str
        quantity: int = Field(ge=1)
        price: float

    class Order(BaseModel):
        customer: str
        items: list[Item]
        express: bool = False

    class Receipt(BaseModel):
        customer: str
        lines: int
        total: float

    @server.tool
    async def order(order: Order) -> Receipt:
        """Price an order."""
        total = sum(item.quantity * item.price for item in order.items)
        return Receipt(customer=order.customer, lines=len(order.items), total=total)


if mode == "list":
    from typing import Annotated

    from pydantic import Field

    def make(n: int) -> None:
        """Register one tool of the hundred."""

        async def tool(
            city: Annotated[str, Field(description="Name of the city.")],
            days: Annotated[int, Field(description="How many days.")] = 3,
            units: Annotated[str, Field(description="metric or imperial.")] = "m",
        ) -> int:
            """A tool with three arguments, one of a hundred."""
            return n

        server.tool(name=f"tool_{n}")(tool)

    for number in range(100):
        make(number)

if __name__ == "__main__":
    server.run(show_banner=False)
