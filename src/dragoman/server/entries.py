"""What the registries hold: a definition and the function behind it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from msgspec.structs import astuple

from dragoman.errors import (
    Misconfigured,
    ResourceNotFound,
)
from dragoman.model.completion import Completion
from dragoman.model.content import ContentBlock, ResourceContents
from dragoman.model.faults import Repair
from dragoman.model.prompts import GetPromptResult, Prompt, PromptMessage
from dragoman.model.resources import ReadResourceResult, Resource, ResourceTemplate
from dragoman.model.tools import CallToolResult, Tool
from dragoman.model.uri_template import TraversalRefused, UriTemplate
from dragoman.server.binding import UNFIT, Binding, Call, PromptBinding, ResourceBinding
from dragoman.server.context import Context
from dragoman.server.results import as_blocks, checked_block, to_data, to_result
from dragoman.server.scalars import SCALARS

__all__ = [
    "Completer",
    "PromptEntry",
    "RawToolEntry",
    "ResourceEntry",
    "Run",
    "TemplateEntry",
    "ToolEntry",
    "ToolLike",
]

Run = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Calls a function that may block, in a thread of the server's pool."""


class _Function:
    """A bound function and whether it needs a thread."""

    __slots__ = ("binding", "in_thread", "run", "wants_context")

    binding: Binding | PromptBinding | ResourceBinding

    def __init__(
        self, binding: Binding | PromptBinding | ResourceBinding, in_thread: bool | None, run: Run
    ) -> None:
        self.binding = binding
        self.in_thread = (not binding.is_async) if in_thread is None else in_thread
        self.run = run
        self.wants_context = binding.context_parameter is not None

    async def __call__(self, call: Call, context: Context | None) -> Any:
        if self.in_thread:
            value = await self.run(lambda: self.binding.call(call, context))
        else:
            value = self.binding.call(call, context)
        if inspect.isawaitable(value):
            value = await value
        return value


class ToolLike(Protocol):
    """A tool, however it is made."""

    definition: Tool

    @property
    def key(self) -> str: ...

    @property
    def wants_context(self) -> bool: ...

    async def call(self, raw: msgspec.Raw, context: Context | None) -> CallToolResult: ...


class ToolEntry:
    """A tool made from a function; `is_direct` when that is a coroutine function.

    `scalar` is the class of what it returns, if it promises that and no more, and a result that
    holds it has nothing else to fit.
    """

    __slots__ = (
        "_binding",
        "_fn",
        "_output",
        "definition",
        "is_direct",
        "key",
        "scalar",
        "wants_context",
        "warn",
    )

    def __init__(
        self,
        definition: Tool,
        binding: Binding,
        in_thread: bool | None,
        run: Run,
        warn: Callable[[str, Sequence[Repair]], None],
        *,
        is_checked: bool = False,
    ) -> None:
        self.definition = definition
        self.key = definition.name
        self._binding = binding
        self._fn = _Function(binding, in_thread, run)
        self.is_direct = binding.is_async and not self._fn.in_thread
        self.wants_context = self._fn.wants_context
        self.warn = warn
        # A schema of the author's own says more than the return annotation that was checked.
        self._output = _OutputCheck(definition) if is_checked else None
        promised = binding.output.annotation
        self.scalar: type | None = promised if binding.wraps_output and not is_checked else None
        if self.scalar not in SCALARS:
            self.scalar = None

    async def call(self, raw: msgspec.Raw, context: Context | None) -> CallToolResult:
        """Call the function.

        Raises:
            InvalidArguments: the arguments do not fit; every fault at once.
            ToolError: the tool says why it failed.
        """
        if self.is_direct:
            return self.result(await self.begin(raw, context))
        return self.result(await self._fn(self._read(raw), context))

    def begin(self, raw: msgspec.Raw, context: Context | None) -> Awaitable[Any]:
        """What a direct one is to be awaited for, and then handed to `result`; the two are `call`
        without a coroutine of its own. Raises InvalidArguments."""
        binding = self._binding
        decode, fn = binding.decode, binding.plain
        try:
            values = binding.read(raw) if decode is None else astuple(decode(raw))
        except UNFIT:
            values = self._read(raw).values
        awaited: Awaitable[Any] = fn(*values) if fn else binding.invoke(values, context)
        return awaited

    def _read(self, raw: msgspec.Raw) -> Call:
        call = self._binding.parse(raw)
        if call.repairs:
            self.warn(self.key, call.repairs)
        return call

    def result(self, value: Any) -> CallToolResult:
        """The result, from what the function returned."""
        result = self._binding.to_result(value)
        if self._output is not None or value is result:
            return self._checked(result)
        return result

    def _checked(self, result: CallToolResult) -> CallToolResult:
        """A result that the function made itself, or that has a schema of its own to fit."""
        result = _with_checked_blocks(result)
        if self._output is None:
            if self.definition.output_schema is None:
                return result
            self._output = _OutputCheck(self.definition)
        return self._output(result)


