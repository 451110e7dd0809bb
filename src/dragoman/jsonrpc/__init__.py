"""Layer 0: JSON-RPC 2.0, and nothing of MCP."""
