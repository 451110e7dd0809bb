"""What the style guide asks of every module."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.layout.source import Module, every_module, modules

# A day of the years in which revisions appear; an example of a date can be of another year.
_DATE = re.compile(r"\b202[4-9][-_]\d\d[-_]\d\d\b")
_ERA_WORD = re.compile(r"\b(legacy|modern|era)s?\b", re.IGNORECASE)

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _docstrings(tree: ast.Module) -> set[int]:
    """The syntax nodes that are docstrings, an attribute's included, by identity."""
    found: set[int] = set()
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            statements = getattr(node, field, None)
            if isinstance(statements, list):
                found |= {
                    id(one.value)
                    for one in statements
                    if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)
                }
    return found


def _public(tree: ast.Module) -> Iterator[tuple[str, Definition]]:
    """Public classes and functions, and the methods of the classes given to others.

    A protocol's methods are described by the protocol; so are those of a class with a base, if it
    is the base that has them.
    """
    exported = _exported(tree) or []
    for node in tree.body:
        if not isinstance(node, Definition) or node.name.startswith("_"):
            continue
        yield node.name, node
        if isinstance(node, ast.ClassDef) and node.name in exported:
            bases = {ast.unparse(base).partition("[")[0] for base in node.bases}
            if bases - {"Record", "Exception", "Generic"}:
                continue
            for part in node.body:
                if isinstance(part, Definition) and not part.name.startswith("_"):
                    yield f"{node.name}.{part.name}", part


def _is_overload(node: Definition) -> bool:
    names = {ast.unparse(one).rpartition(".")[2] for one in node.decorator_list}
    return bool(names & {"overload", "setter"})


def _exported(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            listed = ast.literal_eval(node.value)
            assert isinstance(listed, list)
            return listed
    return None


def _defined(tree: ast.Module) -> set[str]:
    """Every name bound at the top of a module."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, Definition):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


@every_module
def test_only_the_revisions_know_a_date(module: Module) -> None:
    if module.layer == "revisions":
        return
    prose = _docstrings(module.tree)
    dated = [
        node.lineno
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in prose
        and _DATE.search(node.value)
    ]
    assert dated == []
    names = {node.id for node in ast.walk(module.tree) if isinstance(node, ast.Name)}
    assert [name for name in names if _DATE.search(name.lower().removeprefix("v"))] == []


@every_module
def test_no_word_divides_revisions_into_old_and_new(module: Module) -> None:
    if module.layer != "revisions":
        assert _ERA_WORD.findall(module.text) == []


@every_module
def test_every_module_and_everything_public_says_what_it_is(module: Module) -> None:
    assert ast.get_docstring(module.tree), "the module has no docstring"
    silent = [
        name
        for name, node in _public(module.tree)
        if not ast.get_docstring(node) and not _is_overload(node)
    ]
    assert silent == []


@every_module
def test_a_module_lists_what_it_gives_to_others(module: Module) -> None:
    listed = _exported(module.tree)
    taken = {
        one.name
        for other in modules().values()
        for target, one in other.own_imports()
        if target == one.module == module.name and one.name
    }
    if listed is None:
        assert {name for name, _ in _public(module.tree)} | taken == set(), "it has no __all__"
        return
    assert len(listed) == len(set(listed))
    assert taken - {"__version__"} <= set(listed)
    if module.name != "dragoman":
        assert set(listed) <= _defined(module.tree)


def test_a_fact_about_a_revision_has_few_readers() -> None:
    """With a third reader it has become behaviour: an object that the fact chooses once."""
    readers: dict[str, set[str]] = {}
    for module in modules().values():
        if module.layer == "revisions":
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("facts"):
                readers.setdefault(node.attr, set()).add(module.name)
    assert readers
    assert {fact: names for fact, names in readers.items() if len(names) > 2} == {}


@every_module
def test_nothing_is_left_for_later(module: Module) -> None:
    assert re.findall(r"\b(TODO|FIXME|XXX|HACK)\b", module.text) == []


@every_module
def test_no_blanket_is_thrown_over_the_type_checker(module: Module) -> None:
    assert re.findall(r"# type: ignore(?!\[)", module.text) == []


def test_the_docstrings_of_the_guide_are_recognised() -> None:
    tree = ast.parse('class A:\n    x: int = 1\n    """2024-11-05"""\n    y = "2024-11-05"\n')
    prose = _docstrings(tree)
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert [id(node) in prose for node in constants if isinstance(node.value, str)] == [True, False]
