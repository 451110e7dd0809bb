"""A function's signature as a schema, and arguments as a call of that function.

Reading a call is one typed decode of its JSON text, straight into the function's arguments. Only
when that fails are the schema and the value walked side by side, to mend what is JSON text inside
a string and to name every fault at once.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import msgspec

from dragoman.errors import ArgumentFault, InvalidArguments, Misconfigured, MissingExtra
from dragoman.model.faults import (
    Repair,
    closest,
    describe,
    find_faults,
    kinds,
    preview,
    repair,
    unknown_name,
)
from dragoman.model.prompts import PromptArgument
from dragoman.model.tools import CallToolResult
from dragoman.server.annotations import (
    describe_metadata,
    for_msgspec,
    holds_type,
    map_type,
    survey,
)
from dragoman.server.docstrings import Docstring, parse_docstring
from dragoman.server.results import NO_OUTPUT, Output, is_content, to_result
from dragoman.server.schemas import (
    Definitions,
    Schema,
    SchemaWriter,
    default_json,
    from_text,
    inline_root,
)
from dragoman.server.signatures import EMPTY, Parameter, Signature, read_signature

__all__ = [
    "UNFIT",
    "Binding",
    "Call",
    "PromptBinding",
    "ResourceBinding",
    "bind",
    "bind_prompt",
    "bind_resource",
    "engine_for",
]

_NO_ARGUMENTS = msgspec.Raw(b"{}")
_ABSENT = msgspec.Raw(b"")

# What a default may be so that all calls can share it without seeing each other's changes.
_SHAREABLE = (str, int, float, bool, bytes, type(None), frozenset)


UNFIT = (msgspec.DecodeError, ValueError, RecursionError)
"""What `Binding.read` raises for arguments that have to be mended, or explained."""


class Call(msgspec.Struct, frozen=True, gc=False):
    """Arguments ready for the function: one value a parameter, in order, without the context.

    `repairs` tells which arguments came as JSON text in a string; the server logs a warning.
    """

    values: tuple[Any, ...]
    repairs: tuple[Repair, ...] = ()


class Engine(Protocol):
    """What pydantic is asked for; see `with_pydantic.PydanticType`."""

    def schema(self, *, is_output: bool = False) -> Schema: ...
    def read(self, raw: msgspec.Raw | bytes) -> Any: ...
    def read_text(self, text: str) -> Any: ...
    def faults(self, raw: bytes, path: str) -> list[ArgumentFault]: ...
    def dump(self, value: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Fresh:
    """A default that is made for each call."""

    make: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Argument:
    """One parameter as its caller sees it.

    `name` is its name on the wire, `annotation` what msgspec decodes; with an `engine`, pydantic
    validates it instead. `schema` has no default and no `$defs`. `default` is `EMPTY` when
    required.
    """

    name: str
    parameter: Parameter
    annotation: Any
    engine: Engine | None
    schema: Schema
    default: Any
    description: str | None


class _Bound:
    """What bindings of tools, prompts and resources share: the function, and how to call it."""

    def __init__(
        self,
        fn: Callable[..., Any],
        signature: Signature,
        arguments: tuple[Argument, ...],
        definitions: Definitions,
        name: str,
        description: str | None,
    ) -> None:
        self.fn = fn
        self.name = name
        self.description = description
        self.signature = signature
        self.arguments = arguments
        self.definitions = definitions.schemas
        self.context_parameter = signature.context
        self.is_async = signature.is_async
        self.returns = signature.returns
        positional = [a for a in arguments if not a.parameter.is_keyword_only]
        self._positional = len(positional)
        self._keywords = tuple(a.parameter.name for a in arguments if a.parameter.is_keyword_only)
        # The function, where it takes the values as they are and nothing else.
        self.plain = fn if signature.context is None and not self._keywords else None

    def call(self, call: Call, context: Any = None) -> Any:
        """Call the function. A coroutine is returned, not awaited; see `is_async`."""
        return self.invoke(call.values, context)

    def invoke(self, values: tuple[Any, ...], context: Any = None) -> Any:
        """As `call`, with nothing but the values."""
        if self.plain is not None:
            return self.plain(*values)
        at = self.signature.context_at
        if at is not None and not self._keywords:
            return self.fn(*values[:at], context, *values[at:])
        positional = values[: self._positional]
        keywords = dict(zip(self._keywords, values[self._positional :], strict=True))
        if self.context_parameter is not None:
            if at is None:
                keywords[self.context_parameter] = context
            else:
                positional = (*positional[:at], context, *positional[at:])
        return self.fn(*positional, **keywords)


class Binding(_Bound):
    """A tool's function, its schemas, and the way from JSON text to a call.

    `input_schema` is a JSON Schema 2020-12 of type object that allows no unknown members.
    `output_schema` comes from the return annotation; it is None for content and for no
    annotation. `wraps_output` says that the value travels as `{"result": value}`.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        signature: Signature,
        arguments: tuple[Argument, ...],
        definitions: Definitions,
        name: str,
        description: str | None,
    ) -> None:
        super().__init__(fn, signature, arguments, definitions, name, description)
        self.input_schema = _object_schema(arguments, definitions)
        self.output = _output(signature.returns)
        self.output_schema = self.output.schema
        self.wraps_output = self.output.wraps
        self._decode = _decoder(arguments).decode
        # Place, engine and default of each argument that msgspec leaves to pydantic.
        self._engines = tuple(
            (place, argument.engine, argument.default)
            for place, argument in enumerate(arguments)
            if argument.engine is not None
        )
        # What reads JSON text into a record of the values, where that is all it takes.
        self.decode = None if self._engines else self._decode

    def parse(self, raw: bytes | msgspec.Raw | Mapping[str, Any] | None = None) -> Call:
        """Read the arguments of a call: JSON text, or a dict of JSON values, or None for none.

        Raises:
            InvalidArguments: they do not fit; `.faults` has all faults.
        """
        text = _NO_ARGUMENTS if raw is None else raw
        if type(text) is not msgspec.Raw and isinstance(text, Mapping):
            try:
                text = msgspec.json.encode(text)
            except (TypeError, ValueError, RecursionError) as error:
                fault = ArgumentFault("", "JSON values", f"a value that is none ({error})")
                raise self._refusal([fault]) from None
        try:
            return Call(self.read(text))
        except UNFIT as error:
            return self._mend(bytes(text), error)

    def to_result(self, value: Any) -> CallToolResult:
        """The result of a call from what the function returned; see `results.to_result`."""
        return to_result(value, self.output)

    def read(self, text: bytes | msgspec.Raw) -> tuple[Any, ...]:
        """The values of arguments that fit as they are; `parse` looks closer at others.

        Raises:
            msgspec.DecodeError, ValueError, RecursionError: they do not (`UNFIT`).
        """
        values = msgspec.structs.astuple(self._decode(text))
        if not self._engines:
            return values
        changed = list(values)
        for place, engine, default in self._engines:
            part = values[place]
            changed[place] = _copied(default) if part is _ABSENT else engine.read(part)
        return tuple(changed)

    def _mend(self, text: bytes, error: Exception) -> Call:
        """Read what the decoder refused: mended where that is allowed, or else explained."""
        if text.strip() in (b"", b"null"):
            return self.parse(b"{}")
        try:
            value = msgspec.json.decode(text)
        except RecursionError:
            raise self._refusal(
                [ArgumentFault("", "fewer levels of nesting", "too many")]
            ) from None
        except (msgspec.DecodeError, UnicodeError) as wrong:
            fault = ArgumentFault("", "a JSON object", f"text that cannot be read ({wrong})")
            raise self._refusal([fault]) from None
        mended, repairs = repair(self.input_schema, value)
        try:
            return Call(self.read(msgspec.json.encode(mended)), repairs)
        except UNFIT as again:
            error = again
        faults = find_faults(self.input_schema, mended, formats=self._formats(), is_final=False)
        if isinstance(mended, dict):
            faults += self._faults_of_values(mended, {_first_name(one.path) for one in faults})
        if not faults:
            faults = [ArgumentFault("", "arguments that fit", f"some that do not: {error}")]
        raise self._refusal(faults) from None

    def _formats(self) -> Mapping[str, Callable[[str], bool]] | None:
        # pydantic reads more spellings of a date than msgspec does, and judges them itself.
        return None if self._engines else _FORMATS

    def _faults_of_values(self, given: dict[str, Any], blamed: set[str]) -> Iterator[ArgumentFault]:
        """What only the engines know: validators of the user's, and the finer points of formats."""
        for argument in self.arguments:
            if argument.name not in given or argument.name in blamed:
                continue
            raw = msgspec.json.encode(given[argument.name])
            if argument.engine is not None:
                yield from argument.engine.faults(raw, argument.name)
                continue
            try:
                msgspec.json.decode(raw, type=argument.annotation, dec_hook=from_text)
            except (msgspec.DecodeError, ValueError, RecursionError) as error:
                # msgspec tells the place only at the end of its text.
                said, _, place = str(error).partition(" - at `$")
                at = _value_at(given[argument.name], place)
                where = argument.name + place.rstrip("`")
                yield ArgumentFault(where, f"a value that fits ({said})", preview(at))

    def _refusal(self, faults: Sequence[ArgumentFault]) -> InvalidArguments:
        return InvalidArguments(faults, what=f"arguments for {self.name}")


