"""What could be typed next in a chat: commands, prompts with their arguments, and resources.

Servers are asked rarely: after a pause in typing, once for the same words, and each answer is kept.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

from dragoman.cli.printable import one_line
from dragoman.errors import DragomanError
from dragoman.host.references import begun, bracketed, quoted
from dragoman.model.completion import (
    Completion,
    PromptReference,
    ResourceTemplateReference,
)
from dragoman.model.prompts import Prompt
from dragoman.model.resources import Resource, ResourceTemplate

__all__ = ["Source", "Suggestion", "Suggestions"]

T = TypeVar("T")

# 0.15 s: a pause in typing; a fast typist's keys are closer together.
PAUSE_S = 0.15
# 30 s: as long as a person thinks about one line. What a server offers may change meanwhile.
KEEP_S = 30.0
MAX_KEPT = 256
# 2 s: who types does not wait longer.
PATIENCE_S = 2.0
MAX_SHOWN = 100

COMMANDS = {
    "/servers": "the servers and how they are",
    "/tools": "the tools that the model may use",
    "/usage": "what the conversation cost",
    "/clear": "forget what was said",
    "/help": "what can be typed here",
    "/quit": "leave",
}


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One thing that could be typed: `text` in the place of the last `length` characters."""

    text: str
    length: int
    about: str = ""


class Source(Protocol):
    """What a host knows; `dragoman.host.Host` is one."""

    async def list_prompts(self, *, wait_s: float = ...) -> Sequence[tuple[str, Prompt]]: ...

    async def list_resources(self, server: str) -> Sequence[Resource]: ...

    async def list_resource_templates(
        self, *, wait_s: float = ...
    ) -> Sequence[tuple[str, ResourceTemplate]]: ...

    async def complete(
        self,
        server: str,
        ref: PromptReference | ResourceTemplateReference | str,
        argument: str,
        value: str = "",
        *,
        context: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        is_own_act: bool = False,
    ) -> Completion: ...


_MENTION = re.compile(r"(?:^|[\s(\[{\"'«„“])@(?:([\w.-]*)|([\w.-]+):(<[^>\n]*|[^\s<]\S*|))$")
_COMMAND = re.compile(r"/[\w.-]*(?::(?:<[^>\n]*|\S*))?")
_PROMPT = re.compile(r"/([\w.-]+):(?:<([^>\n]+)>|(\S+))\s+(.*)$", re.DOTALL)


