"""The error numbers JSON-RPC 2.0 reserves, and who may use which range.

Spec: https://www.jsonrpc.org/specification#error_object
"""

from __future__ import annotations

__all__ = [
    "INTERNAL_ERROR",
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "METHOD_NOT_FOUND",
    "PARSE_ERROR",
    "SERVER_RANGE",
]

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603

SERVER_RANGE = range(-32099, -31999)
"""Numbers left to implementations: -32099 to -32000."""
