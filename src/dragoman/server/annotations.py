"""Annotations as people write them, brought into the form that a schema engine reads.

`Annotated[int, "how many days"]` and `Doc` describe; `annotated_types` constrains. Both become
`msgspec.Meta`, which both engines are then given in their own words. Nothing here imports an
optional library: whose class an annotation is can be told from the name of its module.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import types
import typing
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec

__all__ = [
    "Survey",
    "describe_metadata",
    "field_hints",
    "for_msgspec",
    "holds_type",
    "literal_key",
    "map_type",
    "survey",
]


@dataclass(slots=True)
class Survey:
    """What an annotation holds, however deep.

    `needs_pydantic`: one of pydantic's models, fields or types is in it. `literals` maps the set
    of a Literal's values to the order in which they were written.
    """

    needs_pydantic: bool = False
    literals: dict[frozenset[Hashable], tuple[Any, ...]] = field(default_factory=dict)
    classes: set[Any] = field(default_factory=set)


def survey(annotation: Any, into: Survey | None = None) -> Survey:
    """Look through an annotation, its arguments and the fields of its records."""
    seen = Survey() if into is None else into
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        inner, *metadata = typing.get_args(annotation)
        if any(is_of_pydantic(type(one)) or _is_beyond_meta(one) for one in metadata):
            seen.needs_pydantic = True
        return survey(inner, seen)
    if origin is Literal:
        values = typing.get_args(annotation)
        seen.literals[literal_key(values)] = values
        return seen
    if (alias := _alias_value(annotation)) is not None:
        if annotation not in seen.classes:
            seen.classes.add(annotation)
            survey(alias, seen)
        return seen
    for argument in typing.get_args(annotation):
        survey(argument, seen)
    cls = annotation if origin is None else origin
    if hasattr(cls, "__supertype__"):
        return survey(cls.__supertype__, seen)
    if not isinstance(cls, type) or cls in seen.classes:
        return seen
    seen.classes.add(cls)
    if is_of_pydantic(cls):
        seen.needs_pydantic = True
    elif is_record(cls):
        for hint in field_hints(cls).values():
            survey(hint, seen)
    return seen


def literal_key(values: tuple[Any, ...]) -> frozenset[Hashable]:
    """The set of a Literal's values; 1 and True stay apart."""
    return frozenset((type(value), value) for value in values)


def is_of_pydantic(cls: Any) -> bool:
    """Whether a class is pydantic's, derives from one that is, or brings a pydantic schema."""
    if hasattr(cls, "__get_pydantic_core_schema__") or hasattr(cls, "__pydantic_core_schema__"):
        return True
    return any(base.__module__.split(".")[0] == "pydantic" for base in getattr(cls, "__mro__", ()))


def is_record(cls: type) -> bool:
    """Whether a class has named, typed fields that both sides can see."""
    return (
        dataclasses.is_dataclass(cls)
        or typing.is_typeddict(cls)
        or issubclass(cls, msgspec.Struct)
        or hasattr(cls, "__attrs_attrs__")
        or (issubclass(cls, tuple) and hasattr(cls, "_fields"))
        or type(cls).__name__ == "_TypedDictMeta"
    )


def field_hints(cls: type) -> dict[str, Any]:
    """The annotations of a record's fields, in order; none when they cannot be resolved."""
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except (NameError, TypeError):
        # The engine resolves them again, and its error names the field.
        return {}


def holds_type(annotation: Any, found: Callable[[type], bool]) -> bool:
    """Whether a class for which `found` holds is the annotation or one of its arguments."""
    if typing.get_origin(annotation) is Literal:
        return False
    if (alias := _alias_value(annotation)) is not None:
        return holds_type(alias, found)
    if typing.get_origin(annotation) is None:
        return isinstance(annotation, type) and found(annotation)
    return any(holds_type(argument, found) for argument in typing.get_args(annotation))


def describe_metadata(annotation: Any) -> str | None:
    """The description in `Annotated`: a plain string, or the `documentation` of a `Doc`."""
    if typing.get_origin(annotation) is not Annotated:
        return None
    said: str | None = None
    for one in annotation.__metadata__:
        text = one if isinstance(one, str) else getattr(one, "documentation", None)
        if isinstance(text, str):
            said = text
    return said


def for_msgspec(annotation: Any) -> Any:
    """The same type in msgspec's words, with the metadata of others translated."""
    return map_type(annotation, _to_meta)


def _to_meta(metadata: Any) -> Any:
    """One item of `Annotated` as `msgspec.Meta`; anything unknown stays as it is."""
    text = metadata if isinstance(metadata, str) else getattr(metadata, "documentation", None)
    if isinstance(text, str):
        return msgspec.Meta(description=text)
    limits = _limits(metadata)
    return msgspec.Meta(**limits) if limits else metadata


_LIMITS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length")


def _limits(metadata: Any) -> dict[str, Any]:
    """The constraints in an item of `annotated_types`; none in anything else."""
    if type(metadata).__module__.split(".")[0] != "annotated_types":
        return {}
    # `Len` says min_length=0 for "no minimum".
    return {
        name: value
        for name in _LIMITS
        if (value := getattr(metadata, name, None)) is not None
        and (name, value) != ("min_length", 0)
    }


def _is_beyond_meta(metadata: Any) -> bool:
    """A constraint that msgspec has no word for, such as a predicate; pydantic knows it."""
    if type(metadata).__module__.split(".")[0] != "annotated_types":
        return False
    return not _limits(metadata) and not isinstance(getattr(metadata, "documentation", None), str)


def map_type(annotation: Any, change: Callable[[Any], Any]) -> Any:
    """Rebuild an annotation with `change` applied to each piece of metadata in it.

    Named aliases are written out on the way, unless they refer to themselves.
    """
    return _map_type(annotation, change, ())


def _map_type(annotation: Any, change: Callable[[Any], Any], inside: tuple[Any, ...]) -> Any:
    origin = typing.get_origin(annotation)
    if (alias := _alias_value(annotation)) is not None:
        # A name in quotes is one that only the alias's own module can resolve.
        if annotation in inside or isinstance(alias, str):
            return annotation
        return _map_type(alias, change, (*inside, annotation))
    if origin is None or origin is Literal:
        return annotation
    if origin is Annotated:
        inner = _map_type(typing.get_args(annotation)[0], change, inside)
        metadata = tuple(change(one) for one in annotation.__metadata__)
        return Annotated[(inner, *metadata)]
    arguments = typing.get_args(annotation)
    changed = tuple(
        argument if argument is Ellipsis else _map_type(argument, change, inside)
        for argument in arguments
    )
    if all(new is old for new, old in zip(changed, arguments, strict=True)):
        return annotation
    if origin is typing.Union or origin is types.UnionType:
        return functools.reduce(operator.or_, changed)
    try:
        return annotation.copy_with(changed)
    except AttributeError:
        return origin[changed]


def _alias_value(annotation: Any) -> Any:
    """What `type X = ...` stands for; None for anything else."""
    if type(annotation).__name__ == "TypeAliasType":
        return annotation.__value__
    return None
