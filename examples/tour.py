"""The tour: a weather server as a child process, and a client that tries everything it offers.

Run it with `make run`, or `python examples/tour.py`. Every line with an arrow is a message as it
went over the wire: → sent, ← received, shortened to fit.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from dragoman import Client, CreateMessageParams, CreateMessageResult, DragomanError
from dragoman.cli.person import Person
from dragoman.cli.printable import one_line
from dragoman.cli.screen import Screen
from dragoman.cli.wire import WireView
from dragoman.model.logging import LogMessageParams

SERVER = Path(__file__).with_name("weather_server.py")
SHOWN = "examples/weather_server.py"


class Tour:
    """Walks through one server, step by step."""

    def __init__(self) -> None:
        # Everything goes to one stream, so that messages and results stay in their order.
        self.screen = Screen()
        self.screen.err = self.screen.out
        self.steps = 0

    def step(self, title: str, code: str) -> None:
        """Head one step: what happens, and the line of code that does it."""
        self.steps += 1
        self.screen.show(Text())
        head = Text(f"{self.steps}. {title}", style="bold")
        self.screen.show(head.append(f"   {code}", style="not bold magenta"))

    def say(self, what: str | RenderableType) -> None:
        """Show what came of it."""
        self.screen.show(Text(f"  {one_line(what)}") if isinstance(what, str) else what)

    async def sample(self, request: CreateMessageParams) -> CreateMessageResult:
        """Show what the server asks for and answer it: the person does, or a plain yes."""
        is_there = self.screen.is_interactive
        if not is_there:
            self.say("(nobody is at the terminal, so the answer is a plain yes)")
        return await Person(self.screen, is_willing=not is_there).sample(request)

    def log(self, message: LogMessageParams) -> None:
        """Show a log message of the server."""
        self.say(Text(f"  the server says: {one_line(str(message.data))}", style="yellow"))

    async def walk(self) -> None:
        """All of it."""
        wire = WireView(self.screen.out, is_compact=True, indent="  ")
        client = Client(SERVER, sampling_handler=self.sample, on_log=self.log, on_wire=wire)

        self.step("Start the server and shake hands", f"async with Client({SHOWN!r}) as client:")
        async with client:
            info = client.server_info
            self.say(f"{info.title}, version {info.version}; both speak {client.protocol_version}.")

            self.step("List what it offers", "await client.list_tools()")
            table = Table(box=None, show_header=False, padding=(0, 2))
            for tool in await client.list_tools():
                table.add_row("tool", tool.name, (tool.description or "").splitlines()[0])
            for resource in await client.list_resources():
                table.add_row("resource", resource.uri, resource.description)
            for family in await client.list_resource_templates():
                table.add_row("template", family.uri_template, family.description)
            for prompt in await client.list_prompts():
                table.add_row("prompt", prompt.name, (prompt.description or "").splitlines()[0])
            self.say(table)

            self.step("Call a tool", 'await client.call_tool("forecast", {"city": "Paris"})')
            result = await client.call_tool("forecast", {"city": "Paris"})
            for day in result.data["days"]:
                self.say(f"{day['date']}: {day['sky']}, {day['low']} to {day['high']} °C")

            self.step("Watch a slow one", 'client.call_tool("collect_readings", …, on_progress=f)')
            with self.screen.progress_bar("collect_readings") as bar:
                result = await client.call_tool(
                    "collect_readings", {"city": "Oslo"}, on_progress=bar.update
                )
            self.say(result.text)

            self.step("Read a resource", 'await client.read_resource("weather://lisbon/now")')
            self.say((await client.read_resource("weather://lisbon/now")).text)

            self.step("Complete an argument", 'client.complete("plan_trip", "city", "c")')
            completion = await client.complete("plan_trip", "city", "c")
            self.say(f"c… may become {', '.join(completion.values)}")

            self.step("Fill in a prompt", 'client.get_prompt("plan_trip", {"city": "Cairo"})')
            filled = await client.get_prompt("plan_trip", {"city": "Cairo", "days": "2"})
            for message in filled.messages:
                self.say(f"{message.role}: {getattr(message.content, 'text', '')}")

            self.step("Let the server ask us", 'client.call_tool("summarise", …): it samples')
            result = await client.call_tool("summarise", {"city": "Oslo"}, raise_on_error=False)
            self.say(f"summarise gave back: {result.text}")

        self.screen.show(Text())
        self.screen.show(Text("That was everything a server can offer.", style="bold green"))
        # As text, so that a long path is never broken into two lines.
        self.screen.text(f"Now look at it yourself:  {command()} inspect {SHOWN}")
        self.screen.text("Then write your own:      docs/quickstart.md")


def command() -> str:
    """How to type the command line here: bare where it is found, else where it was installed."""
    installed = Path(sys.executable).with_name("dragoman")
    if shutil.which("dragoman") or not installed.exists():
        return "dragoman"
    near = os.path.relpath(installed)
    return str(installed) if near.startswith(os.pardir) else near


def main() -> int:
    """Walk, and say what went wrong in one line if something does."""
    try:
        asyncio.run(Tour().walk())
    except DragomanError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
