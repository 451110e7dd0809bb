"""`dragoman chat`: a model that uses the servers, with a person who says what it may do."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from dragoman.cli.exits import Exit, text_of
from dragoman.cli.hosts import HostSettings, asker, host_options
from dragoman.cli.interrupts import interrupted_by
from dragoman.cli.keyboard import Keyboard
from dragoman.cli.printable import one_line
from dragoman.cli.reading import LineReader, PlainReader, Stop
from dragoman.cli.screen import Screen
from dragoman.errors import DragomanError, Misconfigured

if TYPE_CHECKING:
    from dragoman.cli.suggestions import Suggestions
    from dragoman.cli.turns import TurnView
    from dragoman.host.chat import Conversation
    from dragoman.host.connections import ServerStatus
    from dragoman.host.events import HostEvent
    from dragoman.host.host import Host
    from dragoman.host.models.base import ChatModel

__all__ = ["chat"]

# The variable that names a model where --model does not.
MODEL_VARIABLE = "DRAGOMAN_MODEL"
# One question and its answer: the servers that are there by then take part.
ONE_SHOT_WAIT_S = 30.0
# 1.5 s: most servers are there by then; the others come while the person types.
START_WAIT_S = 1.5

HELP = """\
/servers  how the servers are        /usage  what the conversation cost
/tools    what the model may use     /clear  forget what was said
/quit     leave (or Ctrl-D)          //text  say a text that begins with a slash
/SERVER:PROMPT NAME=VALUE   start from a prompt      @SERVER:URI  bring a resource along
Alt-Enter begins a new line; Ctrl-C stops an answer, and twice leaves."""


@click.command("chat", short_help="Chat with a model that uses your servers.")
@click.argument("question", required=False)
@click.option(
    "--model",
    metavar="PROVIDER:NAME",
    help=f"anthropic:NAME, openai:NAME or scripted:FILE (or {MODEL_VARIABLE}).",
)
@click.option(
    "--base-url",
    metavar="URL",
    help="A server with the same API: http://127.0.0.1:11434/v1 is an Ollama.",
)
@click.option(
    "--key-env",
    metavar="NAME",
    help="The variable that holds the key. OPENAI_API_KEY is for OpenAI: another address gets it"
    " only when it is named here.",
)
@click.option(
    "--allow-plain-http",
    is_flag=True,
    help="Talk to a --base-url beyond this machine without encryption.",
)
@click.option(
    "--skip-unset", is_flag=True, help="Go on without the servers whose variables are not set."
)
@host_options
def chat(
    settings: HostSettings,
    question: str | None,
    model: str | None,
    base_url: str | None,
    key_env: str | None,
    allow_plain_http: bool,
    skip_unset: bool,
) -> int:
    """Chat with a model that uses the servers of your mcp.json.

    With QUESTION, or one on stdin, it is answered and that is all. Before a tool is called you see
    all of what will be sent, and say yes or no; where nobody can be asked, what no rule and no
    earlier answer allows is refused (exit code 6). A server that took no part, because it could
    not be started or reached, is named (exit code 3).
    """
    spec = model or os.environ.get(MODEL_VARIABLE, "")
    if not spec:
        raise Misconfigured(
            f"no model: name one with --model PROVIDER:NAME, or in {MODEL_VARIABLE}"
        )
    screen = Screen()
    if question is None and not screen.is_interactive:
        question = sys.stdin.read()
        if not question.strip():
            raise Misconfigured("there is no question: give one as a word, or on stdin")
    if question is None and settings.is_json:
        raise Misconfigured("--json is for one question: give it as a word, or on stdin")
    options = _model_options(base_url, key_env, allow_plain_http)
    run = _Chat(settings, screen, spec, options, skip_unset=skip_unset)
    return asyncio.run(run.run(question))


def _model_options(base_url: str | None, key_env: str | None, plain: bool) -> dict[str, Any]:
    """What the flags say of the model, as `open_model` takes it."""
    options: dict[str, Any] = {}
    if base_url is not None:
        options["base_url"] = base_url
    if key_env is not None:
        options["api_key"] = os.environ.get(key_env, "")
        if not options["api_key"].strip():
            raise Misconfigured(f"--key-env: there is no variable {key_env}, or nothing in it")
    if plain:
        options["allow_plain_http"] = True
    return options


class _Chat:
    """One run of the command."""

    def __init__(
        self,
        settings: HostSettings,
        screen: Screen,
        spec: str,
        options: dict[str, Any],
        *,
        skip_unset: bool,
    ) -> None:
        from dragoman.cli.turns import TurnView

        self._settings = settings
        self._screen = screen
        self._spec = spec
        self._options = options
        self._skip_unset = skip_unset
        self._keyboard = Keyboard()
        self._view: TurnView = TurnView(screen)
        # Set when the person wants to leave in the middle of a turn.
        self._is_leaving = False
        # By server, what was said last of offers that are held back.
        self._told: dict[str, str] = {}

    async def run(self, question: str | None) -> int:
        """Until the person leaves, or the question is answered."""
        from dragoman.host.models.opening import open_model

        model = open_model(self._spec, **self._options)
        try:
            return await self._with(model, question)
        finally:
            await model.aclose()

    async def _with(self, model: ChatModel, question: str | None) -> int:
        approver = asker(self._screen, self._keyboard, self._view.hold)
        host = self._settings.load(approver=approver, models=[model], may_be_unset=self._skip_unset)
        for line in host.policy.ignored:
            self._view.say(f"ignored: {line}", "yellow")
        async with host:
            host.on_event(self._host_event)
            conversation = host.conversation()
            if question is not None:
                servers = await host.ready(ONE_SHOT_WAIT_S)
                refused = sum(_is_refused(one) for one in servers)
                missing = self._missing(servers)
                ended = await self._one(conversation, question, refused)
                missing |= self._missing(one for one in host.servers if one.server not in missing)
                return Exit.NO_CONNECTION if missing and ended is Exit.OK else ended
            return await self._converse(host, conversation)

    # --- one question -----------------------------------------------------------------------------

    def _missing(self, servers: Iterable[ServerStatus]) -> set[str]:
        """The servers that should take part in the answer and do not; each is named."""
        missing = [one for one in servers if one.state.value in _MISSING]
        for one in missing:
            # Why one has failed was said when it did.
            is_told = not one.detail or one.state.value in _TOLD
            why = "" if is_told else f": {one_line(one.detail, 300)}"
            self._view.say(f"without {one.server}, which is {one.state.value}{why}", "yellow")
        return {one.server for one in missing}

    async def _one(self, conversation: Conversation, question: str, refused: int) -> Exit:
        from dragoman.cli.turns import json_line
        from dragoman.host.chat import Ending, ToolFinished, TurnEnded

        reason = Ending.END
        with interrupted_by(conversation.cancel):
            async for event in conversation.send(question):
                if isinstance(event, TurnEnded):
                    reason = event.reason
                refused += isinstance(event, ToolFinished) and event.is_refused
                if self._settings.is_json:
                    sys.stdout.write(json_line(event) + "\n")
                    sys.stdout.flush()
                else:
                    self._view.show(event)
        if reason is Ending.CANCELLED:
            return Exit.INTERRUPTED
        return Exit.REFUSED if refused else Exit.OK

    # --- a conversation ---------------------------------------------------------------------------

    async def _converse(self, host: Host, conversation: Conversation) -> int:
        from dragoman.cli.suggestions import Suggestions

        names = [status.server for status in host.servers]
        suggestions = Suggestions(host, lambda: names)
        reader = self._reader(host, suggestions)
        servers = await host.ready(START_WAIT_S)
        ready = sum(one.state.value == "connected" for one in servers)
        self._view.say(
            f"{conversation.model.name}; {ready} of {len(names)} servers are ready;"
            " /help says what can be typed",
            "dim",
        )
        was_interrupted = False
        try:
            while not self._is_leaving:
                self._view.above = reader.above
                try:
                    line = await reader.line()
                finally:
                    self._view.above = None
                if line is Stop.END:
                    break
                if line is Stop.INTERRUPT:
                    if was_interrupted:
                        break
                    was_interrupted = True
                    self._view.say("Ctrl-C again, or Ctrl-D, to leave", "dim")
                    continue
                was_interrupted = False
                if line.strip() == "/quit":
                    break
                if line.strip():
                    await self._typed(host, conversation, line)
        finally:
            await suggestions.aclose()
        return Exit.OK

    def _reader(self, host: Host, suggestions: Suggestions) -> LineReader:
        if os.environ.get("TERM", "dumb") == "dumb" and sys.platform != "win32":
            return PlainReader(self._screen, self._keyboard)
        try:
            from dragoman.cli.line_editor import LineEditor
        except ModuleNotFoundError as missing:
            if missing.name is None or not missing.name.startswith("prompt_toolkit"):
                raise
            return PlainReader(self._screen, self._keyboard)
        return LineEditor(self._keyboard, suggestions, host.state.path / "chat_history")

    async def _typed(self, host: Host, conversation: Conversation, line: str) -> None:
        """One line: a command of ours, or something to say."""
        command = line.strip()
        if command == "/help":
            self._view.say(HELP)
        elif command == "/servers":
            from dragoman.cli.host_pages import servers_table

            self._screen.err.print(servers_table(host.servers))
        elif command == "/tools":
            from dragoman.cli.host_pages import tools_table

            self._screen.err.print(tools_table(await host.list_tools(wait_s=0, all=True)))
        elif command == "/usage":
            from dragoman.cli.turns import usage_text

            self._screen.err.print(usage_text(self._view.usage))
        elif command == "/clear":
            conversation.clear()
            self._view.say("forgotten", "dim")
        elif command.startswith("/") and not command.startswith("//") and ":" not in command:
            self._view.say(f"there is no command {one_line(command, 40)}; see /help", "yellow")
        else:
            await self._turn(conversation, line)

    async def _turn(self, conversation: Conversation, line: str) -> None:
        """Say it and show what comes. Ctrl-C cancels; a second one leaves, too."""
        presses = 0

        def interrupted() -> None:
            nonlocal presses
            presses += 1
            if presses == 1:
                self._view.say("cancelling; Ctrl-C again leaves", "yellow")
                conversation.cancel()
            else:
                self._is_leaving = True

        try:
            with interrupted_by(interrupted):
                async for event in conversation.send(line):
                    self._view.show(event)
        except DragomanError as error:
            self._view.say(f"error: {text_of(error)}", "red")

    # --- what happens beside the conversation -----------------------------------------------------

    def _host_event(self, event: HostEvent) -> None:
        from dragoman.host.events import HeldBack, LogReceived, ServerChanged
        from dragoman.model.logging import LEVELS

        match event:
            case ServerChanged():
                status = event.status
                if status.state.value in _TOLD:
                    detail = f": {one_line(status.detail, 300)}" if status.detail else ""
                    self._view.say(f"{status.server} is {status.state.value}{detail}", "yellow")
                elif status.held_back and self._told.get(status.server) != status.detail:
                    self._told[status.server] = status.detail
                    hint = f"`dragoman host pin {status.server}` shows it, and lets it be used"
                    self._view.say(
                        f"{status.server}: {one_line(status.detail, 300)}; {hint}", "yellow"
                    )
            case LogReceived():
                if LEVELS[event.message.level] >= LEVELS["warning"]:
                    data = event.message.data
                    words = data if isinstance(data, str) else repr(data)
                    self._view.say(
                        f"[{event.server} {event.message.level}] {one_line(words, 500)}", "dim"
                    )
            case HeldBack():
                self._view.say(f"held back from {event.server}: {one_line(event.what)}", "red")
            case _:
                pass


# States of a server that was not started because policy or the person said no.
_REFUSED = frozenset({"refused", "changed"})


def _is_refused(status: ServerStatus) -> bool:
    """Whether nothing of a server can be used because nobody said that it may be."""
    is_hidden = status.state.value == "connected" and not status.tools and status.held_back
    return status.state.value in _REFUSED or bool(is_hidden)


# States of a server that takes no part in an answer though nobody said no to it.
_MISSING = frozenset({"connecting", "reconnecting", "failed", "closed"})

# States of a server that a person should hear of while they chat.
_TOLD = frozenset({"reconnecting", "refused", "changed", "blocked", "failed"})
