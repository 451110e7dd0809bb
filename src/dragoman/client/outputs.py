"""What a client knows of the results its server's tools give.

Spec: server/tools#output-schema
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from dragoman.errors import DragomanError, Misconfigured, PeerError
from dragoman.model.schema_check import SchemaCheck
from dragoman.model.tools import Tool

__all__ = ["Output", "Outputs"]

log = logging.getLogger("dragoman.client")

# What FastMCP and we put beside an output schema whose value had to be wrapped.
WRAP_MARK = "x-fastmcp-wrap-result"

# 10,000 tools that are called without being listed; a name and a small object each.
MAX_KNOWN = 10_000


class Output:
    """One tool's output schema, and whether its value is wrapped in an object to travel."""

    __slots__ = ("_check", "_is_read", "is_wrapped", "schema")

    def __init__(self, schema: dict[str, Any] | None) -> None:
        self.schema = schema
        self._check: SchemaCheck | None = None
        self._is_read = False
        properties = (schema or {}).get("properties")
        self.is_wrapped = bool(
            schema is not None
            and isinstance(properties, dict)
            and list(properties) == ["result"]
            and schema.get(WRAP_MARK, "title" not in schema)
        )

    def check(self, tool: str, structured: Any) -> None:
        """Hold a result against the schema; one that cannot be judged is let through, and logged.

        Raises:
            PeerError: the result does not fit; the text has every fault.
        """
        if not self._is_read:
            self._is_read = True
            try:
                if self.schema is not None:
                    self._check = SchemaCheck(self.schema, is_ours=False)
            except Misconfigured as fault:
                log.warning("results of %s are not checked: %s", tool, fault)
        if self._check is None:
            return
        faults = self._check.faults(structured)
        if faults:
            said = "; ".join(str(fault) for fault in faults)
            raise PeerError(f"the result of {tool} does not fit its output schema: {said}")

    def check_absent(self, tool: str) -> None:
        """No structured result came. PeerError when the schema promised one."""
        if self.schema is not None:
            raise PeerError(f"{tool} has an output schema, but its result holds no such data")


class Outputs:
    """The outputs of all tools, as they were last listed."""

    def __init__(self) -> None:
        self._known: dict[str, Output] = {}
        self._learning: asyncio.Future[None] | None = None

    def get(self, tool: str) -> Output | None:
        """What is known of a tool; None when nothing was learned yet."""
        return self._known.get(tool)

    def add(self, tool: str, schema: dict[str, Any] | None) -> Output:
        """Note one tool."""
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        known = self._known[tool] = Output(schema)
        return known

    def replace(self, tools: Iterable[Tool]) -> None:
        """Note what a list says; what is unchanged stays as it is."""
        old = self._known
        self._known = {
            tool.name: known
            if (known := old.get(tool.name)) is not None and known.schema == tool.output_schema
            else Output(tool.output_schema)
            for tool in tools
        }

    def forget(self) -> None:
        """The list has changed."""
        self._known = {}

    async def learn(self, list_tools: Callable[[], Awaitable[object]], timeout_s: float) -> bool:
        """List the tools once, however many results wait for it; False when that failed.

        It is logged then: a result that is there already, of a call that has done its work, must
        be neither lost nor kept waiting for it. The list as a whole may take `timeout_s`.
        """
        while self._learning is not None:
            waiting = self._learning
            await asyncio.wait([waiting])
            if not waiting.cancelled():
                return True
        learning = self._learning = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await list_tools()
        except (DragomanError, TimeoutError) as fault:
            said = str(fault) or f"no end within {timeout_s:g} s"
            log.warning("a result is not checked: the tools cannot be listed: %s", said)
            learning.cancel()
            return False
        except BaseException:
            # Whoever waits beside us tries again.
            learning.cancel()
            raise
        else:
            learning.set_result(None)
            return True
        finally:
            self._learning = None
