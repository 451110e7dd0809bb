"""Audit records in the words of OpenTelemetry, for whoever sends them on.

A record becomes a log record as OpenTelemetry's data model has it. The attributes are those of the
semantic conventions for MCP and generative AI where they have one; the rest begins with `dragoman.`.
Nothing here needs OpenTelemetry, or sends anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from dragoman.host.kinds import Action, Effect

__all__ = ["to_otel"]

# The method that an action stands for on the wire.
_METHODS = {
    Action.SERVER_CONNECT: "initialize",
    Action.TOOL_EXPOSE: "tools/list",
    Action.TOOL_CALL: "tools/call",
    Action.RESOURCE_READ: "resources/read",
    Action.PROMPT_GET: "prompts/get",
    Action.COMPLETE: "completion/complete",
    Action.ROOTS_EXPOSE: "roots/list",
    Action.SAMPLING_REQUEST: "sampling/createMessage",
    Action.SAMPLING_RELEASE: "sampling/createMessage",
    Action.ELICIT_FORM: "elicitation/create",
    Action.ELICIT_URL: "elicitation/create",
}

# What the object of an action is called there.
_OBJECTS = {
    Action.TOOL_CALL: "gen_ai.tool.name",
    Action.PROMPT_GET: "gen_ai.prompt.name",
    Action.RESOURCE_READ: "mcp.resource.uri",
    Action.SAMPLING_REQUEST: "gen_ai.request.model",
    Action.SAMPLING_RELEASE: "gen_ai.request.model",
}

# What is ours to name.
_OWN = (
    "seq",
    "hash",
    "id",
    "kind",
    "event",
    "session",
    "principal",
    "server",
    "identity",
    "action",
    "object",
    "effect",
    "step",
    "rule",
    "layer",
    "source",
    "code",
    "grant",
    "approval",
    "scope",
    "actor",
    "channel",
    "edited",
    "view_digest",
    "fingerprint",
    "taint",
    "status",
    "duration_ms",
)

# W3C trace context: version, trace, parent, flags.
_TRACE_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")

# Numbers of OpenTelemetry's data model.
_INFO = (9, "INFO")
_WARN = (13, "WARN")

_EPOCH = datetime.fromtimestamp(0, UTC)


def to_otel(record: Mapping[str, Any]) -> dict[str, Any]:
    """One audit record as a log record: times in nanoseconds, attributes flat.

    `trace_id` and `span_id` are there when the record's trace is a W3C `traceparent`. Arguments and
    results are left out, whatever the rules kept of them: their digest is there.
    """
    number, text = _INFO if _is_fine(record) else _WARN
    made: dict[str, Any] = {
        "time_unix_nano": _nanoseconds(record.get("ts")),
        "event_name": f"dragoman.audit.{record.get('kind', 'unknown')}",
        "severity_number": number,
        "severity_text": text,
        "body": _sentence(record),
        "attributes": _attributes(record),
    }
    trace = str(record.get("trace", ""))
    if match := _TRACE_PARENT.fullmatch(trace):
        made["trace_id"], made["span_id"] = match[1], match[2]
    elif trace:
        made["attributes"]["dragoman.audit.trace"] = trace
    return made


def _attributes(record: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {
        f"dragoman.audit.{name}": record[name]
        for name in _OWN
        if isinstance(record.get(name), str | int | float | list)
    }
    action = _action(record)
    if action in _METHODS:
        made["mcp.method.name"] = _METHODS[action]
    if action in _OBJECTS and record.get("object"):
        made[_OBJECTS[action]] = record["object"]
    if action is Action.TOOL_CALL:
        made["gen_ai.operation.name"] = "execute_tool"
    if not _is_fine(record):
        # A short, stable word: what was refused, or how it failed.
        for name in ("error", "code", "status"):
            if record.get(name):
                made["error.type"] = str(record[name])
                break
    args = record.get("args")
    if isinstance(args, dict) and "digest" in args:
        made["dragoman.audit.args.digest"] = args["digest"]
        made["dragoman.audit.args.bytes"] = args.get("bytes", 0)
    return made


def _action(record: Mapping[str, Any]) -> Action | None:
    try:
        return Action(record.get("action", ""))
    except ValueError:
        return None


def _is_fine(record: Mapping[str, Any]) -> bool:
    if record.get("kind") == "unreadable":
        return False
    return record.get("effect") != Effect.DENY and record.get("status", "ok") == "ok"


def _sentence(record: Mapping[str, Any]) -> str:
    match record.get("kind"):
        case "decision":
            where = "/".join(str(record[name]) for name in ("server", "object") if record.get(name))
            return f"{record.get('effect')} {record.get('action')}({where}): {record.get('rule')}"
        case "outcome":
            return f"{record.get('id')}: {record.get('status')}"
        case kind:
            return str(record.get("text") or record.get("event") or kind)


def _nanoseconds(ts: object) -> int:
    try:
        since = datetime.fromisoformat(str(ts)) - _EPOCH
    except (ValueError, TypeError):
        return 0
    # In whole numbers: a float has no room for nanoseconds of this century.
    return since // timedelta(microseconds=1) * 1000
