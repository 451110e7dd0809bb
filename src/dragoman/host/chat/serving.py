"""The calls that a model wants: each is answered, whatever comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from dragoman.errors import DragomanError, InvalidArguments, PeerError, RemoteFailure
from dragoman.host.chat.events import (
    News,
    Notice,
    ToolFinished,
    ToolProgress,
    ToolProposed,
    ToolStarted,
)
from dragoman.host.chat.given import Given, failed, succeeded
from dragoman.host.chat.needs import Bounds, ChatHost, Origin
from dragoman.host.chat.refusals import failure_text, is_withheld, refusal_text
from dragoman.host.heard import Heard
from dragoman.host.kinds import Denied
from dragoman.host.models.base import ToolUse
from dragoman.host.models.words import read_arguments
from dragoman.host.toolbox import READ_RESULT, SEARCH_TOOLS, Entry, Shelf
from dragoman.host.transcript import Transcript
from dragoman.model.content import ContentBlock, TextContent, ToolResultContent
from dragoman.model.progress import ProgressParams
from dragoman.model.unseen import one_line

__all__ = ["Serving"]

# 200 characters of what a model looks for: a line of the screen or two.
SHOWN_CHARS = 200

STOPPED = "Cancelled before it was done; it may have run in part."
NOT_BEGUN = "Not called: the turn was stopped before."


class Serving:
    """Makes the calls of a conversation, through its host.

    `taint` and `heard` are the conversation's own: whose words came back is noted there.
    """

    def __init__(
        self,
        host: ChatHost,
        shelf: Shelf,
        given: Given,
        transcript: Transcript,
        bounds: Bounds,
        *,
        taint: set[str],
        sink: str,
        heard: Heard,
    ) -> None:
        self._host = host
        self._shelf = shelf
        self._given = given
        self._transcript = transcript
        self._bounds = bounds
        self._taint = taint
        self._sink = sink
        self._heard = heard

    async def serve(self, uses: Sequence[ToolUse], left: int, trace: str, news: News) -> None:
        """Answer every call of one answer, side by side; the answers go into the transcript.

        The first `left` of them are made. `trace` begins the ids under which they are recorded.
        """
        answers: dict[str, ToolResultContent] = {}
        places = asyncio.Semaphore(self._bounds.parallel)
        # What one of them brings has not led to the others: each starts from what there was.
        origins = [Origin(self._taint, self._sink, self._heard) for _ in uses]
        share = self._given.share(len(uses), self._transcript.least)

        async def serve(use: ToolUse, origin: Origin) -> None:
            async with places:
                answers[use.id] = failed(use, STOPPED)
                answers[use.id] = await self._one(use, origin, share, trace, news)

        if len(uses) > left:
            beyond = f"a turn has at most {self._bounds.calls}"
            news.add(Notice(text=f"{len(uses) - left} calls were not made: {beyond}"))
        try:
            async with asyncio.TaskGroup() as group:
                for number, (use, origin) in enumerate(zip(uses, origins, strict=True)):
                    if number < left:
                        group.create_task(serve(use, origin))
                    else:
                        told = f"Not called: this turn has had its {self._bounds.calls} calls."
                        answers[use.id] = failed(use, told)
        finally:
            for origin in origins:
                self._taint |= origin.taint
            self._transcript.say(
                "user", [answers.get(use.id) or failed(use, NOT_BEGUN) for use in uses]
            )

    async def _one(
        self, use: ToolUse, origin: Origin, share: int, trace: str, news: News
    ) -> ToolResultContent:
        if use.name == SEARCH_TOOLS and self._shelf.is_searched:
            return self._search(use, news)
        if use.name == READ_RESULT:
            return self._given.read_on(use, share, news)
        entry = self._shelf.callable(use.name)
        if entry is None:
            news.add(Notice(text=f"the model wants a tool that it does not have: {use.name}"))
            return failed(use, self._unknown(use.name))
        tool = entry.tool.name
        proposed = read_arguments(use.arguments)
        news.add(ToolProposed(id=use.id, server=entry.server, tool=tool, arguments=proposed or {}))
        try:
            arguments, repairs = entry.read(use.arguments)
        except InvalidArguments as unfit:
            told = self._given.remark(str(unfit))
            news.add(ToolFinished(id=use.id, server=entry.server, tool=tool, error=told))
            return failed(use, told)
        for repair in repairs:
            news.add(Notice(text=f"{entry.server}/{tool}: {repair}"))
        self._shelf.use(entry)
        return await self._call(use, entry, arguments, origin, share, trace, news)

    async def _call(
        self,
        use: ToolUse,
        entry: Entry,
        arguments: dict[str, Any],
        origin: Origin,
        share: int,
        trace: str,
        news: News,
    ) -> ToolResultContent:
        server, tool = entry.server, entry.tool.name
        is_over = False

        def progressed(progress: ProgressParams) -> None:
            # What a server sends late is no news of a call that is over.
            if not is_over:
                news.progress(
                    ToolProgress(
                        id=use.id,
                        server=server,
                        tool=tool,
                        progress=progress.progress,
                        total=progress.total,
                        message=progress.message,
                    )
                )

        def finished(**how: Any) -> None:
            nonlocal is_over
            is_over = True
            news.add(ToolFinished(id=use.id, server=server, tool=tool, **how))

        news.add(ToolStarted(id=use.id, server=server, tool=tool))
        try:
            result = await self._host.call_tool(
                server,
                tool,
                arguments,
                conversation=origin,
                on_progress=progressed,
                trace=f"{trace}.{use.id}",
                raise_on_error=False,
            )
        except asyncio.CancelledError:
            finished(error=STOPPED)
            raise
        except Denied as denied:
            told = refusal_text(denied)
            finished(
                error=told,
                is_refused=True,
                is_withheld=is_withheld(denied),
                code=denied.code,
                rule=f"{denied.rule} ({denied.source})" if denied.source else denied.rule,
            )
            return failed(use, told)
        except DragomanError as error:
            if isinstance(error, RemoteFailure | PeerError) and not isinstance(
                error, InvalidArguments
            ):
                # Its words are the server's.
                origin.taint.add(server)
            told = self._given.remark(failure_text(error))
            finished(error=told)
            return failed(use, told)
        finished(result=result)
        content = self._given.result(server, result, share, news)
        if getattr(result, "was_edited", False):
            # The model must not take the answer for one to what it asked.
            sent = self._given.remark(bytes(getattr(result, "sent", b"")).decode())
            content.insert(0, TextContent(text=f"(The user changed the arguments to {sent}.)"))
        flags = [self._given.remark(flag.text) for flag in getattr(result, "flags", ())]
        more: list[ContentBlock] = [TextContent(text=f"(Beware: {flag}.)") for flag in flags]
        return ToolResultContent(
            tool_use_id=use.id, content=content + more, is_error=result.is_error
        )

    def _unknown(self, name: str) -> str:
        if self._shelf.box.get(name) is not None:
            return f"Not called: find {name!r} with {SEARCH_TOOLS} first, to see what it takes."
        near = self._shelf.box.nearest(name)
        hint = f" Did you mean {near!r}?" if near else ""
        return f"Not called: there is no tool {name!r}.{hint}"

    def _search(self, use: ToolUse, news: News) -> ToolResultContent:
        query = str((read_arguments(use.arguments) or {}).get("query", ""))
        news.add(Notice(text=f"the model looks for tools: {one_line(query, SHOWN_CHARS)}"))
        return succeeded(use, self._shelf.search(query))
