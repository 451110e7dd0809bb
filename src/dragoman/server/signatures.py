"""What a Python callable takes: its parameters with their annotations resolved.

Functions, bound methods, callable objects, `functools.partial` and decorated functions are read.
Annotations may be strings (`from __future__ import annotations`), and may name classes that are
local to the function in which the callable is being defined.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType
from typing import Any

from dragoman.errors import Misconfigured

__all__ = ["EMPTY", "Parameter", "Signature", "read_signature"]

EMPTY: Any = inspect.Parameter.empty
"""Stands for "no annotation" and "no default"."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter that a caller fills.

    `annotation` is resolved, `Any` where there is none. `default` is `EMPTY` when required.
    """

    name: str
    annotation: Any
    default: Any
    is_keyword_only: bool


@dataclass(frozen=True, slots=True)
class Signature:
    """A callable's parameters, in order, without the one that receives the context.

    `context` names that parameter; `context_at` is its place among the positional parameters, or
    None when it is passed by keyword. `returns` is `EMPTY` when not annotated.
    """

    name: str
    parameters: tuple[Parameter, ...]
    returns: Any
    context: str | None
    context_at: int | None
    is_async: bool
    doc: str | None


def read_signature(fn: Callable[..., Any], context_type: type) -> Signature:
    """Read a callable; a parameter annotated with `context_type` (or `| None`) is set apart.

    Raises:
        Misconfigured: it cannot be called by name: `*args`, `**kwargs`, an unbound method, a
            generator; or an annotation cannot be resolved. The text says what to do.
    """
    if isinstance(fn, classmethod):
        raise Misconfigured(
            f"{_name(fn.__func__)} is a classmethod that no class has bound yet; register it "
            "after the class, as Class.method"
        )
    if isinstance(fn, staticmethod):
        fn = fn.__func__
    if isinstance(fn, type) or not callable(fn):
        raise Misconfigured(f"{fn!r} is no function; a function, method or callable is needed")
    name = _name(fn)
    target = _plain_function(fn)
    if inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
        raise Misconfigured(f"{name} is a generator; return a list, or report progress instead")
    try:
        signature = inspect.signature(fn)
    except (ValueError, TypeError) as error:
        raise Misconfigured(f"the signature of {name} cannot be read: {error}") from None
    resolve = _Resolver(target, name)
    bound = _keywords_bound_by_partial(fn)
    found: list[Parameter] = []
    context: str | None = None
    context_at: int | None = None
    for index, raw in enumerate(signature.parameters.values()):
        if raw.kind in (raw.VAR_POSITIONAL, raw.VAR_KEYWORD):
            stars = "*" if raw.kind is raw.VAR_POSITIONAL else "**"
            raise Misconfigured(
                f"{name} takes {stars}{raw.name}, whose names no schema can tell; "
                "give each parameter a name, or take one dict"
            )
        # What a partial has fixed (a connection, a key) is the author's, not the caller's.
        if raw.name in bound:
            continue
        if index == 0 and raw.name in ("self", "cls") and raw.annotation is EMPTY:
            raise Misconfigured(
                f"{name} is a method that is not bound to an object; register it as "
                f"object.{name}, after the object is made"
            )
        by_keyword = raw.kind is raw.KEYWORD_ONLY
        annotation = resolve(raw.name, raw.annotation, context_type)
        if _means_context(annotation, context_type):
            if context is not None:
                raise Misconfigured(f"{name} takes the context twice: {context} and {raw.name}")
            context, context_at = raw.name, None if by_keyword else index
            continue
        found.append(
            Parameter(
                name=raw.name,
                annotation=Any if annotation is EMPTY else annotation,
                default=raw.default,
                is_keyword_only=by_keyword,
            )
        )
    return Signature(
        name=name,
        parameters=tuple(found),
        returns=resolve("return", signature.return_annotation, context_type),
        context=context,
        context_at=context_at,
        is_async=_is_async(fn),
        doc=_doc(fn, target),
    )


def _name(fn: Any) -> str:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return getattr(fn, "__name__", None) or type(fn).__name__


def _doc(fn: Any, target: Any) -> str | None:
    # A partial's own docstring is that of the class `partial`.
    if isinstance(fn, functools.partial):
        return inspect.getdoc(target)
    if inspect.isroutine(fn):
        return inspect.getdoc(fn)
    return inspect.getdoc(target) or inspect.getdoc(fn)


def _plain_function(fn: Any) -> Any:
    """The function whose code runs in the end: the one with globals and annotations."""
    while True:
        if isinstance(fn, functools.partial):
            fn = fn.func
        elif inspect.ismethod(fn):
            fn = fn.__func__
        elif hasattr(fn, "__wrapped__"):
            fn = fn.__wrapped__
        elif not inspect.isroutine(fn):
            fn = type(fn).__call__
        else:
            return fn


def _is_async(fn: Any) -> bool:
    while isinstance(fn, functools.partial):
        fn = fn.func
    if inspect.iscoroutinefunction(fn):
        return True
    return not inspect.isroutine(fn) and inspect.iscoroutinefunction(type(fn).__call__)


def _keywords_bound_by_partial(fn: Any) -> frozenset[str]:
    names: set[str] = set()
    while isinstance(fn, functools.partial):
        names.update(fn.keywords)
        fn = fn.func
    return frozenset(names)


class _Resolver:
    """Turns an annotation, which may be a string or hold strings, into a type."""

    def __init__(self, target: Any, name: str) -> None:
        self.globals: dict[str, Any] = getattr(target, "__globals__", {})
        self.code: CodeType | None = getattr(target, "__code__", None)
        self.name = name
        self.locals: dict[str, Any] | None = None

    def __call__(self, parameter: str, annotation: Any, context_type: type) -> Any:
        is_class = isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias)
        if annotation is EMPTY or is_class:
            return annotation
        try:
            return self.evaluate(annotation, {})
        except NameError:
            pass
        except (TypeError, SyntaxError) as error:
            raise self.failed(parameter, annotation, str(error)) from None
        # The class may live in a function that is still running: the one that defines the target.
        if self.locals is None:
            self.locals = dict(self.enclosing_locals())
        try:
            return self.evaluate(annotation, self.locals)
        except NameError as error:
            # Imported for the type checker only; the name alone says enough.
            if isinstance(annotation, str) and _names_context(annotation, context_type):
                return context_type
            raise self.failed(parameter, annotation, str(error)) from None
        except (TypeError, SyntaxError) as error:
            raise self.failed(parameter, annotation, str(error)) from None

    def evaluate(self, annotation: Any, local_names: dict[str, Any]) -> Any:
        # One parameter at a time, so that a name that is missing can be blamed on its parameter.
        holder = types.SimpleNamespace(__annotations__={"it": annotation})
        return typing.get_type_hints(holder, self.globals, local_names, include_extras=True)["it"]

    def enclosing_locals(self) -> Iterator[tuple[str, Any]]:
        frame = sys._getframe()
        while self.code is not None and frame is not None:
            if _defines(frame.f_code, self.code):
                yield from frame.f_locals.items()
            frame = frame.f_back  # type: ignore[assignment]

    def failed(self, parameter: str, annotation: Any, why: str) -> Misconfigured:
        what = "the return annotation" if parameter == "return" else f"parameter {parameter!r}"
        return Misconfigured(
            f"{what} of {self.name} has the annotation {annotation!r}, which cannot be resolved: "
            f"{why}; import the name where the module runs, not only under TYPE_CHECKING"
        )


def _defines(outer: CodeType, inner: CodeType) -> bool:
    if outer.co_name == "<module>":
        return False
    return any(
        const is inner or (isinstance(const, CodeType) and _defines(const, inner))
        for const in outer.co_consts
    )


def _means_context(annotation: Any, context_type: type) -> bool:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _means_context(typing.get_args(annotation)[0], context_type)
    if origin is typing.Union or origin is types.UnionType:
        parts = [part for part in typing.get_args(annotation) if part is not type(None)]
        return len(parts) == 1 and _means_context(parts[0], context_type)
    found = origin if origin is not None else annotation
    return isinstance(found, type) and issubclass(found, context_type)


def _names_context(text: str, context_type: type) -> bool:
    name = re.escape(context_type.__name__)
    plain = rf"(?:\w+\.)*{name}(?:\[.*\])?"
    pattern = rf"{plain}|{plain}\s*\|\s*None|None\s*\|\s*{plain}|(?:\w+\.)*Optional\[{plain}\]"
    return re.fullmatch(pattern, text.strip()) is not None
