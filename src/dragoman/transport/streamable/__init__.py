"""Streamable HTTP: one endpoint, answers as JSON or as a stream, sessions, resumption."""
