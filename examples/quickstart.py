"""The smallest server. Look at it with `dragoman inspect examples/quickstart.py`."""

from dragoman import Server

server = Server("greeter")


@server.tool
def greet(name: str, times: int = 1) -> str:
    """Greet somebody."""
    return " ".join([f"Hello, {name}!"] * times)


if __name__ == "__main__":
    server.run()
