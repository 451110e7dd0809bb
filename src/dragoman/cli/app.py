"""The commands. Each is thin: it reads its words, talks through a `Session`, and prints."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

import click
import msgspec

from dragoman.cli.arguments import read_arguments, read_json_object, read_pairs
from dragoman.cli.blocks import Saver, block_text, part_text, result_document
from dragoman.cli.chat import chat
from dragoman.cli.exits import Exit, describe, exit_for, text_of
from dragoman.cli.groups import OrderedGroup
from dragoman.cli.host import host
from dragoman.cli.screen import Screen
from dragoman.cli.session import Session, Settings, listing_of, page_of
from dragoman.cli.show import listing_tables, page
from dragoman.cli.streams import is_unwritten
from dragoman.cli.version import show_version
from dragoman.client.client import Client
from dragoman.client.results import ToolResult
from dragoman.errors import DragomanError, Misconfigured
from dragoman.model.completion import PromptReference, ResourceTemplateReference
from dragoman.model.logging import LEVELS
from dragoman.model.tools import Tool

__all__ = ["run_cli"]

T = TypeVar("T")
Command = Callable[..., int]

HELP = """Talk to servers of the Model Context Protocol, and run them.

TARGET is a URL, a script (server.py), a name in an mcp.json, or, after all options and words, a
command line: `dragoman list -- npx some-server`.
"""

EXITS = """\b
Exit codes: 0 done, 1 the tool failed, 2 wrong words or settings, 3 no connection, 4 the server
refused or broke the protocol, 5 no answer in time, 6 policy or you said no, 130 interrupted.
"""


def run_cli(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code; a traceback shows only a fault of our own.

    Raises:
        BrokenPipeError: whoever read stdout has left.
        OSError: what was written, to stdout as a rule, could not be.
    """
    words, command = _split(argv)
    if not words and command is None and "_DRAGOMAN_COMPLETE" not in os.environ:
        # Nothing was asked for: that is no success, but help is the answer.
        _run(["--help"], None, is_json=False)
        return Exit.USAGE
    if "_DRAGOMAN_COMPLETE" in os.environ:
        # A shell asks what could be typed next; click answers and ends the process.
        group.main(words, prog_name="dragoman")
    return _run(words, command, is_json="--json" in words)


def _run(words: list[str], command: list[str] | None, *, is_json: bool) -> int:
    try:
        # Not group.main: it has its own ideas of broken pipes and Ctrl-C.
        with group.make_context("dragoman", words, obj=command) as context:
            outcome = group.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except KeyboardInterrupt as error:
        return _failed(error, Exit.INTERRUPTED, is_json=is_json)
    except click.ClickException as error:
        hint = ""
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f"\n{error.ctx.get_usage()}\nMore: {error.ctx.command_path} --help"
        return _failed(Misconfigured(error.format_message()), Exit.USAGE, hint, is_json=is_json)
    except BrokenPipeError:
        raise
    except DragomanError as error:
        return _failed(error, exit_for(error), is_json=is_json)
    except Exception as error:
        if is_unwritten(error):
            raise
        # The last line of defence: said, not thrown.
        sys.stderr.write(traceback.format_exc())
        return _failed(error, Exit.INTERNAL, is_json=is_json)
    return outcome if isinstance(outcome, int) else Exit.OK


def _failed(error: BaseException, code: Exit, hint: str = "", *, is_json: bool) -> int:
    screen = Screen()
    text = text_of(error) or {Exit.INTERRUPTED: "interrupted"}.get(code, type(error).__name__)
    if is_json:
        document = describe(error, code)
        document["error"]["message"] = document["error"]["message"] or text
        screen.json(document)
        sys.stdout.flush()
    else:
        screen.error(text + hint)
    return code


