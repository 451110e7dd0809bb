"""The everything clients of the peers, how they reach our server, and what they must see of it."""

from __future__ import annotations

from tests.interop.documents import REVISIONS, Pair

CODES = {
    "unknownTool": -32602,
    "unknownPrompt": -32602,
    "missingArgument": -32602,
    "unknownResource": -32002,
}

# What a revision cannot hold is substituted: sound as an embedded resource, a link as a line of text.
MEDIA = {
    "2024-11-05": ("text", "resource", "resource", "text"),
    "2025-03-26": ("text", "audio", "resource", "text"),
    "2025-06-18": ("text", "audio", "resource", "resource_link"),
    "2025-11-25": ("text", "audio", "resource", "resource_link"),
}

# Name of the client: the peer, its program, its options, the revision both must agree on.
CLIENTS: dict[str, tuple[str, str, tuple[str, ...], str]] = {
    "mcp-1.6": ("mcp-1.6", "mcp1_client.py", (), "2024-11-05"),
    "mcp-1.9": ("mcp-1.9", "mcp1_client.py", (), "2025-03-26"),
    "mcp-1.22": ("mcp-1.22", "mcp1_client.py", (), "2025-06-18"),
    "mcp-1.29": ("mcp-1.29", "mcp1_client.py", (), "2025-11-25"),
    "mcp-2.3": ("mcp-2.3", "mcp2_client.py", ("--mode", "legacy"), "2025-11-25"),
    "mcp-2.3-probing": ("mcp-2.3", "mcp2_client.py", ("--mode", "auto"), "2025-11-25"),
    "fastmcp-4.1": ("fastmcp-4.1", "fastmcp_client.py", ("--mode", "legacy"), "2025-11-25"),
    "fastmcp-4.1-probing": ("fastmcp-4.1", "fastmcp_client.py", ("--mode", "auto"), "2025-11-25"),
    "ts-1": ("ts-1", "ts1_client.mjs", (), "2025-11-25"),
    "ts-2-probing": ("ts-2", "ts2_client.mjs", ("--mode", "auto"), "2025-11-25"),
    **{
        f"ts-2-at-{revision}": ("ts-2", "ts2_client.mjs", ("--revision", revision), revision)
        for revision in REVISIONS
    },
}


# Name of the run: the client and how it reaches our server. One process of ours serves both HTTP transports.
RUNS: dict[str, tuple[str, str]] = {
    **{name: (name, "stdio") for name in CLIENTS},
    # mcp 1.6 is older than Streamable HTTP.
    **{f"{name}-over-streamable": (name, "streamable") for name in CLIENTS if name != "mcp-1.6"},
    # HTTP+SSE is one transport at every revision; the probes of a newer one go the way of the others.
    **{f"{name}-over-sse": (name, "sse") for name in CLIENTS if "probing" not in name},
}


def pair(name: str) -> Pair:
    client, transport = RUNS[name]
    peer, _, _, revision = CLIENTS[client]
    codes = dict(CODES)
    if revision != "2025-11-25":
        # From 2025-11-25 on, arguments that miss the schema are the model's to read.
        codes["badArguments"] = -32602
    if peer == "ts-2":
        # This client rewrites -32002 to the number of 2026-07-28 before a caller sees it.
        codes["unknownResource"] = -32602
    return Pair(
        revision,
        "dragoman-everything",
        codes,
        media=MEDIA[revision],
        messages=revision != "2024-11-05",
        cuts=transport != "stdio",
    )
