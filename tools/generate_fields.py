"""Generate src/dragoman/revisions/fields.py from the five official JSON Schemas.

    python tools/generate_fields.py SPEC_DIR [--check]

SPEC_DIR holds REVISION/schema.json for each revision. `--check` writes nothing and fails when the
file in the tree differs from what the schemas give.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from pathlib import Path
from typing import Any

import msgspec

import dragoman.model
from dragoman.model.base import Record

REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28")
TARGET = Path(__file__).parent.parent / "src" / "dragoman" / "revisions" / "fields.py"

# Where each record stands in the schemas; all places that exist in a revision are joined.
# "Name/a/b" goes into properties a, then b. Records that are not named here bear their own name.
PLACES: dict[str, list[str]] = {
    "Annotations": ["Annotations", "Annotated/annotations"],
    "CallToolParams": ["CallToolRequestParams", "CallToolRequest/params"],
    "CancelledParams": ["CancelledNotificationParams", "CancelledNotification/params"],
    "CompleteParams": ["CompleteRequestParams", "CompleteRequest/params"],
    "Completion": ["CompleteResult/completion"],
    "CompletionArgument": ["CompleteRequestParams/argument", "CompleteRequest/params/argument"],
    "CompletionContext": ["CompleteRequestParams/context", "CompleteRequest/params/context"],
    "CompletionsCapability": ["ServerCapabilities/completions"],
    "CreateMessageParams": ["CreateMessageRequestParams", "CreateMessageRequest/params"],
    "ElicitParams": ["ElicitRequestFormParams", "ElicitRequestURLParams", "ElicitRequest/params"],
    "ElicitationCapability": ["ClientCapabilities/elicitation"],
    "ElicitationCompleteParams": ["ElicitationCompleteNotification/params"],
    "EmptyResult": ["Result"],
    "GetPromptParams": ["GetPromptRequestParams", "GetPromptRequest/params"],
    "InitializeParams": ["InitializeRequestParams", "InitializeRequest/params"],
    "LogMessageParams": ["LoggingMessageNotificationParams", "LoggingMessageNotification/params"],
    "LoggingCapability": ["ServerCapabilities/logging"],
    "NoParams": ["RequestParams", "NotificationParams"],
    "PageParams": ["PaginatedRequestParams", "PaginatedRequest/params"],
    "ProgressParams": ["ProgressNotificationParams", "ProgressNotification/params"],
    "PromptsCapability": ["ServerCapabilities/prompts"],
    "ResourceContents": ["TextResourceContents", "BlobResourceContents"],
    "ResourceTemplateReference": ["ResourceTemplateReference", "ResourceReference"],
    "ResourceUpdatedParams": [
        "ResourceUpdatedNotificationParams",
        "ResourceUpdatedNotification/params",
    ],
    "ResourcesCapability": ["ServerCapabilities/resources"],
    "RootsCapability": ["ClientCapabilities/roots"],
    "SamplingCapability": ["ClientCapabilities/sampling"],
    "SetLevelParams": ["SetLevelRequestParams", "SetLevelRequest/params"],
    "ToolsCapability": ["ServerCapabilities/tools"],
    "UriParams": ["ReadResourceRequestParams", "ReadResourceRequest/params"],
}

# Every request's and notification's parameters may carry `_meta`, wherever a schema forgot to
# repeat it: the general Request and Notification say so.
META_ALWAYS = {name for name in PLACES if name.endswith("Params")} | {"NoParams"}


def records() -> list[type[Record]]:
    """Every record of the model, by name."""
    found: dict[str, type[Record]] = {}
    for info in pkgutil.iter_modules(dragoman.model.__path__):
        module = importlib.import_module(f"dragoman.model.{info.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Record) and value is not Record:
                found[value.__name__] = value
    return [found[name] for name in sorted(found)]


def place(definitions: dict[str, Any], path: str) -> dict[str, Any] | None:
    """The schema at a place, with `$ref` followed and `allOf` joined; None when it is not there."""
    name, *steps = path.split("/")
    node = definitions.get(name)
    for step in steps:
        if node is None:
            return None
        node = resolve(definitions, node).get("properties", {}).get(step)
    return None if node is None else resolve(definitions, node)


def resolve(definitions: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        return resolve(definitions, definitions[node["$ref"].rsplit("/", 1)[1]])
    if "allOf" in node:
        merged: dict[str, Any] = {"properties": dict(node.get("properties", {}))}
        merged["required"] = list(node.get("required", []))
        for part in node["allOf"]:
            part = resolve(definitions, part)
            merged["properties"].update(part.get("properties", {}))
            merged["required"] += part.get("required", [])
        return merged
    return node


def table(spec: Path) -> dict[str, dict[str, str]]:
    """record -> wire member -> the positions of the revisions that have it."""
    result: dict[str, dict[str, str]] = {}
    schemas = []
    for revision in REVISIONS:
        schema = json.loads((spec / revision / "schema.json").read_text())
        schemas.append(schema.get("definitions") or schema["$defs"])
    for record in records():
        name = record.__name__
        ours = {field.encode_name for field in msgspec.structs.fields(record)}
        tag = record.__struct_config__.tag_field
        members: dict[str, str] = {}
        for position, definitions in enumerate(schemas):
            declared: set[str] = set()
            for path in PLACES.get(name, [name]):
                node = place(definitions, path)
                if node is not None:
                    declared |= set(node.get("properties", {}))
            if name in META_ALWAYS and (declared or name == "NoParams"):
                declared.add("_meta")
            for member in sorted(declared & ours):
                members[member] = members.get(member, "") + str(position)
            unknown = declared - ours - {tag, "task", "inputResponses", "requestState", "_meta"}
            if unknown:
                print(
                    f"note: {name} {REVISIONS[position]} lacks {sorted(unknown)}", file=sys.stderr
                )
        result[name] = dict(sorted(members.items()))
    return result


def render(members: dict[str, dict[str, str]]) -> str:
    lines = [
        '"""Which members each record has, revision by revision.',
        "",
        "Generated by tools/generate_fields.py from the official schemas; do not edit.",
        "Each digit is a position in REVISIONS: the member exists there.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        '__all__ = ["MEMBERS", "REVISIONS"]',
        "",
        f"REVISIONS = {REVISIONS!r}".replace("'", '"'),
        "",
        "MEMBERS: dict[str, dict[str, str]] = {",
    ]
    for record, fields in members.items():
        if not fields:
            lines.append(f'    "{record}": {{}},')
            continue
        lines.append(f'    "{record}": {{')
        lines += [f'        "{member}": "{where}",' for member, where in fields.items()]
        lines.append("    },")
    return "\n".join([*lines, "}", ""])


def main() -> int:
    spec = Path(sys.argv[1])
    text = render(table(spec))
    if "--check" in sys.argv:
        if TARGET.read_text() != text:
            print(f"{TARGET.name} is not what the schemas give; run tools/generate_fields.py")
            return 1
        print(f"{TARGET.name} is current")
        return 0
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
