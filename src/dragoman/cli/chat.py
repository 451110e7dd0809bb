"""`dragoman chat`: a model that uses the servers, with a person who says what it may do."""

from __future__ import annotations

import asyncio
import json
import os
import select
import stat
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dragoman.cli.exits import Exit, describe, exit_for, text_of
from dragoman.cli.hosts import HostSettings, asker, host_options, stores_told
from dragoman.cli.interrupts import ended_by_signals, interrupted_by
from dragoman.cli.keyboard import Keyboard
from dragoman.cli.printable import compact_json, one_line
from dragoman.cli.reading import LineReader, PlainReader, Stop
from dragoman.cli.screen import Screen
from dragoman.errors import DragomanError, Misconfigured

if TYPE_CHECKING:
    from dragoman.cli.approvals import TerminalApprover
    from dragoman.cli.suggestions import Suggestions
    from dragoman.cli.turns import TurnView
    from dragoman.host.chat import ChatEvent, Conversation
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

# 10 MB: more than fits into the context of any model.
MAX_QUESTION_BYTES = 10_000_000
# 3 s without a byte on stdin before it is said that it is waited for.
TOLD_AFTER_S = 3.0
SKIP_HINT = "--skip-unset goes on without the servers whose variables are not set"
# 20 remarks about one server, its log messages included, between two lines of the person.
MAX_REMARKS = 20
# 4,000 characters of an error: a provider may answer with a whole page.
MAX_ERROR_CHARS = 4_000

HELP = """\
/servers  how the servers are        /usage  what the conversation cost
/tools    what the model may use     /clear  forget what was said
/quit     leave (or Ctrl-D)          //text  say a text that begins with a slash
/SERVER:PROMPT NAME=VALUE   start from a prompt
@SERVER:URI                 bring a resource along
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
@click.option(
    "--context-tokens",
    type=click.IntRange(min=2_000),
    metavar="N",
    help="How much the model can take in, where that is less than the large ones do.",
)
@host_options
def chat(
    settings: HostSettings,
    question: str | None,
    model: str | None,
    base_url: str | None,
    key_env: str | None,
    allow_plain_http: bool,
    context_tokens: int | None,
    skip_unset: bool,
) -> int:
    """Chat with a model that uses the servers of your mcp.json.

    With QUESTION, or one on stdin, it is answered and that is all; what is piped in beside a
    QUESTION goes along with it as material. Before a tool is called you see
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
    is_typed = question is not None or screen.is_interactive
    material = "" if question is None else _read_material()
    if not is_typed:
        question = _read_question()
    if question is None and settings.is_json:
        raise Misconfigured("--json is for one question: give it as a word, or on stdin")
    options = _model_options(base_url, key_env, allow_plain_http)
    if context_tokens is not None:
        options["context_tokens"] = context_tokens
    run = _Chat(settings, screen, spec, options, skip_unset=skip_unset)
    return asyncio.run(run.run(question, is_typed=is_typed, material=material))


def _read_question() -> str:
    """The question on stdin. Raises Misconfigured: there is none, or no end of it."""
    raw = b"" if sys.stdin is None else sys.stdin.buffer.read(MAX_QUESTION_BYTES + 1)
    if len(raw) > MAX_QUESTION_BYTES:
        raise Misconfigured(f"the question on stdin is longer than {MAX_QUESTION_BYTES:,} bytes")
    question = raw.decode("utf-8", "replace")
    if not question.strip():
        raise Misconfigured("there is no question: give one as a word, or on stdin")
    return question


def _read_material() -> str:
    """What is piped in beside a question that is given in words; "" where nothing is.

    Only of a pipe or a file: /dev/null, a socket or a terminal that somebody inherited is no
    material. Raises Misconfigured: there is no end of it.
    """
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return ""
    if sys.stdin is None or not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode)):
        return ""
    if sys.platform != "win32" and not select.select([0], [], [], TOLD_AFTER_S)[0]:
        # Else who inherited a pipe that nobody closes would not know what is waited for.
        sys.stderr.write("waiting for the end of stdin; `< /dev/null` goes without it\n")
    raw = sys.stdin.buffer.read(MAX_QUESTION_BYTES + 1)
    if len(raw) > MAX_QUESTION_BYTES:
        raise Misconfigured(f"what comes on stdin is longer than {MAX_QUESTION_BYTES:,} bytes")
    return raw.decode("utf-8", "replace")