def _with_checked_blocks(result: CallToolResult) -> CallToolResult:
    content = [checked_block(block) for block in result.content]
    if all(new is old for new, old in zip(content, result.content, strict=True)):
        return result
    return msgspec.structs.replace(result, content=content)


class _OutputCheck:
    """Holds results against the output schema of their tool.

    Spec: server/tools#output-schema
    """

    __slots__ = ("_check", "_name")

    def __init__(self, definition: Tool) -> None:
        from dragoman.model.schema_check import SchemaCheck

        self._name = definition.name
        self._check = SchemaCheck(definition.output_schema)

    def __call__(self, result: CallToolResult) -> CallToolResult:
        """The result, when it fits or says that the tool failed. Misconfigured when not."""
        if result.is_error:
            return result
        if result.structured_content is None:
            raise Misconfigured(f"{self._name} has an output schema, but returned no such data")
        faults = self._check.faults(result.structured_content)
        if faults:
            said = "; ".join(str(fault) for fault in faults)
            raise Misconfigured(f"{self._name} returned what its output schema forbids: {said}")
        return result


class RawToolEntry:
    """A tool with a hand-written schema: its function takes the arguments as one dict."""

    __slots__ = (
        "_check",
        "_fn",
        "_output",
        "_run",
        "_takes_context",
        "_warn",
        "definition",
        "key",
        "wants_context",
    )

    def __init__(
        self,
        definition: Tool,
        fn: Callable[..., Any],
        in_thread: bool | None,
        run: Run,
        warn: Callable[[str, Sequence[Repair]], None],
    ) -> None:
        from dragoman.model.schema_check import SchemaCheck

        self.definition = definition
        self.key = definition.name
        self._warn = warn
        self._output = None if definition.output_schema is None else _OutputCheck(definition)
        self._check = SchemaCheck(definition.input_schema)
        self._fn = fn
        is_async = inspect.iscoroutinefunction(fn)
        self._run = run if (not is_async if in_thread is None else in_thread) else None
        self._takes_context = len(inspect.signature(fn).parameters) > 1
        self.wants_context = self._takes_context

    async def call(self, raw: msgspec.Raw, context: Context | None) -> CallToolResult:
        """Check the arguments against the schema and call the function."""
        arguments, repairs = self._check.parse(raw, name=self.key)
        if repairs:
            self._warn(self.key, repairs)
        given = (arguments, context) if self._takes_context else (arguments,)
        if self._run is not None:
            value = await self._run(lambda: self._fn(*given))
        else:
            value = self._fn(*given)
        if inspect.isawaitable(value):
            value = await value
        result = to_result(value)
        if value is result:
            result = _with_checked_blocks(result)
        return result if self._output is None else self._output(result)


# --- resources ----------------------------------------------------------------------------------


def _contents(value: Any, uri: str, mime_type: str | None) -> list[ResourceContents]:
    match value:
        case ResourceContents():
            return [value]
        case str():
            return [ResourceContents(uri=uri, text=value, mime_type=mime_type or "text/plain")]
        case bytes() | bytearray() | memoryview():
            kind = mime_type or "application/octet-stream"
            return [ResourceContents.of(uri, bytes(value), kind)]
        case list() | tuple() if value and all(isinstance(v, ResourceContents) for v in value):
            return list(value)
    text = msgspec.json.encode(to_data(value)).decode()
    return [ResourceContents(uri=uri, text=text, mime_type=mime_type or "application/json")]


class ResourceEntry:
    """A resource with a fixed URI: a function, or contents that never change."""

    __slots__ = ("_fixed", "_fn", "definition", "key")

    def __init__(
        self,
        definition: Resource,
        fn: _Function | None,
        fixed: str | bytes | None = None,
    ) -> None:
        self.definition = definition
        self.key = definition.uri
        self._fn = fn
        self._fixed = fixed

    @classmethod
    def of(
        cls, definition: Resource, binding: ResourceBinding, in_thread: bool | None, run: Run
    ) -> ResourceEntry:
        """From a bound function."""
        return cls(definition, _Function(binding, in_thread, run))

    async def read(self, context: Context) -> ReadResourceResult:
        """The contents now."""
        value: Any = self._fixed
        if self._fn is not None:
            binding = self._fn.binding
            assert isinstance(binding, ResourceBinding)
            value = await self._fn(binding.parse(), context)
        if isinstance(value, ReadResourceResult):
            return value
        return ReadResourceResult(contents=_contents(value, self.key, self.definition.mime_type))