class _TextBound(_Bound):
    """A function whose arguments all arrive as text, or as lists of texts."""

    def parse(self, given: Mapping[str, Any] | None = None) -> Call:
        """Read the arguments. A parameter that is not a `str` is read from the text.

        The text is taken as the parameter's own text form ("2030-01-31", "3", "true") and, where
        that does not fit, as JSON ("[1, 2]").

        Raises:
            InvalidArguments: they do not fit; `.faults` has all faults.
        """
        texts = {} if given is None else given
        values: list[Any] = []
        faults: list[ArgumentFault] = []
        names = [argument.name for argument in self.arguments]
        for name, text in texts.items():
            if name not in names:
                free = [one for one in names if one not in texts]
                faults.append(unknown_name(name[:64], name, preview(text), free, names))
        for argument in self.arguments:
            text = texts.get(argument.name)
            try:
                if text is not None:
                    values.append(_read_text(argument, text))
                elif argument.default is not EMPTY:
                    values.append(_copied(argument.default))
                else:
                    wanted = describe(argument.schema, {"$defs": self.definitions})
                    faults.append(ArgumentFault(argument.name, wanted, "nothing"))
            except ValueError:
                wanted = describe(argument.schema, {"$defs": self.definitions})
                faults.append(ArgumentFault(argument.name, wanted, preview(text)))
        if faults:
            raise InvalidArguments(faults, what=f"arguments for {self.name}")
        return Call(tuple(values))