def _is_unset(path: Path) -> bool:
    """Whether what keeps this file from being used is that variables are not set."""
    from dragoman.host.config import load_servers

    try:
        servers = load_servers(path, may_be_unset=True).servers
    except DragomanError:
        return False
    return any(entry.faults for entry in servers.values())


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
        # By server, how many remarks there were since the person's last line.
        self._remarks: Counter[str] = Counter()
        # Servers that were not there yet when the chat began, and that went away since.
        self._awaited: set[str] = set()
        self._lost: set[str] = set()

    async def run(self, question: str | None, *, is_typed: bool, material: str = "") -> int:
        """Until the person leaves, or the question is answered."""
        with ended_by_signals() as ended:
            try:
                return await self._run(question, is_typed, material)
            except (asyncio.CancelledError, OSError):
                # With SIGHUP the terminal has gone, and nothing can be written there.
                if ended.code is not None:
                    return ended.code
                if self._is_leaving:
                    return Exit.OK
                raise

    async def _run(self, question: str | None, is_typed: bool, material: str) -> int:
        from dragoman.host.models.opening import open_model

        try:
            model = open_model(self._spec, **self._options)
            if name := getattr(model, "missing_key", ""):
                # Said before anybody is asked to start servers for nothing.
                self._view.say(
                    f"{name} is not set: {self._spec} may refuse to answer (--key-env names"
                    " another variable)",
                    "yellow",
                )
            try:
                with stores_told():
                    return await self._with(model, question, is_typed, material)
            finally:
                await model.aclose()
        except DragomanError as error:
            self._view.close()
            if not self._settings.is_json:
                raise
            # Each thing is a line here, and this is the last.
            code = exit_for(error)
            sys.stdout.write(json.dumps({"event": "error"} | describe(error, code)) + "\n")
            return code

    async def _with(
        self, model: ChatModel, question: str | None, is_typed: bool, material: str
    ) -> int:
        approver = asker(self._screen, self._keyboard, self._view.hold)
        host = self._load(model, approver)
        for line in host.policy.ignored:
            self._view.say(f"ignored: {one_line(str(line))}", "yellow")
        async with host:
            host.on_event(self._host_event)
            conversation = host.conversation()
            if question is not None:
                servers = await host.ready(ONE_SHOT_WAIT_S)
                refused = sum(_is_refused(one) for one in servers)
                missing = self._missing(servers)
                sent = conversation.send(question, is_typed=is_typed, material=material)
                ended = await self._one(conversation, sent, refused)
                self._left_out()
                missing |= self._missing(one for one in host.servers if one.server not in missing)
                return Exit.NO_CONNECTION if missing and ended is Exit.OK else ended
            return await self._converse(host, conversation)

    def _load(self, model: ChatModel, approver: TerminalApprover | None) -> Host:
        """The host. Raises Misconfigured; where --skip-unset would help, the text says so."""
        try:
            return self._settings.load(
                approver=approver, models=[model], may_be_unset=self._skip_unset
            )
        except Misconfigured as fault:
            if self._skip_unset or not _is_unset(self._settings.file()):
                raise
            raise Misconfigured(f"{fault}\n{SKIP_HINT}") from None

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

    async def _one(
        self,
        conversation: Conversation,
        sent: AsyncGenerator[ChatEvent, None],
        refused: int,
    ) -> Exit:
        from dragoman.cli.turns import json_line
        from dragoman.host.chat import Ending, ToolFinished, TurnEnded

        reason = Ending.END
        with self._interruptible(conversation):
            async with aclosing(sent) as events:
                async for event in events:
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
        self._awaited |= {one.server for one in servers if one.state.value in _COMING}
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
                if line.strip() in ("/quit", "/exit"):
                    break
                if line.strip():
                    try:
                        await self._typed(host, conversation, line)
                    except DragomanError as error:
                        self._view.close()
                        self._view.say(f"error: {text_of(error)[:MAX_ERROR_CHARS]}", "red")
                self._left_out()
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
        """Say it and show what comes."""
        with self._interruptible(conversation):
            async with aclosing(conversation.send(line)) as events:
                async for event in events:
                    self._view.show(event)

    @contextmanager
    def _interruptible(self, conversation: Conversation) -> Iterator[None]:
        """Ctrl-C cancels the turn; a second one leaves, without waiting for its end."""
        task = asyncio.current_task()
        assert task is not None
        presses = 0

        def interrupted() -> None:
            nonlocal presses
            presses += 1
            if presses == 1:
                self._view.say("cancelling; Ctrl-C again leaves", "yellow")
                conversation.cancel()
            else:
                self._is_leaving = True
                task.cancel()

        with interrupted_by(interrupted):
            yield

    # --- what happens beside the conversation -----------------------------------------------------

    def _host_event(self, event: HostEvent) -> None:
        from dragoman.host.events import HeldBack, LogReceived, ServerChanged
        from dragoman.model.logging import LEVELS

        match event:
            case ServerChanged():
                self._changed(event.status)
            case LogReceived():
                if LEVELS[event.message.level] >= LEVELS["warning"]:
                    data = event.message.data
                    words = data if isinstance(data, str) else compact_json(data)
                    told = f"[{event.server} {event.message.level}] {one_line(words, 200)}"
                    self._remark(event.server, told, "dim")
            case HeldBack():
                what = one_line(event.what)
                self._remark(event.server, f"held back from {event.server}: {what}", "red")
            case _:
                pass

    def _changed(self, status: ServerStatus) -> None:
        server, state = status.server, status.state.value
        if state in _TOLD:
            detail = status.detail
            if state == "reconnecting":
                # Once, and not what each attempt meets: /servers has that.
                if server in self._lost:
                    return
                self._lost.add(server)
                detail = detail.partition("; its stderr ends")[0]
            detail = f": {one_line(detail, 300)}" if detail else ""
            self._remark(server, f"{server} is {state}{detail}", "yellow")
        elif status.held_back and status.detail and self._told.get(server) != status.detail:
            self._told[server] = status.detail
            hint = f"`dragoman host pin {server}` shows it, and lets it be used"
            self._remark(server, f"{server}: {one_line(status.detail, 300)}; {hint}", "yellow")
        if state == "connected" and server in self._awaited | self._lost:
            self._remark(
                server, f"{server} is {'back' if server in self._lost else 'ready'}", "dim"
            )
        if state not in _COMING:
            self._awaited.discard(server)
            self._lost.discard(server)

    def _remark(self, server: str, text: str, style: str) -> None:
        """Say something about a server, unless much was said of it already."""
        self._remarks[server] += 1
        if self._remarks[server] <= MAX_REMARKS:
            self._view.say(text, style)

    def _left_out(self) -> None:
        """Tell what was not said, and begin to count anew."""
        for server, count in self._remarks.items():
            if count > MAX_REMARKS:
                left = count - MAX_REMARKS
                self._view.say(f"{server}: {left:,} more messages were not shown", "dim")
        self._remarks.clear()


# States of a server that was not started because policy or the person said no.
_REFUSED = frozenset({"refused", "changed"})


def _is_refused(status: ServerStatus) -> bool:
    """Whether nothing of a server can be used because nobody said that it may be."""
    is_hidden = status.state.value == "connected" and not status.tools and status.held_back
    return status.state.value in _REFUSED or bool(is_hidden)


# States of a server that takes no part in an answer though nobody said no to it.
_MISSING = frozenset({"connecting", "reconnecting", "failed", "closed"})

# States of a server that may be there in a moment.
_COMING = frozenset({"waiting for approval", "connecting", "reconnecting"})

# States of a server that a person should hear of while they chat.
_TOLD = frozenset({"reconnecting", "refused", "changed", "blocked", "failed"})
