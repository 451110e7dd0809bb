"""What must be seen in each scenario: the checks that the suite writes when there is something to check.

The suite counts what it saw, so that a check that was never made looks like one that passed. Each scenario
therefore has its list here, and a scenario that is not here is not known to prove anything.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["IS_INFO", "NOT_YET", "client_checks", "is_not_yet", "server_checks"]

WIRE = "wire-schema-valid"

# Scenarios whose only check has the scenario's own name, beside that of the wire.
_PLAIN = (
    "logging-set-level",
    "ping",
    "completion-complete",
    "tools-call-simple-text",
    "tools-call-image",
    "tools-call-audio",
    "tools-call-embedded-resource",
    "tools-call-mixed-content",
    "tools-call-with-logging",
    "tools-call-error",
    "tools-call-with-progress",
    "tools-call-sampling",
    "tools-call-elicitation",
    "resources-list",
    "resources-read-text",
    "resources-read-binary",
    "resources-templates-read",
    "resources-subscribe",
    "resources-unsubscribe",
    "prompts-list",
    "prompts-get-simple",
    "prompts-get-with-args",
    "prompts-get-embedded-resource",
    "prompts-get-with-image",
)

_SESSION: dict[str, tuple[str, ...]] = {
    "server-session-lifecycle": (
        "server-session-initialized-accepted",
        "server-session-delete-accepted",
        "server-session-terminated-returns-404",
    )
}

_SERVER_2025_06_18: dict[str, tuple[str, ...]] = {
    **_SESSION,
    "server-initialize": ("server-initialize", "server-session-id-visible-ascii", WIRE),
    "tools-list": ("tools-list", WIRE),
    **{name: (name, WIRE) for name in _PLAIN},
}

_SERVER_2025_11_25: dict[str, tuple[str, ...]] = {
    **_SERVER_2025_06_18,
    "tools-list": ("tools-list", "tools-name-format", WIRE),
    "json-schema-2020-12": (
        "json-schema-2020-12-tool-found",
        "json-schema-2020-12-$schema",
        "json-schema-2020-12-$defs",
        "json-schema-2020-12-additionalProperties",
        "sep-2106-composition-keywords-preserved",
        "sep-2106-conditional-keywords-preserved",
        "sep-2106-anchor-keyword-preserved",
        WIRE,
    ),
    "elicitation-sep1034-defaults": (
        "elicitation-sep1034-string-default",
        "elicitation-sep1034-integer-default",
        "elicitation-sep1034-number-default",
        "elicitation-sep1034-enum-default",
        "elicitation-sep1034-boolean-default",
        WIRE,
    ),
    "elicitation-sep1330-enums": (
        "elicitation-sep1330-untitled-single",
        "elicitation-sep1330-titled-single",
        "elicitation-sep1330-legacy-enumnames",
        "elicitation-sep1330-untitled-multi",
        "elicitation-sep1330-titled-multi",
        WIRE,
    ),
    "server-sse-polling": (
        "server-sse-priming-event",
        "server-sse-retry-field",
        "server-sse-disconnect-resume",
    ),
    "server-sse-multiple-streams": (
        "server-accepts-multiple-post-streams",
        "server-sse-streams-functional",
    ),
    "dns-rebinding-protection": (
        "localhost-host-rebinding-rejected",
        "localhost-host-valid-accepted",
    ),
}

_SERVER: dict[str, dict[str, tuple[str, ...]]] = {
    "2025-03-26": _SESSION,
    "2025-06-18": _SERVER_2025_06_18,
    "2025-11-25": _SERVER_2025_11_25,
}

_CLIENT_2025_06_18: dict[str, tuple[str, ...]] = {
    "initialize": ("mcp-client-initialization",),
    "tools_call": ("tool-add-numbers", WIRE),
}

_CLIENT: dict[str, dict[str, tuple[str, ...]]] = {
    "2025-03-26": {},
    "2025-06-18": _CLIENT_2025_06_18,
    "2025-11-25": {
        **_CLIENT_2025_06_18,
        "elicitation-sep1034-client-defaults": (
            "client-elicitation-sep1034-string-default",
            "client-elicitation-sep1034-integer-default",
            "client-elicitation-sep1034-number-default",
            "client-elicitation-sep1034-enum-default",
            "client-elicitation-sep1034-boolean-default",
        ),
        "sse-retry": (
            "client-sse-graceful-reconnect",
            "client-sse-retry-timing",
            "client-sse-last-event-id",
        ),
        "json-schema-2020-12-preservation": (
            "json-schema-2020-12-client-tool-found",
            "json-schema-2020-12-client-echo-completed",
            "json-schema-2020-12-client-$schema-preserved",
            "json-schema-2020-12-client-$defs-preserved",
            "json-schema-2020-12-client-additionalProperties-preserved",
            "sep-2106-client-composition-keywords-preserved",
            "sep-2106-client-conditional-keywords-preserved",
            "sep-2106-client-anchor-keyword-preserved",
            WIRE,
        ),
    },
}

IS_INFO = {
    "server-sse-streams-functional": "lists are answered with JSON, so there is no stream to look at",
}
"""Checks that may be told instead of passed, each with the reason; they are not counted."""

NOT_YET = ("auth/",)
"""How the names of scenarios begin that are about what dragoman does not have yet."""


def is_not_yet(scenario: str) -> bool:
    """Whether a scenario is left out: it is run and shown, and never counted."""
    return scenario.startswith(NOT_YET)


def server_checks(wire: str) -> dict[str, frozenset[str]]:
    """The checks of each scenario of a server at a revision. Raises KeyError for one without."""
    return _frozen(_SERVER[wire].items())


def client_checks(wire: str) -> dict[str, frozenset[str]]:
    """The checks of each scenario of a client at a revision. Raises KeyError for one without."""
    return _frozen(_CLIENT[wire].items())


def _frozen(table: Iterable[tuple[str, tuple[str, ...]]]) -> dict[str, frozenset[str]]:
    return {scenario: frozenset(checks) for scenario, checks in table}
