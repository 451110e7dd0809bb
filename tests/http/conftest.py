"""Until the server can be served over HTTP there is nothing here to run."""

from __future__ import annotations

from dragoman import Server

collect_ignore_glob = [] if hasattr(Server, "asgi") else ["test_*.py"]
