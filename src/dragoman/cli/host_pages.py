"""Tables and documents about a host: its servers, tools, grants, records and verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dragoman.cli.printable import compact_json, one_line
from dragoman.host.kinds import Effect, Grant, Trust, Verdict

if TYPE_CHECKING:
    from dragoman.host.connections import ServerStatus
    from dragoman.host.host import HostTool

__all__ = [
    "grant_document",
    "grants_table",
    "lines_of",
    "records_table",
    "secrets_table",
    "server_document",
    "servers_table",
    "tools_table",
    "verdict_document",
    "verdict_page",
]

STATE_STYLES = {
    "connected": "green",
    "ready": "green",
    "connecting": "cyan",
    "reconnecting": "yellow",
    "waiting for approval": "yellow",
    "not reviewed": "yellow",
    "disabled": "dim",
    "closed": "dim",
    "refused": "red",
    "changed": "bold red",
    "blocked": "red",
    "failed": "red",
}
# Of one server: a thousand lines would push every other one off the screen.
NOTES_SHOWN = 10
# 1,000 characters: what is wrong with a server's settings has paths and suggestions in it.
DETAIL_SHOWN = 1000
# How long an answer holds, in words; once goes without saying.
_SCOPES = {"session": "for the session", "always": "for always"}
EFFECT_STYLES = {"allow": "green", "ask": "yellow", "deny": "red", "cancel": "yellow"}


# --- servers --------------------------------------------------------------------------------------


def servers_table(servers: Sequence[ServerStatus]) -> RenderableType:
    """One row for each server, and below it what a person should look at."""
    if not servers:
        return Text("There are no servers.", style="dim")
    table = _table("server", "state", "trust", "tools", "about")
    parts: list[RenderableType] = [table]
    for one in servers:
        state = one.state.value
        about = one_line(one.detail, DETAIL_SHOWN) or one_line(one.calls_itself, 80)
        table.add_row(
            Text(one_line(one.server), style="bold"),
            Text(state, style=STATE_STYLES.get(state, "")),
            Text(one.trust.value, style="red" if one.trust is Trust.BLOCKED else ""),
            str(one.tools) if one.state.value == "connected" else "",
            Text(about),
        )
        notes = [f"{name}: held back, {why}" for name, why in one.held_back]
        notes += [f"{name}: {what}" for name, what in one.flags]
        if len(notes) > NOTES_SHOWN:
            more = len(notes) - NOTES_SHOWN
            notes[NOTES_SHOWN:] = [f"and {more:,} more of the like; --json has them all"]
        parts += [
            Text(f"{one_line(one.server)}: {one_line(note, 300)}", style="yellow") for note in notes
        ]
        if one.diff:
            parts.append(lines_of(one.diff))
    return Group(*parts)


def server_document(one: ServerStatus) -> dict[str, Any]:
    """A server as JSON."""
    document: dict[str, Any] = {
        "server": one.server,
        "state": one.state.value,
        "trust": one.trust.value,
        "identity": one.identity,
        "facts": [{"label": label, "text": text} for label, text in one.facts],
    }
    if one.detail:
        document["detail"] = one.detail
    if one.revision:
        document |= {"protocolVersion": one.revision, "callsItself": one.calls_itself}
        document |= {"tools": one.tools, "prompts": one.prompts}
    if one.held_back:
        document["heldBack"] = [{"name": name, "why": why} for name, why in one.held_back]
    if one.flags:
        document["flags"] = [{"name": name, "what": what} for name, what in one.flags]
    if one.diff:
        document["diff"] = one.diff
    return document


def tools_table(tools: Sequence[HostTool]) -> RenderableType:
    """One row for each tool, those that are held back with the reason."""
    if not tools:
        return Text("There are no tools.", style="dim")
    table = _table("tool", "description")
    for one in tools:
        about = Text(one_line(one.tool.description or one.tool.title or "", 160))
        for problem in one.problems:
            about = Text(f"held back: {one_line(problem.text, 200)}", style="red")
        for flag in one.flags:
            about.append(f"\n! {one_line(flag.text, 200)}", style="yellow")
        name = Text(f"{one_line(one.server)}/{one_line(one.name)}")
        name.stylize("bold" if one.is_usable else "dim")
        table.add_row(name, about)
    return table


# --- rules, grants, records -----------------------------------------------------------------------


def verdict_page(subject: str, verdict: Verdict) -> RenderableType:
    """What would be decided, and every step on the way."""
    head = Text(verdict.effect.value, style=f"bold {EFFECT_STYLES[verdict.effect.value]}")
    head.append(f"  {one_line(subject)}", style="not bold default")
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    table.add_row("decided at", verdict.step.value)
    table.add_row("because", one_line(verdict.rule))
    where = verdict.layer + (f", {one_line(verdict.source)}" if verdict.source else "")
    table.add_row("layer", where)
    if verdict.code is not None:
        table.add_row("code", verdict.code.value)
    parts: list[RenderableType] = [head, table]
    parts += [Text(f"  {number}. {one_line(line)}") for number, line in enumerate(verdict.trail, 1)]
    return Group(*parts)


def verdict_document(subject: str, verdict: Verdict, notes: Sequence[str] = ()) -> dict[str, Any]:
    """The same as JSON."""
    document: dict[str, Any] = {
        "subject": subject,
        "effect": verdict.effect.value,
        "step": verdict.step.value,
        "rule": verdict.rule,
        "layer": verdict.layer,
        "source": verdict.source,
        "trail": list(verdict.trail),
    }
    if verdict.code is not None:
        document["code"] = verdict.code.value
    if verdict.grant:
        document["grant"] = verdict.grant
    if notes:
        document["notes"] = list(notes)
    return document


def grants_table(grants: Sequence[Grant]) -> RenderableType:
    """One row for each remembered answer, the refusals too."""
    if not grants:
        return Text("Nothing is remembered.", style="dim")
    table = _table("id", "answer", "what", "holds", "given", "used")
    for one in grants:
        effect = "yes" if one.effect is Effect.ALLOW else "no"
        holds = one.scope.value if one.revoked_at is None else "revoked"
        style = "dim" if one.revoked_at is not None else ""
        limits = limits_text(one)
        what = Text(f"{one.action.value}({one_line(one.server)}/{one_line(one.object)})")
        if limits:
            what.append(f"\n{limits}", style="dim")
        table.add_row(
            Text(one_line(one.id)),
            Text(effect, style="green" if one.effect is Effect.ALLOW else "red"),
            what,
            holds,
            moment(one.created_at),
            str(one.calls),
            style=style,
        )
    return table


def secrets_table(places: Mapping[str, Sequence[str]]) -> RenderableType:
    """One row for each secret: its name and where it is kept. No value comes near it."""
    table = _table("secret", "kept in")
    for name in sorted(places):
        table.add_row(one_line(name), one_line(" and ".join(places[name])))
    return table


def limits_text(grant: Grant) -> str:
    """What a grant is limited to, in a line."""
    limits = grant.limits
    parts = []
    for pointer, texts in (limits.arguments or {}).items():
        parts.append(f"{pointer} is {' or '.join(texts)}")
    if limits.max_calls is not None:
        parts.append(f"at most {limits.max_calls} times")
    if limits.models is not None:
        parts.append(f"models {', '.join(limits.models)}")
    if limits.max_tokens is not None:
        parts.append(f"at most {limits.max_tokens} tokens")
    if limits.expires_at is not None:
        parts.append(f"until {moment(limits.expires_at)}")
    if limits.taint and grant.effect is Effect.ALLOW:
        # A no holds whatever came before.
        parts.append(f"even after words of {', '.join(sorted(limits.taint))}")
    return one_line("; ".join(parts))


def grant_document(one: Grant) -> dict[str, Any]:
    """A grant as JSON."""
    limits = one.limits
    bounds: dict[str, Any] = {
        "arguments": None
        if limits.arguments is None
        else {pointer: list(texts) for pointer, texts in limits.arguments.items()},
        "taint": sorted(limits.taint) or None,
        "maxCalls": limits.max_calls,
        "models": None if limits.models is None else list(limits.models),
        "maxTokens": limits.max_tokens,
        "expiresAt": limits.expires_at,
    }
    return {
        "id": one.id,
        "effect": one.effect.value,
        "principal": one.principal,
        "server": one.server,
        "identity": one.identity,
        "action": one.action.value,
        "object": one.object,
        "scope": one.scope.value,
        "fingerprint": one.fingerprint,
        "limits": {name: value for name, value in bounds.items() if value is not None},
        "createdAt": one.created_at,
        "calls": one.calls,
        "revokedAt": one.revoked_at,
        "note": one.note,
    }


def records_table(records: Sequence[Mapping[str, Any]]) -> RenderableType:
    """One row for each record of the audit log."""
    if not records:
        return Text("There are no records.", style="dim")
    table = _table("#", "when", "what", "result", "why")
    for one in records:
        kind = str(one.get("kind", ""))
        result, why = "", ""
        if kind == "decision":
            about = "/".join(str(one[name]) for name in ("server", "object") if one.get(name))
            what = f"{one.get('action')}({about})"
            result, why = str(one.get("effect", "")), str(one.get("rule", ""))
            if scope := _SCOPES.get(str(one.get("scope"))):
                why += f", {scope}"
            why += ", with an edit" if one.get("edited") else ""
        elif kind == "outcome":
            what = f"  so ended {str(one.get('id', '')).rpartition('-')[2]}"
            result = str(one.get("status", ""))
            why = str(one.get("error", "")) or f"{one.get('duration_ms', '')} ms"
        elif kind == "event":
            what = " ".join(str(one.get(name, "")) for name in ("event", "server")).strip()
            why = str(one.get("text", ""))
        else:
            what, why = kind, compact_json({k: v for k, v in one.items() if k != "kind"})
        table.add_row(
            str(one.get("seq", "")),
            one_line(str(one.get("ts", ""))[:19].replace("T", " ")),
            one_line(what, 120),
            Text(one_line(result), style=EFFECT_STYLES.get(result, "")),
            one_line(why, 120),
        )
    return table


def moment(seconds: float) -> str:
    """A moment as date and time, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def lines_of(diff: str) -> Text:
    """A diff in its colours."""
    text = Text()
    for line in diff.splitlines():
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        text.append(f"{printable_line(line)}\n", style=style)
    return text


def printable_line(line: str) -> str:
    """One line of a diff with its blanks; unseen characters as escapes."""
    from dragoman.cli.printable import printable

    return printable(line.replace("\t", "    "))


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold")
    return table