class PromptBinding(_TextBound):
    """A prompt's function. `prompt_arguments` is how a list of prompts shows its parameters."""

    @functools.cached_property
    def prompt_arguments(self) -> tuple[PromptArgument, ...]:
        """One for each parameter, in order; on the wire each value is a string."""
        return tuple(
            PromptArgument(
                name=argument.name,
                description=self._described(argument),
                required=argument.default is EMPTY,
            )
            for argument in self.arguments
        )

    def _described(self, argument: Argument) -> str | None:
        root = {"$defs": self.definitions}
        if "string" in kinds(argument.schema, root) and "enum" not in argument.schema:
            return argument.description
        form = describe(argument.schema, root)
        return f"{argument.description} ({form})" if argument.description else form


class ResourceBinding(_TextBound):
    """A resource's function. `variables` are the names its URI template fills, in order."""

    variables: tuple[str, ...] = ()


def bind(
    fn: Callable[..., Any],
    *,
    context_type: type,
    name: str | None = None,
    description: str | None = None,
) -> Binding:
    """Bind a tool's function. `context_type` is the class whose parameter is filled by us.

    `name` and `description` replace the function's name and its docstring.

    Raises:
        Misconfigured: the function cannot be a tool; the text says why and what to do.
        MissingExtra: its types need pydantic, which is not installed.
    """
    signature, arguments, definitions, said = _read(fn, context_type)
    return Binding(
        fn, signature, arguments, definitions, _named(signature, name), description or said
    )


