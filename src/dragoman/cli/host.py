"""`dragoman host`: the servers, what they may do, and what they did."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.text import Text

from dragoman.cli.exits import Exit
from dragoman.cli.groups import OrderedGroup
from dragoman.cli.hosts import HostSettings, asker, config_file, host_options
from dragoman.cli.keyboard import Keyboard
from dragoman.cli.printable import one_line
from dragoman.cli.screen import Screen
from dragoman.errors import Misconfigured

if TYPE_CHECKING:
    from dragoman.host.formats import Imported, Loss, Portable
    from dragoman.host.grants import GrantStore
    from dragoman.host.host import Host
    from dragoman.host.kinds import Verdict
    from dragoman.host.secrets import LiteralSecret, SecretStore

__all__ = ["host"]

T = TypeVar("T")

# A minute: a server may be downloading itself the first time.
CONNECT_WAIT_S = 60.0
# One screen or two.
RECORDS_SHOWN = 50
OWN_FORMAT = "dragoman"
# Whose answers they are, as `Host.load` has it.
PRINCIPAL = "user"


@click.group(
    "host", cls=OrderedGroup, short_help="Your servers, what they may do and what they did."
)
def host() -> None:
    """Configure the servers of your mcp.json, what they may do, and see what they did.

    Nothing here starts a server but `status --connect`, `pin` and `diff`; they ask first.
    """


def _using(
    settings: HostSettings,
    work: Callable[[Host], Awaitable[T]],
    *,
    screen: Screen,
    is_connected: bool = False,
    server: str | None = None,
) -> T:
    """Do something with the host; with `is_connected` while its servers are up, or that one."""

    async def use() -> T:
        # Nobody is asked while nothing runs, but what is decided depends on whether one could be.
        used = settings.load(approver=asker(screen, Keyboard()), may_be_unset=True)
        try:
            if is_connected:
                await used.open(only=None if server is None else [server])
                await used.ready(CONNECT_WAIT_S)
            return await work(used)
        finally:
            await used.aclose()

    return asyncio.run(use())


# --- the servers ----------------------------------------------------------------------------------


@host.command("status")
@click.option("--connect", is_flag=True, help="Start and reach the servers, asking first.")
@host_options
def status(settings: HostSettings, connect: bool) -> int:
    """Show the servers: what each is, whether it is trusted, and what policy ignores."""
    from dragoman.cli.host_pages import server_document, servers_table

    screen = Screen()

    async def work(used: Host) -> tuple[list[Any], list[str], list[str]]:
        shown = used.servers if connect else _at_rest(used)
        return shown, [str(one) for one in used.policy.ignored], [str(n) for n in used.config.notes]

    servers, ignored, notes = _using(settings, work, screen=screen, is_connected=connect)
    if settings.is_json:
        screen.json(
            {
                "config": str(settings.file()),
                "servers": [server_document(one) for one in servers],
                "ignored": ignored,
                "notes": notes,
            }
        )
        return Exit.OK
    screen.show(servers_table(servers))
    for note in notes:
        screen.note(note, "dim")
    for line in ignored:
        screen.note(line, "yellow")
    return Exit.OK


def _at_rest(used: Host) -> list[Any]:
    """Every server as it stands while nothing runs."""
    from dragoman.host.connections import ServerState, ServerStatus
    from dragoman.host.identity import diff_identity, identity_of
    from dragoman.host.kinds import Trust

    found = []
    for name, entry in used.config.servers.items():
        identity = identity_of(entry)
        trust, last = Trust.UNKNOWN, None
        if entry.is_identified:
            trust = used.grants.trust_of(identity.digest)
            last = used.grants.last_identity(name, used.config.project)
        state, detail, diff = ServerState.CLOSED, "not running", ""
        if entry.asks:
            detail += f"; it asks for {', '.join(entry.asks)} when it is started"
        if entry.disabled:
            state, detail = ServerState.DISABLED, ""
        elif trust is Trust.BLOCKED:
            state, detail = ServerState.BLOCKED, "you blocked it"
        elif entry.faults:
            state, detail = ServerState.FAILED, "; ".join(entry.faults)
        elif last is not None and last[0] != identity.digest:
            state, trust = ServerState.CHANGED, Trust.CHANGED
            detail = f"it is not what you accepted; `dragoman host trust {name}` accepts it"
            diff = diff_identity(last[1], identity.lines)
        found.append(
            ServerStatus(
                server=name,
                state=state,
                detail=detail,
                identity=identity.digest if entry.is_identified else "",
                facts=identity.lines,
                trust=trust,
                diff=diff,
            )
        )
    return found


def _pairs(sign: str) -> Callable[[click.Context, click.Parameter, Sequence[str]], dict[str, str]]:
    def read(ctx: click.Context, param: click.Parameter, value: Sequence[str]) -> dict[str, str]:
        found = {}
        for one in value:
            name, found_sign, text = one.partition(sign)
            if not name.strip() or not found_sign:
                # What it is may be a secret.
                raise click.BadParameter(f"it is not NAME{sign}VALUE", ctx, param)
            found[name.strip()] = text.strip() if sign == ":" else text
        return found

    return read


@host.command("add")
@click.argument("name")
@click.argument("url", required=False)
@click.option("--env", multiple=True, callback=_pairs("="), metavar="NAME=VALUE", help="Variable.")
@click.option("--header", "headers", multiple=True, callback=_pairs(":"), metavar="NAME:VALUE")
@click.option("--cwd", metavar="DIR", help="The server's working directory.")
@click.option("--sandbox", is_flag=True, help="Confine it with bubblewrap.")
@click.option("--root", "roots", multiple=True, metavar="PATH", help="A folder it may work in.")
@click.option("--replace", is_flag=True, help="Replace a server of that name.")
@click.option("--move-secrets", is_flag=True, help="Keep secrets in the keyring, not in the file.")
@host_options
def add(
    settings: HostSettings,
    name: str,
    url: str | None,
    env: dict[str, str],
    headers: dict[str, str],
    cwd: str | None,
    sandbox: bool,
    roots: tuple[str, ...],
    replace: bool,
    move_secrets: bool,
) -> int:
    """Write a server into the mcp.json: at a URL, or a command after `--`.

    `dragoman host add files -- npx -y server-filesystem /srv`. Nothing is started.
    """
    from dragoman.host.config import check_server

    command: list[str] | None = click.get_current_context().obj
    raw: dict[str, Any] = {}
    if url is not None and command is None:
        if env or cwd or sandbox:
            raise Misconfigured("--env, --cwd and --sandbox are for a server that is started here")
        raw = {"type": "http", "url": url}
        if headers:
            raw["headers"] = headers
    elif command and url is None:
        if headers:
            raise Misconfigured("--header is for a server at a URL")
        raw = {"command": command[0], "args": command[1:]}
        raw |= {key: value for key, value in (("env", env), ("cwd", cwd)) if value}
        if sandbox:
            raw["sandbox"] = True
    else:
        raise Misconfigured("give a URL, or a command after --, and not both")
    if roots:
        raw["roots"] = list(roots)
    own = _format(OWN_FORMAT)
    server = _server(own, name, raw)
    path = config_file(settings.config, may_be_missing=True)
    if not replace and any(one.name == name for one in _servers(path)):
        raise Misconfigured(f"{path} has a server {name!r} already; --replace replaces it")
    screen = Screen()
    try:
        faults = check_server(name, own.raw(server)[0], path=path)
    except ValueError as why:
        faults = [f"{name}: {why}"]
    if faults:
        raise Misconfigured("\n".join(faults))
    server, moved = _without_secrets(screen, settings, server, is_moving=move_secrets)
    written, _ = _write(path, [server], may_replace=True)
    _told(
        screen,
        settings,
        {"config": str(path), "added": list(written), "movedSecrets": moved},
        [f"{path}: {name} was written; nothing was started"],
    )
    return Exit.OK


@host.command("remove")
@click.argument("name")
@host_options
def remove(settings: HostSettings, name: str) -> int:
    """Take a server out of the mcp.json. What was remembered of it stays, and is useless."""
    from dragoman.host.formats import read_text, save
    from dragoman.host.formats.portable import secret_names

    path = settings.file()
    before = read_text(path)
    own = _format(OWN_FORMAT)
    after = own.remove(name, before, path)
    secrets = [
        secret
        for server in own.read(before, path).servers
        if server.name == name
        for secret in secret_names(server)
    ]
    save(path, after, before=before)
    lines = [f"{path}: {name} was removed"]
    if secrets:
        lines.append(f"its secrets stay where they are kept: {', '.join(secrets)}")
    document = {"config": str(path), "removed": [name], "secretsLeft": secrets}
    _told(Screen(), settings, document, lines)
    return Exit.OK


@host.command("import")
@click.argument("format")
@click.argument("file", required=False)
@click.option("--only", multiple=True, metavar="NAME", help="Only this server; may be repeated.")
@click.option("--replace", is_flag=True, help="Replace servers of the same names.")
@click.option("--move-secrets", is_flag=True, help="Keep secrets in the keyring, not in the file.")
@host_options
def import_(
    settings: HostSettings,
    format: str,
    file: str | None,
    only: tuple[str, ...],
    replace: bool,
    move_secrets: bool,
) -> int:
    """Take servers over from another program: claude-desktop, vscode, cursor, codex ...

    The other program's FILE is only read, and nothing is started. What its lists of tools allowed
    is shown as rules that you can put into your policy; none of them is taken over.
    """
    from dragoman.host.formats import read_text, take_over

    screen = Screen()
    found = _imported(format, file, _folder(settings))
    path = config_file(settings.config, may_be_missing=True)
    if path.exists() and path.resolve() == found.path.resolve():
        raise Misconfigured(
            f"{path} is read as it is; to take its servers over into a file of your own, name that "
            "with --config .mcp.json"
        )
    wanted = take_over(found, read_text(path), path, only=only, may_replace=replace)
    taken, moved = [], []
    for server in wanted.servers:
        changed, names = _without_secrets(screen, settings, server, is_moving=move_secrets)
        taken.append(changed)
        moved += names
    written, lost = _write(path, taken, may_replace=replace, inputs=wanted.inputs)
    rules = [f"{effect} {rule}" for server in taken for effect, rule in server.rules]
    skipped = [one for one in found.skipped if not only or one.name in only]
    lines = [f"{path}: {', '.join(written) or 'nothing new'} from {found.path}"]
    lines += [f"{old} is called {new} here" for new, old in wanted.renamed.items()]
    lines += [f"{name} is there already and stays; --replace replaces it" for name in wanted.kept]
    lines += [f"{one.name} was left out: {one.why}" for one in wanted.left_out]
    lines += [*wanted.notes, *map(str, lost), *map(str, skipped)]
    if rules:
        lines.append("it would have run these without asking; put into your policy what you want:")
        lines += [f"  {rule}" for rule in rules]
    _told(
        screen,
        settings,
        {
            "config": str(path),
            "from": str(found.path),
            "added": list(written),
            "kept": list(wanted.kept),
            "renamed": dict(wanted.renamed),
            "leftOut": [{"server": one.name, "why": one.why} for one in wanted.left_out],
            "notRead": [{"server": one.name, "why": one.why} for one in skipped],
            "notes": [*wanted.notes, *map(str, lost)],
            "proposedRules": rules,
            "movedSecrets": moved,
        },
        lines,
    )
    return Exit.OK


@host.command("export")
@click.argument("format")
@click.argument("file", required=False)
@click.option("--only", multiple=True, metavar="NAME", help="Only this server; may be repeated.")
@click.option("--replace", is_flag=True, help="Replace servers of the same names.")
@host_options
def export(
    settings: HostSettings, format: str, file: str | None, only: tuple[str, ...], replace: bool
) -> int:
    """Write the servers in another program's words: into FILE, or to stdout.

    What that program cannot hold is listed. Everything else in FILE stays as it is.
    """
    from dragoman.host.formats import read_text, save

    screen = Screen()
    own = _format(OWN_FORMAT)
    source = settings.file()
    found = own.read(read_text(source), source)
    servers = [one for one in found.servers if not only or one.name in only]
    target = Path(file) if file is not None and file != "-" else None
    before = read_text(target) if target is not None else ""
    shape = _format(format)
    written = shape.write(
        servers,
        onto=before,
        path=target or Path("stdout"),
        inputs=found.inputs,
        may_replace=replace,
    )
    lines = [str(one) for one in written.losses]
    lines += [str(one) for one in found.skipped]
    if target is None:
        if settings.is_json:
            screen.json({"text": written.text, "losses": lines, "exported": list(written.names)})
            return Exit.OK
        screen.text(written.text)
        for line in lines:
            screen.note(line, "yellow")
        return Exit.OK
    save(target, written.text, before=before)
    document = {"file": str(target), "exported": list(written.names), "losses": lines}
    told = [f"{target}: {', '.join(written.names) or 'nothing new'}", *lines]
    _told(screen, settings, document, told)
    return Exit.OK


# --- trust and pins -------------------------------------------------------------------------------


@host.command("trust")
@click.argument("server", required=False)
@click.option(
    "--level",
    type=click.Choice(["unknown", "reviewed", "trusted", "blocked"]),
    default="reviewed",
    show_default=True,
    help="Only `trusted` lets what it says of its tools relax anything.",
)
@click.option("--project", is_flag=True, help="Trust this project's policy and pins instead.")
@click.option("--yes", is_flag=True, help="Without being asked.")
@host_options
def trust(settings: HostSettings, server: str | None, level: str, project: bool, yes: bool) -> int:
    """Say what you think of SERVER as it is configured now, or accept that it has changed.

    With --project: let the policy file in this project allow things, as it is now.
    """
    from dragoman.client.config import project_of
    from dragoman.host.settings import project_digest

    if (server is None) is not project:
        raise Misconfigured("name a server, or say --project")
    screen = Screen()

    # Before the policy is read: what is trusted is what was looked at.
    digest = project_digest(project_of(settings.file())) if project else ""

    async def work(used: Host) -> dict[str, Any]:
        if project:
            return await _trust_project(used, screen, digest, is_sure=yes)
        assert server is not None
        return await _trust_server(used, screen, server, level, is_sure=yes)

    document = _using(settings, work, screen=screen)
    if settings.is_json:
        screen.json(document)
    elif document["changed"]:
        what = document.get("server") or document.get("project")
        screen.text(f"{what}: {document['trust']}")
    return Exit.OK if document["changed"] else Exit.REFUSED


async def _trust_server(
    used: Host, screen: Screen, server: str, level: str, *, is_sure: bool
) -> dict[str, Any]:
    from dragoman.cli.host_pages import lines_of

    # There is such a server, and what it depends on was said.
    risks = used.identity(server).risks
    (status,) = (one for one in _at_rest(used) if one.server == server)
    if not is_sure:
        for label, text in status.facts:
            screen.note(f"{label}: {text}", "")
        for risk in risks:
            screen.note(f"! {risk.text}", "yellow")
        if status.diff:
            screen.note("what has changed since you accepted it:", "yellow")
            screen.err.print(lines_of(status.diff))
    is_changed = is_sure or await _agreed(screen, f"{server}: {level}, as it is now?")
    if is_changed:
        used.trust(server, level)
    return {
        "server": server,
        "identity": status.identity,
        "trust": level,
        "changed": is_changed,
        "diff": status.diff,
    }


async def _trust_project(
    used: Host, screen: Screen, digest: str, *, is_sure: bool
) -> dict[str, Any]:
    folder = used.config.project
    for line in used.policy.ignored:
        screen.note(str(line), "yellow")
    is_changed = is_sure or await _agreed(
        screen, f"Trust the policy of {folder} as it is now, with what is listed above?"
    )
    if is_changed:
        used.grants.trust_project(folder, digest)
    return {"project": str(folder), "digest": digest, "trust": "trusted", "changed": is_changed}


async def _agreed(screen: Screen, question: str) -> bool:
    if not screen.is_interactive:
        raise Misconfigured("nobody is at the terminal; --yes says it without being asked")
    return await screen.confirm(question)


@host.command("pin")
@click.argument("server")
@click.argument("names", nargs=-1)
@click.option("--yes", is_flag=True, help="Without being asked.")
@click.option(
    "--lock",
    is_flag=True,
    help="Also into the project's dragoman.lock, which is made if need be; commit it.",
)
@host_options
def pin(settings: HostSettings, server: str, names: tuple[str, ...], yes: bool, lock: bool) -> int:
    """Review what SERVER offers now, and pin it: all of it, or NAMES.

    What changes afterwards is held back until you pin it again.
    """
    from dragoman.cli.host_pages import lines_of

    screen = Screen()

    async def work(used: Host) -> tuple[str, bool]:
        parts = [used.diff(server, name) for name in names] if names else [used.diff(server)]
        difference = "\n".join(part for part in parts if part)
        if difference:
            if not yes:
                screen.err.print(lines_of(difference))
                if not await _agreed(screen, f"Pin this as what {server} offers?"):
                    return difference, False
            used.accept(server, names or None)
        if lock:
            used.lock(server)
        return difference, bool(difference)

    difference, is_pinned = _using(settings, work, screen=screen, is_connected=True, server=server)
    is_locked = lock and (is_pinned or not difference)
    locked = "; dragoman.lock has it" if is_locked else ""
    if settings.is_json:
        document = {"server": server, "pinned": is_pinned, "diff": difference}
        screen.json(document | ({"locked": is_locked} if lock else {}))
    elif not difference:
        screen.text(f"{server}: nothing has changed{locked}")
    elif is_pinned:
        screen.text(f"{server}: pinned{locked}")
    return Exit.OK if is_pinned or not difference else Exit.REFUSED


@host.command("diff")
@click.argument("server")
@click.argument("name", required=False)
@host_options
def diff(settings: HostSettings, server: str, name: str | None) -> int:
    """Show how what SERVER offers differs from what you reviewed. Exit code 1 if it does."""
    from dragoman.cli.host_pages import lines_of

    screen = Screen()

    async def work(used: Host) -> str:
        return used.diff(server, name)

    difference = _using(settings, work, screen=screen, is_connected=True, server=server)
    if settings.is_json:
        screen.json({"server": server, "changed": bool(difference), "diff": difference})
    elif difference:
        screen.show(lines_of(difference))
    else:
        screen.text(f"{server}: nothing has changed")
    return Exit.TOOL_FAILED if difference else Exit.OK


# --- policy and grants ----------------------------------------------------------------------------


@host.group("policy", cls=OrderedGroup)
def policy() -> None:
    """What the rules say."""


@policy.command("explain")
@click.argument("action")
@click.argument("server")
@click.argument("object", required=False, default="")
@click.option("--args", "args_json", metavar="JSON", help="The arguments of a call.")
@host_options
def explain(
    settings: HostSettings, action: str, server: str, object: str, args_json: str | None
) -> int:
    """Say what would be decided about ACTION on SERVER, and why: every step on the way.

    `dragoman host policy explain tool.call github create_issue`. Exit code 6 if it is denied.
    """
    from dragoman.cli.arguments import read_json_object
    from dragoman.cli.host_pages import verdict_document, verdict_page
    from dragoman.host.kinds import Effect
    from dragoman.host.rules import action_named

    acted = action_named(action)
    arguments = None if args_json is None else read_json_object(args_json)
    screen = Screen()

    async def work(used: Host) -> tuple[Verdict, list[str]]:
        verdict = used.explain(acted, server, object, arguments)
        entry = used.config.servers[server]
        notes = list(entry.faults)
        if not entry.is_identified:
            notes.append(f"who {server!r} is depends on that, so no earlier answer was looked at")
        return verdict, notes

    verdict, notes = _using(settings, work, screen=screen)
    subject = f"{acted}({server}/{object})" if object else f"{acted}({server})"
    if settings.is_json:
        screen.json(verdict_document(subject, verdict, notes))
    else:
        screen.show(verdict_page(subject, verdict))
        for note in notes:
            screen.note(note, "yellow")
    return Exit.REFUSED if verdict.effect is Effect.DENY else Exit.OK


@host.command("grants")
@click.option("--all", "all_", is_flag=True, help="Also what was revoked or has expired.")
@host_options
def grants(settings: HostSettings, all_: bool) -> int:
    """List what is remembered: every lasting yes and no."""
    from dragoman.cli.host_pages import grant_document, grants_table

    screen = Screen()
    with _remembered(settings) as store:
        found = store.list(principal=PRINCIPAL, with_revoked=all_)
    if settings.is_json:
        screen.json({"grants": [grant_document(one) for one in found]})
    else:
        screen.show(grants_table(found))
    return Exit.OK


@host.command("revoke")
@click.argument("ids", nargs=-1, required=True)
@host_options
def revoke(settings: HostSettings, ids: tuple[str, ...]) -> int:
    """Take remembered answers back, in every process: the next time you are asked again."""
    screen = Screen()
    with _remembered(settings) as store:
        revoked = [one for one in ids if store.revoke(one)]
    unknown = [one for one in ids if one not in revoked]
    if unknown:
        done = f"{', '.join(revoked)} revoked; " if revoked else ""
        raise Misconfigured(
            f"{done}there is no grant {', '.join(map(repr, unknown))} that holds; "
            "`dragoman host grants` lists them"
        )
    _told(screen, settings, {"revoked": revoked}, [f"{one}: revoked" for one in revoked])
    return Exit.OK


@contextmanager
def _remembered(settings: HostSettings) -> Iterator[GrantStore]:
    """The store of answers alone: a broken mcp.json must not keep anybody from taking one back."""
    from dragoman.host.grants import GrantStore
    from dragoman.host.state import StateDir

    store = GrantStore(StateDir(settings.state).grants)
    try:
        yield store
    finally:
        store.close()


# --- secrets --------------------------------------------------------------------------------------


@host.group("secrets", cls=OrderedGroup)
def secrets() -> None:
    """What is kept in the keyring, or in a file of yours. Values are never printed."""


@secrets.command("list")
@host_options
def list_secrets(settings: HostSettings) -> int:
    """List the names of all secrets, and where they are kept."""
    from dragoman.cli.host_pages import secrets_table

    screen = Screen()
    places = _secrets(settings).places()
    if settings.is_json:
        kept = [{"name": name, "where": places[name]} for name in sorted(places)]
        screen.json({"secrets": kept})
    elif places:
        screen.show(secrets_table(places))
    else:
        screen.note("no secrets are kept", "dim")
    return Exit.OK


@secrets.command("forget")
@click.argument("names", nargs=-1, required=True)
@host_options
def forget_secrets(settings: HostSettings, names: tuple[str, ...]) -> int:
    """Delete secrets for good, wherever they are kept.

    The mcp.json stays as it is: a server that names one there cannot be started any more.
    """
    store = _secrets(settings)
    # A name that is given twice is deleted once.
    wanted = list(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in store.places()]
    if unknown:
        raise Misconfigured(
            f"there is no secret {', '.join(map(repr, map(one_line, unknown)))}, and none was "
            "deleted; `dragoman host secrets list` lists them"
        )
    for name in wanted:
        store.delete(name)
    lines = [f"{one_line(name)}: forgotten" for name in wanted]
    _told(Screen(), settings, {"forgotten": wanted}, lines)
    return Exit.OK


# --- the audit log --------------------------------------------------------------------------------


@host.group("audit", cls=OrderedGroup)
def audit() -> None:
    """What was decided and done: a log that only grows, and that shows whether it was changed."""


@audit.command("show")
@click.option(
    "--last",
    type=click.IntRange(1),
    default=RECORDS_SHOWN,
    show_default=True,
    metavar="N",
    help="How many records at most, of those that fit.",
)
@click.option("--server", metavar="NAME", help="Only records about this server.")
@click.option(
    "--action", metavar="ACTION", help="Only decisions about this: tool.call, server.start ..."
)
@click.option(
    "--trace",
    metavar="ID",
    help="Only what belongs to one request: its decisions and how it ended. The ID is the member"
    ' "trace" of a record with --json.',
)
@host_options
def show(
    settings: HostSettings, last: int, server: str | None, action: str | None, trace: str | None
) -> int:
    """Print the newest records of the audit log; the last line is the newest.

    A record is a decision (what was to be done, yes or no, and the rule or the answer that
    decided), how a call that was allowed ended, or an event, such as a server that was started.
    The table shortens them. With --json each is printed whole, as one line of JSON.
    """
    from dragoman.cli.host_pages import records_table
    from dragoman.host.audit import read

    where = {"server": server, "action": action, "trace": trace}
    wanted = {name: value for name, value in where.items() if value is not None}
    records = list(read(_log(settings), where=wanted, last=last))
    screen = Screen()
    if settings.is_json:
        for record in records:
            sys.stdout.write(json.dumps(record) + "\n")
    else:
        screen.show(records_table(records))
    return Exit.OK


@audit.command("verify")
@click.argument("file", required=False)
@host_options
def verify(settings: HostSettings, file: str | None) -> int:
    """Check that no record was changed, removed or moved; the first that was is named.

    Exit code 1 if one was.
    """
    from dragoman.host.audit import verify as verify_log

    if file is not None and os.path.exists(file) and not os.path.isfile(file):
        raise Misconfigured(f"{file} is no regular file")
    report = verify_log(Path(file) if file is not None else _log(settings))
    screen = Screen()
    if settings.is_json:
        document: dict[str, Any] = {
            "isIntact": report.is_intact,
            "files": list(report.files),
            "records": report.records,
            "lastHash": report.last_hash,
            "anchoredSeq": report.anchored_seq,
            "notes": list(report.notes),
        }
        if report.fault is not None:
            fault = report.fault
            document["fault"] = {
                "kind": fault.kind,
                "file": fault.file,
                "line": fault.line,
                "text": fault.text,
            }
        screen.json(document)
    else:
        screen.show(Text(one_line(str(report)) if "\n" not in str(report) else str(report)))
    return Exit.OK if report.is_intact else Exit.TOOL_FAILED


@audit.command("set-aside")
@host_options
def set_aside(settings: HostSettings) -> int:
    """Put a log that is broken into a folder beside it; the next start begins a new one.

    Nothing is lost: `dragoman host audit verify FILE` works there as before.
    """
    from dragoman.host.audit import set_aside as put_aside

    path = _log(settings)
    if not path.exists():
        raise Misconfigured(f"there is no audit log in {path.parent}")
    folder = put_aside(path)
    screen = Screen()
    if settings.is_json:
        screen.json({"folder": str(folder)})
    else:
        screen.show(Text(f"{path.name} and its anchors are in {folder}"))
    return Exit.OK


def _log(settings: HostSettings) -> Path:
    from dragoman.host.state import StateDir

    return StateDir(settings.state).audit


# --- files ----------------------------------------------------------------------------------------


def _format(name: str) -> Any:
    from dragoman.host.formats import find_format

    return find_format(name)


def _folder(settings: HostSettings) -> Path:
    from dragoman.client.config import project_of

    return project_of(config_file(settings.config, may_be_missing=True))


def _imported(format: str, file: str | None, project: Path) -> Imported:
    """What the other program has: in this file, or in the first of its own that is there."""
    from dragoman.host.formats import read_file

    if file is not None:
        return read_file(Path(file), format)
    places = _format(format).files(os.environ, project, platform=sys.platform)
    for path in places:
        if path.is_file():
            return read_file(path, format)
    raise Misconfigured(f"there is none of {', '.join(map(str, places))}; name the file")


def _server(own: Any, name: str, raw: Mapping[str, Any]) -> Portable:
    try:
        server: Portable = own.server(name, raw)
    except ValueError as why:
        raise Misconfigured(f"{name}: {why}") from None
    return server


def _servers(path: Path) -> Sequence[Portable]:
    from dragoman.host.formats import read_text

    text = read_text(path)
    servers: Sequence[Portable] = _format(OWN_FORMAT).read(text, path).servers if text else ()
    return servers


def _write(
    path: Path,
    servers: Sequence[Portable],
    *,
    may_replace: bool,
    inputs: Sequence[Mapping[str, Any]] = (),
) -> tuple[tuple[str, ...], list[Loss]]:
    """Put servers into our own file; returns those that were added or changed, and what is lost.

    Raises:
        Misconfigured: a server cannot be written.
    """
    from dragoman.host.formats import read_text, save

    before = read_text(path)
    written = _format(OWN_FORMAT).write(
        servers, onto=before, path=path, inputs=inputs, may_replace=may_replace
    )
    whole = [str(one) for one in written.losses if one.is_whole]
    if whole:
        raise Misconfigured("; ".join(whole))
    if written.text != before:
        save(path, written.text, before=before)
    return written.names, list(written.losses)


def _without_secrets(
    screen: Screen, settings: HostSettings, server: Portable, *, is_moving: bool
) -> tuple[Portable, list[str]]:
    """The server, with its literal secrets moved if that is wanted; else they are told."""
    from dragoman.host.formats import move_secrets, secrets_in

    found = secrets_in(server)
    if not found:
        return server, []
    if is_moving:
        store = _secrets(settings)
        server, names = move_secrets(server, store)
        if not settings.is_json:
            if names:
                screen.note(f"{server.name}: {', '.join(names)} kept in {store.where}", "green")
            if left := secrets_in(server):
                which = ", ".join(sorted({_place_of(one) for one in left}))
                screen.note(
                    f"{server.name}: {which} looks like a secret and stays in the file, since it "
                    "is in an argument or the URL; use a variable or a header",
                    "yellow",
                )
        return server, names
    if not settings.is_json:
        which = ", ".join(sorted({_place_of(one) for one in found}))
        can_move = any(one.member in ("env", "headers") for one in found)
        hint = "--move-secrets keeps it elsewhere" if can_move else "use a variable or a header"
        screen.note(
            f"{server.name}: {which} looks like a secret and stands in the file; {hint}",
            "yellow",
        )
    return server, []


def _place_of(one: LiteralSecret) -> str:
    """Where a secret stands, for people, who count from 1."""
    if one.member == "args" and one.name.isdigit():
        return f"argument {int(one.name) + 1}"
    return one_line(one.name or one.member)


def _secrets(settings: HostSettings) -> SecretStore:
    from dragoman.host.secrets import SecretStore
    from dragoman.host.state import StateDir

    return SecretStore.open(StateDir(settings.state).path)


def _told(
    screen: Screen, settings: HostSettings, document: Mapping[str, Any], lines: Sequence[str]
) -> None:
    if settings.is_json:
        screen.json(document)
        return
    for line in lines:
        screen.text(line)