class Suggestions:
    """Suggestions for what stands before the cursor."""

    def __init__(self, source: Source, servers: Callable[[], Sequence[str]]) -> None:
        self._source = source
        self._servers = servers
        self._kept: dict[Hashable, tuple[float, object]] = {}
        self._under_way: dict[Hashable, asyncio.Task[object]] = {}
        self._latest = 0

    async def for_text(self, text: str) -> list[Suggestion]:
        """What could follow. Empty, too, when something newer was asked for meanwhile."""
        self._latest += 1
        mine = self._latest
        try:
            async with asyncio.timeout(PAUSE_S + PATIENCE_S):
                found = await self._found(text, mine)
        except (TimeoutError, DragomanError):
            # A suggestion is no reason to say anything.
            return []
        return found[:MAX_SHOWN] if mine == self._latest else []

    async def aclose(self) -> None:
        """Give up what is still being asked."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _found(self, text: str, mine: int) -> list[Suggestion]:
        if _COMMAND.fullmatch(text):
            commands = [
                Suggestion(name, len(text), about)
                for name, about in COMMANDS.items()
                if name.startswith(text)
            ]
            prompts = await self._kept_or("prompts", self._prompts)
            return commands + [
                Suggestion(name, len(text), one_line(prompt.description or prompt.title or "", 60))
                for name, prompt in prompts.items()
                if name.startswith(text) and one_line(name) == name
            ]
        if text.startswith("/") and (found := _PROMPT.fullmatch(text)):
            name = found.group(2) or found.group(3)
            return await self._arguments(found.group(1), name, found.group(4), mine)
        if mention := _MENTION.search(text):
            return await self._resources(mention, mine)
        return []

    async def _prompts(self) -> dict[str, Prompt]:
        listed = await self._source.list_prompts(wait_s=0)
        return {f"/{server}:{bracketed(prompt.name)}": prompt for server, prompt in listed}

    async def _arguments(self, server: str, name: str, rest: str, mine: int) -> list[Suggestion]:
        prompts = await self._kept_or("prompts", self._prompts)
        prompt = prompts.get(f"/{server}:{bracketed(name)}")
        if prompt is None:
            return []
        names = [one.name for one in prompt.arguments or ()]
        settled, word = begun(rest)
        argument, equals, value = word.partition("=")
        if not equals:
            about = {one.name: one.description or "" for one in prompt.arguments or ()}
            return [
                Suggestion(f"{one}=", len(word), one_line(about[one], 60))
                for one in names
                if one.startswith(word) and one not in settled
            ]
        if argument not in names:
            return []
        values = await self._completed(
            mine, server, PromptReference(name=name), argument, value.strip("\"'"), settled
        )
        return [Suggestion(f"{argument}={quoted(one)}", len(word), "") for one in values]

    async def _resources(self, mention: re.Match[str], mine: int) -> list[Suggestion]:
        server, uri = mention.group(2), mention.group(3)
        if server is None:
            typed = mention.group(1)
            return [
                Suggestion(f"@{one}:", len(typed) + 1, "")
                for one in self._servers()
                if one.startswith(typed)
            ]
        if server not in self._servers():
            return []
        if not await self._paused(mine):
            return []
        resources = await self._kept_or(
            ("resources", server), lambda: self._source.list_resources(server)
        )
        length, uri = len(uri), uri.removeprefix("<")
        found = [
            Suggestion(bracketed(one.uri), length, one_line(one.title or one.name, 60))
            for one in resources
            if one.uri.startswith(uri) and one_line(one.uri) == one.uri
        ]
        if length > len(uri):
            # A template's address holds no blanks, and needs no bracket.
            return found
        templates = await self._kept_or(
            "templates", lambda: self._source.list_resource_templates(wait_s=0)
        )
        for owner, template in templates:
            if owner == server:
                found += await self._filled(template, server, uri, mine)
        return found

    async def _filled(
        self, template: ResourceTemplate, server: str, uri: str, mine: int
    ) -> list[Suggestion]:
        """URIs from a template: up to its first variable, and with that one completed."""
        head, brace, rest = template.uri_template.partition("{")
        name, _, tail = rest.partition("}")
        if not brace or not name.isidentifier():
            return []
        if len(uri) < len(head) or not uri.startswith(head):
            shown = one_line(template.uri_template)
            is_near = head.startswith(uri) and head != uri
            return [Suggestion(head, len(uri), shown)] if is_near else []
        value = uri[len(head) :]
        reference = ResourceTemplateReference(uri=template.uri_template)
        values = await self._completed(mine, server, reference, name, value, {})
        whole = tail if "{" not in tail else ""
        return [Suggestion(f"{head}{one}{whole}", len(uri), "") for one in values if " " not in one]

    async def _completed(
        self,
        mine: int,
        server: str,
        ref: PromptReference | ResourceTemplateReference,
        argument: str,
        value: str,
        settled: Mapping[str, str],
    ) -> list[str]:
        key = (server, ref, argument, value, tuple(sorted(settled.items())))
        if key not in self._kept and not await self._paused(mine):
            return []
        completion = await self._kept_or(
            key,
            lambda: self._source.complete(
                server,
                ref,
                argument,
                value,
                context=settled or None,
                timeout_s=PATIENCE_S,
                is_own_act=True,
            ),
        )
        # What would do something to the line, or hide in it, is not offered.
        return [one for one in completion.values if one and one_line(one) == one]

    async def _paused(self, mine: int) -> bool:
        """Wait for a pause in typing; False when more was typed."""
        await asyncio.sleep(PAUSE_S)
        return mine == self._latest

    async def _kept_or(self, key: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        """What is known, or the answer; who asks the same at the same time gets the same."""
        now = asyncio.get_running_loop().time()
        kept = self._kept.get(key)
        if kept is not None and kept[0] > now:
            return cast(T, kept[1])
        task = self._under_way.get(key)
        if task is None:

            async def asked() -> object:
                try:
                    answer = await ask()
                    if len(self._kept) >= MAX_KEPT:
                        self._kept.pop(next(iter(self._kept)))
                    if answer:
                        # None yet may be some in a moment: the server is still coming up.
                        self._kept[key] = (asyncio.get_running_loop().time() + KEEP_S, answer)
                    return answer
                finally:
                    del self._under_way[key]

            task = self._under_way[key] = asyncio.create_task(asked())
            # Nobody may be left to hear of its failure.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return cast(T, await asyncio.shield(task))