def bind_prompt(
    fn: Callable[..., Any],
    *,
    context_type: type,
    name: str | None = None,
    description: str | None = None,
) -> PromptBinding:
    """Bind a prompt's function; as `bind`, but its arguments arrive as text."""
    signature, arguments, definitions, said = _read(fn, context_type)
    return PromptBinding(
        fn, signature, arguments, definitions, _named(signature, name), description or said
    )


def bind_resource(
    fn: Callable[..., Any],
    variables: Sequence[str],
    *,
    context_type: type,
    name: str | None = None,
    description: str | None = None,
) -> ResourceBinding:
    """Bind a resource's function; its parameters are named by the variables of its template.

    Raises:
        Misconfigured: as `bind`, and when the names of parameters and variables differ.
    """
    signature, arguments, definitions, said = _read(fn, context_type)
    bound = ResourceBinding(
        fn, signature, arguments, definitions, _named(signature, name), description or said
    )
    bound.variables = tuple(variables)
    taken = [argument.name for argument in arguments]
    for variable in variables:
        if variable not in taken:
            likely = closest(variable, [one for one in taken if one not in variables])
            remedy = f"rename the parameter {likely!r}" if likely else "add the parameter"
            raise Misconfigured(
                f"the template of {bound.name} has the variable {variable!r}, which is no "
                f"parameter of the function; {remedy}"
            )
    for argument in arguments:
        if argument.name not in variables and argument.default is EMPTY:
            raise Misconfigured(
                f"the parameter {argument.name!r} of {bound.name} is not in its URI template; "
                "put it there, or give it a default"
            )
    return bound


def _named(signature: Signature, name: str | None) -> str:
    found = name or signature.name
    if found == "<lambda>":
        raise Misconfigured("a lambda has no name of its own; pass name=")
    return found


def _read(
    fn: Callable[..., Any], context_type: type
) -> tuple[Signature, tuple[Argument, ...], Definitions, str | None]:
    signature = read_signature(fn, context_type)
    docs = parse_docstring(signature.doc)
    definitions = Definitions()
    writer = SchemaWriter(definitions)
    arguments = tuple(
        _argument(parameter, docs, writer, signature.name) for parameter in signature.parameters
    )
    names = [argument.name for argument in arguments]
    for one in names:
        if names.count(one) > 1:
            raise Misconfigured(f"two parameters of {signature.name} go by the name {one!r}")
    return signature, arguments, definitions, docs.description


# --- one argument -----------------------------------------------------------------------------


def _argument(parameter: Parameter, docs: Docstring, writer: SchemaWriter, owner: str) -> Argument:
    annotation, default, name = parameter.annotation, parameter.default, parameter.name
    said = describe_metadata(annotation)
    if _is_field(default):
        # `days: int = Field(3, ge=1)` says the same as Annotated with a default.
        annotation, default = Annotated[annotation, default], EMPTY
    if default is None and not _takes_none(annotation):
        # `x: int = None` is how many people write an optional parameter.
        annotation = annotation | None
    for one in _metadata(annotation):
        if _is_field(one):
            with_pydantic = _pydantic_engine()
            name = with_pydantic.field_name(one) or name
            if default is EMPTY and not one.is_required():
                made = with_pydantic.field_factory(one)
                default = one.default if made is None else Fresh(made)
    annotation, engine, schema = engine_for(annotation, writer, f"parameter {name!r} of {owner}")
    said = said or schema.get("description") or docs.parameters.get(parameter.name)
    if "description" in schema and "$ref" not in schema and said != schema["description"]:
        schema = {**schema, "description": said}
    return Argument(
        name=name,
        parameter=parameter,
        annotation=for_msgspec(annotation),
        engine=engine,
        schema={key: value for key, value in schema.items() if key != "default"},
        default=default,
        description=said,
    )


