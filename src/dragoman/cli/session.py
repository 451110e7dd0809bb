"""One command's conversation with one server."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import dragoman
from dragoman.cli.person import Person
from dragoman.cli.printable import compact_json, one_line
from dragoman.cli.screen import Screen
from dragoman.cli.show import Listing, ServerPage
from dragoman.cli.targets import connector_of
from dragoman.cli.wire import WireView
from dragoman.client.client import Client
from dragoman.client.supervisor import ConnectionEvent
from dragoman.errors import ChildExited, RemoteFailure
from dragoman.jsonrpc.codes import METHOD_NOT_FOUND
from dragoman.model.logging import LEVELS, LoggingLevel, LogMessageParams

__all__ = ["Session", "Settings", "listing_of", "page_of"]

T = TypeVar("T")

# What a `Client` grants by itself: a minute for an answer, and half of one to open, since a hung
# child should be noticed sooner. `--timeout` changes both.
TIMEOUT_S = 60.0
OPENING_TIMEOUT_S = 30.0

# A server that prints to stdout usually prints a banner; a flood of it is said once.
MAX_JUNK_LINES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the options common to all commands say."""

    is_json: bool = False
    target: str | None = None
    command: Sequence[str] = ()
    config: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    token_env: str | None = None
    ca: str | None = None
    revision: str | None = None
    timeout_s: float | None = None
    wire: bool = False
    stderr: bool = False
    log_level: LoggingLevel | None = None
    roots: Sequence[str] = ()
    answer: str | None = None
    yes: bool = False


class Session:
    """Connects, answers what the server asks, and prints what it says beside the result."""

    def __init__(self, settings: Settings, screen: Screen) -> None:
        self.settings = settings
        self.screen = screen
        self._junk = 0
        self._connector = connector_of(
            settings.target,
            settings.command,
            config=settings.config,
            env=settings.env,
            cwd=settings.cwd,
            headers=settings.headers,
            token_env=settings.token_env,
            ca=settings.ca,
            stderr=self._stderr_line if settings.stderr else None,
        )

    async def run(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Connect, do the work, close.

        Raises:
            DragomanError: as `Client.connect` and the work do.
        """
        settings = self.settings
        person = Person(self.screen, answer=settings.answer, is_willing=settings.yes)
        client = Client(
            self._connector,
            version=dragoman.__version__,
            title="dragoman command line",
            revision=settings.revision,
            timeout_s=settings.timeout_s or TIMEOUT_S,
            connect_timeout_s=settings.timeout_s or OPENING_TIMEOUT_S,
            roots=[_root(one) for one in settings.roots] or None,
            sampling_handler=person.sample,
            elicitation_handler=person.elicit,
            elicitation_url=True,
            on_log=self._log,
            on_junk=self._junk_line,
            on_connection=self._connection,
            on_wire=WireView(self.screen.err) if settings.wire else None,
        )
        try:
            with _shown_logs(self.screen):
                async with client:
                    if settings.log_level and client.server_capabilities.logging is not None:
                        await client.set_logging_level(settings.log_level)
                    return await work(client)
        except ChildExited as error:
            if error.exit_code == 0 and not error.stderr_tail.strip():
                self.screen.note(
                    "The program ended by itself. A script serves when it calls server.run(); "
                    "one that only defines a server can be named as FILE.py:OBJECT.",
                    "yellow",
                )
            raise

    # --- what the server says beside the result ---------------------------------------------------

    def _log(self, params: LogMessageParams) -> None:
        if LEVELS[params.level] < LEVELS[self.settings.log_level or "warning"]:
            return
        data = params.data if isinstance(params.data, str) else compact_json(params.data)
        logger = f" {one_line(params.logger)}" if params.logger else ""
        style = "red" if LEVELS[params.level] >= LEVELS["error"] else "dim"
        self.screen.note(f"[{params.level}{logger}] {data}", style)

    def _connection(self, event: ConnectionEvent) -> None:
        # That it broke is told by what fails; that it takes time because of it, by nothing else.
        if event.kind == "retrying":
            self.screen.note(one_line(str(event)), "yellow")

    def _junk_line(self, line: bytes) -> None:
        self._junk += 1
        if self._junk <= MAX_JUNK_LINES:
            shown = one_line(line.decode("utf-8", "backslashreplace"), 200)
            self.screen.note(f"the server wrote a line that is no message: {shown}", "yellow")
        if self._junk == MAX_JUNK_LINES:
            self.screen.note("further such lines are not shown", "yellow")

    def _stderr_line(self, line: str) -> None:
        self.screen.note(f"[stderr] {line}", "dim")


def _root(text: str) -> str | Path:
    """A URI as it is; a path made absolute, so that even "." has a name."""
    return text if "://" in text else Path(text).absolute()


class _ScreenHandler(logging.Handler):
    """Log records as remarks on stderr."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record; a stderr that nobody reads any more is no reason to fail."""
        try:
            self._screen.note(f"[dragoman] {self.format(record)}", "yellow")
        except Exception:  # noqa: BLE001 - what logging asks of a handler
            self.handleError(record)


@contextmanager
def _shown_logs(screen: Screen) -> Iterator[None]:
    """What dragoman itself warns of may quote the server, so it goes through the screen."""
    logger = logging.getLogger("dragoman")
    before = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [_ScreenHandler(screen)], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before


async def listing_of(client: Client, only: Sequence[str] = ()) -> Listing:
    """What the server offers, of the kinds it declares; `only` names those that are wanted."""
    declared = client.server_capabilities

    def wants(kind: str) -> bool:
        return not only or kind in only

    tools = resources = templates = prompts = None
    if wants("tools") and declared.tools is not None:
        tools = await client.list_tools()
    if wants("resources") and declared.resources is not None:
        resources = await client.list_resources()
    if wants("templates") and declared.resources is not None:
        templates = await _templates(client)
    if wants("prompts") and declared.prompts is not None:
        prompts = await client.list_prompts()
    return Listing(tools, resources, templates, prompts)


async def _templates(client: Client) -> Any:
    try:
        return await client.list_resource_templates()
    except RemoteFailure as failure:
        # One capability covers resources and templates; many servers have only the first.
        if failure.code == METHOD_NOT_FOUND:
            return []
        raise


async def page_of(client: Client, target: str) -> ServerPage:
    """Everything about a server."""
    return ServerPage(
        info=client.server_info,
        target=target,
        revision=client.protocol_version,
        capabilities=client.server_capabilities,
        instructions=client.instructions,
        listing=await listing_of(client),
    )
