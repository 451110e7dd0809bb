"""A web application with routes of its own, and the same shop for agents behind a prefix.

pip install 'dragoman[http]' fastapi
python shop.py                                        # http://127.0.0.1:8000
curl http://127.0.0.1:8000/orders/7
dragoman call http://127.0.0.1:8000/agents/mcp order number=7
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

import uvicorn
from fastapi import FastAPI, HTTPException

from dragoman import Server, ToolError


@dataclass
class Order:
    number: int
    item: str
    is_sent: bool = False


class Shop:
    """What both sides of the application work on."""

    def __init__(self) -> None:
        self.orders = {7: Order(7, "apple cake"), 8: Order(8, "teapot", is_sent=True)}
        self.is_open = False


shop = Shop()
server = Server("shop")


@server.tool
def order(number: int) -> Order:
    """Look up an order."""
    try:
        return shop.orders[number]
    except KeyError:
        raise ToolError(f"there is no order {number}") from None


@server.tool
async def send(number: int) -> str:
    """Send an order to its customer."""
    order(number).is_sent = True
    server.notify_resource_updated(f"shop://orders/{number}")
    return "on its way"


@server.resource("shop://orders/{number}")
def order_resource(number: int) -> Order:
    """An order, to be watched."""
    return order(number)


# Both HTTP transports, as one ASGI application.
agents = server.asgi()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """What the application opens, and then what the mounted one does."""
    shop.is_open = True
    async with agents.lifespan():
        yield
    shop.is_open = False


app = FastAPI(title="shop", lifespan=lifespan)
app.mount("/agents", agents)


@app.get("/orders/{number}")
def get_order(number: int) -> dict[str, object]:
    """The same order, for people."""
    if number not in shop.orders:
        raise HTTPException(404, f"there is no order {number}")
    return asdict(shop.orders[number])


if __name__ == "__main__":
    # An agent that listens holds a connection for ever: without a limit uvicorn would wait for it.
    uvicorn.run(app, host="127.0.0.1", port=8000, timeout_graceful_shutdown=5)