def engine_for(
    annotation: Any, writer: SchemaWriter, what: str
) -> tuple[Any, Engine | None, Schema]:
    """Which engine reads a type: msgspec where it can, else pydantic."""
    refused: str | None = None
    if not survey(annotation).needs_pydantic:
        try:
            schema = writer.write(annotation)
            msgspec.json.Decoder(for_msgspec(annotation), dec_hook=from_text)
        except (Misconfigured, TypeError, RecursionError) as error:
            refused = str(error).splitlines()[0]
        else:
            return annotation, None, schema
    if importlib.util.find_spec("pydantic") is None:
        raise MissingExtra("pydantic", f"{what}: {refused}; reading it")
    try:
        engine = _pydantic_engine().PydanticType(annotation)
        schema = writer.definitions.take_in(engine.schema())
    except Misconfigured as error:
        raise Misconfigured(f"{what}: {refused or error}") from None
    return annotation, engine, schema


def _pydantic_engine() -> Any:
    from dragoman.server import with_pydantic

    return with_pydantic


def _metadata(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) is Annotated:
        return tuple(annotation.__metadata__)
    return ()


def _is_field(value: Any) -> bool:
    return type(value).__module__ == "pydantic.fields" and type(value).__name__ == "FieldInfo"


def _takes_none(annotation: Any) -> bool:
    if annotation is Any or annotation is object or annotation is None:
        return True
    return holds_none(annotation)