def _split(argv: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Our own words, and the target's command line after the first `--`, if there is one."""
    words = list(argv)
    if "--" not in words:
        return words, None
    at = words.index("--")
    return words[:at], words[at + 1 :]


# --- options ----------------------------------------------------------------------------------


def _pairs(ctx: click.Context, param: click.Parameter, value: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE texts as a mapping."""
    found = {}
    for one in value:
        name, equals, text = one.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{one!r} is not NAME=VALUE", ctx, param)
        found[name] = text
    return found


def _headers(ctx: click.Context, param: click.Parameter, value: Sequence[str]) -> dict[str, str]:
    """NAME:VALUE texts as a mapping."""
    found = {}
    for one in value:
        name, colon, text = one.partition(":")
        if not name.strip() or not colon:
            # What it is may be a secret.
            raise click.BadParameter("it is not NAME:VALUE", ctx, param)
        found[name.strip()] = text.strip()
    return found


_TARGET_OPTIONS = [
    click.option("--config", metavar="FILE", help="TARGET is a name in this mcp.json."),
    click.option(
        "--env",
        multiple=True,
        callback=_pairs,
        metavar="NAME=VALUE",
        help="A variable for the server; it gets few of ours. May be repeated.",
    ),
    click.option("--cwd", metavar="DIR", help="The server's working directory."),
    click.option(
        "--header",
        "headers",
        multiple=True,
        callback=_headers,
        metavar="NAME:VALUE",
        help="A header for the server at a URL. May be repeated.",
    ),
    click.option(
        "--token-env",
        metavar="NAME",
        help="The variable that holds the bearer token for the server at a URL.",
    ),
    click.option(
        "--ca",
        type=click.Path(exists=True),
        metavar="FILE",
        help="Trust the certificates in this file, and no others.",
    ),
    click.option("--revision", metavar="DATE", help="Speak exactly this revision."),
    click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="How long an answer may take after the last sign of life (60; opening: 30).",
    ),
    click.option("--wire", is_flag=True, help="Print every message, sent and received, to stderr."),
    click.option("--stderr", is_flag=True, help="Print what the server writes to its stderr."),
    click.option(
        "--log-level",
        type=click.Choice(list(LEVELS)),
        help="Ask for the server's log messages from this level on (shown: warning).",
    ),
    click.option(
        "--roots", multiple=True, metavar="PATH", help="A folder the server may work in; repeat."
    ),
    click.option("--answer", metavar="TEXT", help="Answer whatever the server asks with this."),
    click.option("--yes", is_flag=True, help="Agree to what the server asks without being asked."),
    click.option(
        "--json", "is_json", is_flag=True, help="Print one JSON document, also on errors."
    ),
]
_SETTINGS = (
    "config",
    "env",
    "cwd",
    "headers",
    "token_env",
    "ca",
    "revision",
    "timeout_s",
    "wire",
    "stderr",
    "log_level",
    "roots",
    "answer",
    "yes",
    "is_json",
)


@click.group(
    cls=OrderedGroup,
    help=HELP,
    epilog=EXITS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
def group() -> None:
    """Everything below."""


def _target_command(usage: str) -> Callable[[Command], click.Command]:
    """A command on a target. `usage` names its words; the function gets a session and the words
    after the target."""

    def decorate(function: Command) -> click.Command:
        def call(words: tuple[str, ...], **options: Any) -> int:
            context = click.get_current_context()
            command: list[str] | None = context.obj
            target, rest = (None, words) if command is not None else (words[:1], words[1:])
            if command is None and not target:
                raise click.UsageError(
                    "TARGET is missing: a URL, a script, a name in an mcp.json, or a command after --",
                    context,
                )
            settings = Settings(
                target=target[0] if target else None,
                command=command or (),
                **{name: options.pop(name) for name in _SETTINGS},
            )
            return function(Session(settings, Screen()), list(rest), **options)

        call.__doc__ = function.__doc__
        # Where click keeps what its decorators have declared on the function so far.
        call.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        for option in reversed(_TARGET_OPTIONS):
            call = option(call)
        call = click.argument("words", nargs=-1, metavar=usage)(call)
        name = function.__name__.rstrip("_")
        return group.command(name, short_help=_first_line(function))(call)

    return decorate


def _first_line(function: Command) -> str:
    return (function.__doc__ or "").strip().splitlines()[0]


def _words(words: list[str], *names: str, more: bool = False) -> list[str]:
    """Check that these words are there, and nothing else unless there may be `more`."""
    if len(words) < len(names):
        raise click.UsageError(f"{names[len(words)]} is missing", click.get_current_context())
    if len(words) > len(names) and not more:
        raise click.UsageError(
            f"{words[len(names)]!r} is one word too many", click.get_current_context()
        )
    return words


def _talk(session: Session, work: Callable[[Client], Awaitable[T]]) -> T:
    return asyncio.run(_as_coroutine(session, work))


async def _as_coroutine(session: Session, work: Callable[[Client], Awaitable[T]]) -> T:
    return await session.run(work)


# --- the commands -----------------------------------------------------------------------------


@group.command("run", short_help="Serve the server in FILE, over stdio or HTTP.")
@click.argument("target", metavar="FILE[:OBJECT]")
@click.option(
    "--transport",
    type=click.Choice(["stdio", "http", "sse", "unix"]),
    help="How clients reach it (stdio). http and sse are the same server with two addresses.",
)
@click.option("--host", metavar="NAME", help="The address to listen on (127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65535), help="The port (8000); 0 takes a free one.")
@click.option("--path", metavar="/PATH", help="The path in its URL (/mcp; /sse with sse).")
@click.option("--socket", metavar="FILE", help="The Unix socket to listen on.")
@click.option("--root-path", metavar="/PREFIX", help="What a proxy in front takes off every path.")
@click.option(
    "--allow-host",
    "allow_hosts",
    multiple=True,
    metavar="NAME",
    help="A name that clients call it by, besides this machine's own. May be repeated.",
)
@click.option(
    "--allow-origin",
    "allow_origins",
    multiple=True,
    metavar="ORIGIN",
    help="A web page that may use it: https://app.example.com. May be repeated.",
)
@click.option("--keep-sessions", metavar="FILE", help="Keep sessions there over a restart.")
@click.option("--reload", "is_reloading", is_flag=True, help="Start again when the code changes.")
@click.option(
    "--json", "is_json", is_flag=True, help='Print {"url": ...} as a line on stdout, once ready.'
)
@click.option("--handed", hidden=True)
def run(
    target: str,
    transport: Literal["stdio", "http", "sse", "unix"] | None,
    is_reloading: bool,
    handed: str | None,
    **options: Any,
) -> int:
    """Serve the server in FILE: over stdio, or over HTTP with --transport http.

    OBJECT is the name of the Server in it; it may be left out when there is one. On stdio, stdout
    belongs to the protocol from the start: whatever the file prints goes to stderr.
    """
    given = {
        name: value
        for name, value in options.items()
        if value is not None and value != () and value is not False
    }
    if transport in (None, "stdio"):
        words = [_OPTION_OF[name] for name in given if name != "is_json"]
        words += ["--reload"] * is_reloading
        if words:
            raise click.UsageError(
                f"{words[0]} is for a server that is reached over HTTP: add --transport http"
                if transport is None
                else f"{words[0]} means nothing on stdio, where the client starts the server",
                click.get_current_context(),
            )
        from dragoman.cli.serve import run_file

        return run_file(target)
    assert transport is not None
    assert transport != "stdio"
    _check_place(transport, given)
    from dragoman.cli.hosting import Hosting, host_file

    hosting = Hosting(transport=transport, **given)
    if is_reloading:
        from dragoman.cli.reload import reload_file

        return reload_file(target, hosting)
    if handed is not None:
        sock, parent = handed.split(",")
        hosting = replace(hosting, handed=(int(sock), int(parent)))
    return host_file(target, hosting)


_OPTION_OF = {
    "host": "--host",
    "port": "--port",
    "path": "--path",
    "socket": "--socket",
    "root_path": "--root-path",
    "allow_hosts": "--allow-host",
    "allow_origins": "--allow-origin",
    "keep_sessions": "--keep-sessions",
}


def _check_place(transport: str, given: Mapping[str, Any]) -> None:
    """A port or a Unix socket, as the transport says. Raises UsageError."""
    context = click.get_current_context()
    if transport != "unix":
        if "socket" in given:
            raise click.UsageError("--socket needs --transport unix", context)
        return
    for name in ("host", "port"):
        if name in given:
            raise click.UsageError(
                f"{_OPTION_OF[name]} means nothing for a Unix socket; --socket names one", context
            )
    if "socket" not in given and context.params.get("handed") is None:
        raise click.UsageError("--transport unix needs --socket FILE", context)


@_target_command("TARGET")
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(["tools", "resources", "templates", "prompts"]),
    help="Only this kind; may be repeated.",
)
def list_(session: Session, words: list[str], only: tuple[str, ...]) -> int:
    """List tools, resources, templates and prompts."""
    _words(words)
    listing = _talk(session, lambda client: listing_of(client, only))
    if session.settings.is_json:
        session.screen.json(listing.document())
    else:
        session.screen.show(listing_tables(listing))
    return Exit.OK


@_target_command("TARGET TOOL [NAME=VALUE]...")
@click.option(
    "--args",
    "args_json",
    metavar="JSON",
    help="All arguments as JSON, sent as they are; - reads stdin.",
)
@click.option("--save", metavar="DIR", help="Write images, audio and files there.")
def call(session: Session, words: list[str], args_json: str | None, save: str | None) -> int:
    """Call a tool and print its result.

    Values are read as the tool's schema says: days=3, units=metric, is_wet=yes, tag=a tag=b for a
    list, where.city=Paris for an object; limits:='{"max": 3}' is taken as JSON.
    """
    name = _words(words, "TOOL", more=True)[0]
    if args_json is not None and words[1:]:
        raise click.UsageError("give --args or NAME=VALUE, not both", click.get_current_context())
    read_pairs(words[1:])
    given = None
    if args_json is not None:
        given = read_json_object(sys.stdin.read() if args_json == "-" else args_json)
    screen = session.screen

    async def work(client: Client) -> ToolResult:
        arguments = given
        if arguments is None:
            tool = await _tool(client, name)
            arguments, warnings = read_arguments(words[1:], tool.input_schema)
            for warning in warnings:
                screen.note(warning, "yellow")
        with screen.progress_bar(name) as bar:
            return await client.call_tool(
                name, arguments, on_progress=bar.update, raise_on_error=False
            )

    result = _talk(session, work)
    saver = Saver(save, name) if save is not None else None
    shown = _tool_text(result, saver)
    if session.settings.is_json:
        screen.json(result_document(result))
    elif result.is_error:
        screen.error(f"the tool failed: {shown or 'it gave no reason'}")
        if "(error id " in shown and not session.settings.stderr:
            # What dragoman's servers say of an exception; the traceback is in their log.
            screen.note("--stderr shows what the server wrote about it", "dim")
    else:
        screen.text(shown)
    return Exit.TOOL_FAILED if result.is_error else Exit.OK


async def _tool(client: Client, name: str) -> Tool:
    """The tool's definition. Raises Misconfigured with the closest name."""
    import difflib

    tools = {tool.name: tool for tool in await client.list_tools()}
    if name in tools:
        return tools[name]
    near = difflib.get_close_matches(name, list(tools), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(tools) or 'none'}"
    raise Misconfigured(f"the server has no tool {name!r}; {hint}")


def _tool_text(result: ToolResult, saver: Saver | None) -> str:
    """The blocks as text; one that only repeats the structured value is laid out instead."""
    shown = []
    for block in result.content:
        text = block_text(block, saver)
        if result.structured_content is not None and _says(text, result):
            text = json.dumps(result.data, indent=2, ensure_ascii=False)
        shown.append(text)
    if not shown and result.structured_content is not None:
        shown.append(json.dumps(result.data, indent=2, ensure_ascii=False))
    return "\n".join(shown)


def _says(text: str, result: ToolResult) -> bool:
    if not text.startswith(("{", "[")):
        return False
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return bool(value == result.structured_content or value == result.data)


@_target_command("TARGET URI")
@click.option("--save", metavar="DIR", help="Write binary contents there.")
def read(session: Session, words: list[str], save: str | None) -> int:
    """Read a resource and print its contents."""
    uri = _words(words, "URI")[0]
    with_bar = session.screen.progress_bar(uri)

    async def work(client: Client) -> Any:
        with with_bar as bar:
            return await client.read_resource(uri, on_progress=bar.update)

    result = _talk(session, work)
    saver = Saver(save, uri) if save is not None else None
    shown = "\n".join(part_text(part, saver) for part in result.contents)
    if session.settings.is_json:
        session.screen.json(msgspec.to_builtins(result))
    else:
        session.screen.text(shown)
    return Exit.OK


@_target_command("TARGET NAME [ARGUMENT=VALUE]...")
@click.option("--save", metavar="DIR", help="Write images, audio and files there.")
def prompt(session: Session, words: list[str], save: str | None) -> int:
    """Fill in a prompt and print its messages."""
    name = _words(words, "NAME", more=True)[0]
    arguments = dict(read_pairs(words[1:]))
    result = _talk(session, lambda client: client.get_prompt(name, arguments or None))
    saver = Saver(save, name) if save is not None else None
    if session.settings.is_json:
        session.screen.json(msgspec.to_builtins(result))
        return Exit.OK
    if result.description:
        session.screen.note(result.description, "dim")
    for message in result.messages:
        session.screen.text(f"{message.role}: {block_text(message.content, saver)}")
    return Exit.OK


@_target_command("TARGET REF ARGUMENT [VALUE] [SETTLED=VALUE]...")
def complete(session: Session, words: list[str]) -> int:
    """Suggest values for an argument of a prompt or template.

    REF is a prompt's name or a URI template, VALUE what has been typed so far. SETTLED=VALUE names
    other arguments that are already chosen.
    """
    ref, argument, *rest = _words(words, "REF", "ARGUMENT", more=True)
    value = rest[0] if rest else ""
    context = dict(read_pairs(rest[1:]))
    is_template = "{" in ref or "://" in ref
    target = ResourceTemplateReference(uri=ref) if is_template else PromptReference(name=ref)
    completion = _talk(
        session, lambda client: client.complete(target, argument, value, context=context or None)
    )
    if session.settings.is_json:
        session.screen.json(msgspec.to_builtins(completion))
        return Exit.OK
    for one in completion.values:
        session.screen.text(one.replace("\n", "\\n"))
    if completion.has_more:
        more = f" of {completion.total}" if completion.total is not None else ", and more"
        session.screen.note(f"{len(completion.values)}{more}", "dim")
    return Exit.OK


@_target_command("TARGET")
def ping(session: Session, words: list[str]) -> int:
    """Ask for a sign of life and say how long it took."""
    _words(words)

    async def work(client: Client) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        before = loop.time()
        await client.ping()
        return {
            "serverInfo": msgspec.to_builtins(client.server_info),
            "protocolVersion": client.protocol_version,
            "milliseconds": round((loop.time() - before) * 1000, 3),
        }

    answer = _talk(session, work)
    if session.settings.is_json:
        session.screen.json(answer)
    else:
        info = answer["serverInfo"]
        session.screen.text(
            f"{info['name']} {info['version']} answered in {answer['milliseconds']:g} ms "
            f"(revision {answer['protocolVersion']})"
        )
    return Exit.OK


@_target_command("TARGET")
def inspect(session: Session, words: list[str]) -> int:
    """Show everything about a server as a page."""
    _words(words)
    name = session.settings.target or " ".join(session.settings.command)
    found = _talk(session, lambda client: page_of(client, name))
    if session.settings.is_json:
        session.screen.json(found.document())
    else:
        session.screen.show(page(found))
    return Exit.OK


group.add_command(chat)
group.add_command(host)


@group.command("version", short_help="Show dragoman's version.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")
def version(is_json: bool) -> int:
    """Show dragoman's version; with --json also Python's and the revisions it speaks."""
    show_version(is_json=is_json)
    return Exit.OK