class TemplateEntry:
    """A family of resources: a URI template and a function of its variables."""

    __slots__ = ("_binding", "_fn", "definition", "key", "template")

    def __init__(
        self,
        definition: ResourceTemplate,
        template: UriTemplate,
        binding: ResourceBinding,
        in_thread: bool | None,
        run: Run,
    ) -> None:
        self.definition = definition
        self.key = definition.uri_template
        self.template = template
        self._binding = binding
        self._fn = _Function(binding, in_thread, run)

    def choices(self, variable: str) -> Sequence[str] | None:
        """The values of a variable that is a choice (an Enum or a Literal)."""
        return _choices(self._binding, variable)

    def match(self, uri: str) -> Mapping[str, Any] | None:
        """The variables in a URI, or None when it is not of this family.

        Raises:
            ResourceNotFound: the URI tries to leave the family, by `..` for example.
        """
        try:
            return self.template.match(uri)
        except TraversalRefused as refused:
            raise ResourceNotFound(uri, str(refused)) from None

    async def read(
        self, uri: str, variables: Mapping[str, Any], context: Context
    ) -> ReadResourceResult:
        """The contents of one member of the family."""
        value = await self._fn(self._binding.parse(variables), context)
        if isinstance(value, ReadResourceResult):
            return value
        return ReadResourceResult(contents=_contents(value, uri, self.definition.mime_type))


# --- prompts ------------------------------------------------------------------------------------


class PromptEntry:
    """A prompt made from a function."""

    __slots__ = ("_binding", "_fn", "definition", "key")

    def __init__(
        self, definition: Prompt, binding: PromptBinding, in_thread: bool | None, run: Run
    ) -> None:
        self.definition = definition
        self.key = definition.name
        self._binding = binding
        self._fn = _Function(binding, in_thread, run)

    async def get(self, arguments: Mapping[str, str] | None, context: Context) -> GetPromptResult:
        """The prompt, filled. Raises InvalidArguments for arguments that do not fit."""
        value = await self._fn(self._binding.parse(arguments), context)
        if isinstance(value, GetPromptResult):
            return msgspec.structs.replace(value, messages=_prompt_messages(value.messages))
        return GetPromptResult(
            description=self.definition.description, messages=_prompt_messages(value)
        )

    def choices(self, argument: str) -> Sequence[str] | None:
        """The values of an argument that is a choice (an Enum or a Literal)."""
        return _choices(self._binding, argument)


def _choices(binding: PromptBinding | ResourceBinding, argument: str) -> Sequence[str] | None:
    for one in binding.arguments:
        if one.name == argument:
            return choices_in(one.schema, binding.definitions)
    return None


def choices_in(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[str] | None:
    """The texts a schema allows, when it allows only some."""
    if "$ref" in schema:
        return choices_in(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
    values = schema.get("enum")
    if values is None:
        return None
    return [value if isinstance(value, str) else str(value) for value in values]


def _prompt_messages(value: Any) -> list[PromptMessage]:
    values = value if isinstance(value, list | tuple) else [value]
    return [message for one in values for message in _prompt_message(one)]


def _prompt_message(value: Any) -> list[PromptMessage]:
    match value:
        case PromptMessage(role=role, content=content):
            pass
        case {"role": "user" | "assistant" as role, "content": content}:
            pass
        case None:
            return []
        case _:
            role, content = "user", value
    return [PromptMessage(role=role, content=block) for block in _message_blocks(content)]


def _message_blocks(content: Any) -> list[ContentBlock]:
    """What a message says; unlike a tool's result, a dict here is a block in the wire's words."""
    match content:
        case {"type": "text" | "image" | "audio" | "resource" | "resource_link"}:
            try:
                return [checked_block(msgspec.convert(content, ContentBlock))]
            except msgspec.ValidationError as fault:
                raise Misconfigured(f"a prompt's message holds no content block: {fault}") from None
        case list() | tuple():
            return [block for one in content for block in _message_blocks(one)]
    return as_blocks(content)


# --- completion ---------------------------------------------------------------------------------


class Completer:
    """A function that suggests values; it takes any of `argument`, `value` and `context`."""

    __slots__ = ("_fn", "_names", "_run")

    def __init__(self, fn: Callable[..., Any], run: Run) -> None:
        names = list(inspect.signature(fn).parameters)
        unknown = set(names) - {"argument", "value", "context"}
        if unknown:
            raise Misconfigured(
                "a completion takes any of the parameters argument, value and context, "
                f"not {', '.join(sorted(unknown))}"
            )
        self._fn = fn
        self._names = names
        self._run = None if inspect.iscoroutinefunction(fn) else run

    async def __call__(
        self, argument: str, value: str, context: Mapping[str, str]
    ) -> Sequence[str] | Completion | None:
        """The suggestions."""
        given = {"argument": argument, "value": value, "context": context}
        chosen = {name: given[name] for name in self._names}
        if self._run is not None:
            found = await self._run(lambda: self._fn(**chosen))
        else:
            found = self._fn(**chosen)
        if inspect.isawaitable(found):
            found = await found
        return found  # type: ignore[no-any-return]