def holds_none(annotation: Any) -> bool:
    """Whether None is one of the values of an annotation, as far as its outer layers say."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return holds_none(typing.get_args(annotation)[0])
    if origin is typing.Literal:
        return None in typing.get_args(annotation)
    if annotation is type(None):
        return True
    return any(holds_none(one) for one in typing.get_args(annotation)) and "Union" in str(origin)


def _object_schema(arguments: Sequence[Argument], definitions: Definitions) -> Schema:
    properties: dict[str, Schema] = {}
    required: list[str] = []
    for argument in arguments:
        schema = dict(argument.schema)
        if argument.description and "description" not in schema:
            schema["description"] = argument.description
        if argument.default is EMPTY:
            required.append(argument.name)
        else:
            schema |= _shown_default(argument)
        properties[argument.name] = schema
    whole: Schema = {"type": "object", "properties": properties}
    if required:
        whole["required"] = required
    whole["additionalProperties"] = False
    return inline_root(whole, definitions.schemas)


def _shown_default(argument: Argument) -> Schema:
    if isinstance(argument.default, Fresh):
        return {}
    if argument.engine is None:
        return default_json(argument.default)
    try:
        return default_json(argument.engine.dump(argument.default))
    except ValueError:
        # A default that is not of its own type, such as a sentinel, is nobody's business.
        return {}


def _decoder(arguments: Sequence[Argument]) -> msgspec.json.Decoder[Any]:
    """A decoder into one record, whose fields are the arguments in order."""
    fields: list[Any] = []
    names: dict[str, str] = {}
    for place, argument in enumerate(arguments):
        # Names of our own, since a parameter may be called what a record's member cannot be.
        own = f"a{place}"
        names[own] = argument.name
        if argument.engine is None:
            fields.append((own, argument.annotation, *_field_default(argument.default)))
        elif argument.default is EMPTY:
            fields.append((own, msgspec.Raw))
        else:
            fields.append((own, msgspec.Raw, _ABSENT))
    record = msgspec.defstruct(
        "Arguments",
        fields,
        rename=names,
        kw_only=True,
        forbid_unknown_fields=True,
        gc=False,
    )
    return msgspec.json.Decoder(record, dec_hook=from_text)


def _field_default(default: Any) -> tuple[Any, ...]:
    if default is EMPTY:
        return ()
    if isinstance(default, _SHAREABLE):
        return (default,)
    return (msgspec.field(default_factory=lambda: _copied(default)),)


def _copied(default: Any) -> Any:
    """A default for one call: lists, dicts and sets anew, so that calls cannot see each other."""
    if isinstance(default, Fresh):
        return default.make()
    return default.copy() if isinstance(default, (list, dict, set)) else default


# --- text -------------------------------------------------------------------------------------


def _read_text(argument: Argument, text: Any) -> Any:
    """Read one argument that came as text, or as a list of texts.

    Raises:
        ValueError: the text stands for no such value.
    """
    if argument.engine is not None:
        return _read_text_by_engine(argument.engine, text)
    # In this order, so that what can be text stays text: "3" for `str | int` is the text.
    for strict in (True, False):
        try:
            return msgspec.convert(text, argument.annotation, strict=strict, dec_hook=from_text)
        except msgspec.ValidationError:
            continue
    if not isinstance(text, str):
        raise ValueError("a list where one value is expected")
    return msgspec.json.decode(text.encode(), type=argument.annotation, dec_hook=from_text)


def _read_text_by_engine(engine: Engine, text: Any) -> Any:
    try:
        return engine.read(msgspec.json.encode(text))
    except ValueError:
        pass
    if not isinstance(text, str):
        raise ValueError("a list where one value is expected")
    try:
        return engine.read_text(text)
    except ValueError:
        return engine.read(text.encode())


# --- what comes back --------------------------------------------------------------------------


def _output(returns: Any) -> Output:
    """What a return annotation promises; nothing for content, for Any and for no annotation."""
    if returns in (EMPTY, None, type(None), Any, object) or holds_type(returns, is_content):
        return NO_OUTPUT
    definitions = Definitions()
    dump: Callable[[Any], Any] | None = None
    try:
        _, engine, schema = engine_for(
            returns, SchemaWriter(definitions, is_output=True), "the return annotation"
        )
        if engine is not None:
            definitions = Definitions()
            schema = definitions.take_in(engine.schema(is_output=True))
            dump = engine.dump
    except Misconfigured:
        # A type without a JSON form promises nothing; what the call returns is then judged.
        return NO_OUTPUT
    whole = inline_root(schema, definitions.schemas)
    annotation = map_type(for_msgspec(returns), lambda one: one)
    if whole.get("type") == "object":
        return Output(whole, annotation=annotation, dump=dump)
    inner = {key: value for key, value in whole.items() if key != "$defs"}
    wrapped: Schema = {"type": "object", "properties": {"result": inner}, "required": ["result"]}
    if "$defs" in whole:
        wrapped["$defs"] = whole["$defs"]
    return Output(wrapped, wraps=True, annotation=annotation, dump=dump)


# --- formats ----------------------------------------------------------------------------------


def _value_at(value: Any, place: str) -> Any:
    """The part of a value that a place like ".lat[2]" names, or as far as it can be followed."""
    for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", place):
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and index and int(index) < len(value):
            value = value[int(index)]
    return value


def _first_name(path: str) -> str:
    return path.replace("[", ".").split(".")[0]


def _reads_as(wanted: type) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            msgspec.convert(text, wanted)
        except msgspec.ValidationError:
            return False
        return True

    return check


def _make_formats() -> dict[str, Callable[[str], bool]]:
    import datetime
    import uuid

    return {
        "date-time": _reads_as(datetime.datetime),
        "date": _reads_as(datetime.date),
        "time": _reads_as(datetime.time),
        "duration": _reads_as(datetime.timedelta),
        "uuid": _reads_as(uuid.UUID),
        "base64": _reads_as(bytes),
    }


_FORMATS = _make_formats()
