"""Audit records in OpenTelemetry's words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dragoman.host.audit import Audit, read, to_otel
from dragoman.host.kinds import Action, Code, Effect, Step, Verdict
from dragoman.host.policy import AuditRules
from tests.host.audit_log import INTENT, PAYLOAD, YES

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"


def test_a_call_has_the_names_of_the_conventions(tmp_path: Path) -> None:
    with Audit(
        tmp_path / "audit.jsonl", AuditRules(args="full"), clock=lambda: 1_234_567_890.25
    ) as audit:
        audit.decision(INTENT, YES, payload=PAYLOAD, trace=PARENT)
    record = to_otel(list(read(tmp_path / "audit.jsonl"))[-1])
    assert record["time_unix_nano"] == 1_234_567_890_250_000_000
    assert record["event_name"] == "dragoman.audit.decision"
    assert (record["trace_id"], record["span_id"]) == ("a" * 32, "b" * 16)
    assert (record["severity_number"], record["severity_text"]) == (9, "INFO")
    assert record["body"] == "allow tool.call(fs/read_file): tool(fs/read_file)"
    attributes = record["attributes"]
    assert attributes["mcp.method.name"] == "tools/call"
    assert attributes["gen_ai.tool.name"] == "read_file"
    assert attributes["gen_ai.operation.name"] == "execute_tool"
    assert attributes["dragoman.audit.taint"] == ["mail", "web"]
    assert attributes["dragoman.audit.args.bytes"] == len(PAYLOAD)
    assert "error.type" not in attributes
    assert "/srv/app" not in str(record), "arguments are not sent on"


def test_a_refusal_and_a_failure_are_warnings_with_their_code(tmp_path: Path) -> None:
    refused = Verdict(effect=Effect.DENY, step=Step.DENY, rule="no", code=Code.RULE_DENIED)
    with Audit(tmp_path / "audit.jsonl") as audit:
        mark = audit.decision(replace(INTENT, action=Action.PROMPT_GET), refused, trace="mine")
        audit.outcome(mark, "failed", error="ToolError")
        audit.event("started", server="fs")
    first, second, third = map(to_otel, list(read(tmp_path / "audit.jsonl"))[1:])
    assert first["severity_text"] == second["severity_text"] == "WARN"
    assert first["attributes"]["error.type"] == "rule_denied"
    assert first["attributes"]["gen_ai.prompt.name"] == "read_file"
    assert first["attributes"]["dragoman.audit.trace"] == "mine"
    assert "trace_id" not in first
    assert second["attributes"]["error.type"] == "ToolError"
    assert third["body"] == "started"
    assert third["severity_text"] == "INFO"


@pytest.mark.parametrize("record", [{}, {"kind": "unreadable", "line": 3}, {"ts": 3, "action": 4}])
def test_a_record_that_is_none_raises_nothing(record: dict[str, object]) -> None:
    assert to_otel(record)["attributes"] is not None


@pytest.mark.parametrize("action", Action)
def test_attributes_are_flat_for_every_action(tmp_path: Path, action: Action) -> None:
    with Audit(tmp_path / "audit.jsonl") as audit:
        audit.decision(replace(INTENT, action=action), YES)
    attributes = to_otel(list(read(tmp_path / "audit.jsonl"))[-1])["attributes"]
    assert all(isinstance(value, str | int | float | list) for value in attributes.values())
    assert attributes["dragoman.audit.action"] == action
