"""Which tests carry which duties, found by reading the test files without running them.

A duty is carried by a `duty("id")` in the decorators of a test function or of its class,
in a mark of its parameters, in the module's `pytestmark`, or around an assigned test class
(`TestEngine = duty("id")(Machine.TestCase)`). Tests that the default run leaves out, or
whose failure it forgives, carry nothing.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Findings", "find_in_folder", "find_in_source"]

# Marks with which a test does not count: not run by default, or allowed to fail.
NOT_COUNTED = frozenset({"skip", "skipif", "xfail", "slow", "interop", "long", "attack"})

# Folders whose tests need peers from elsewhere and stay out of the default run.
NOT_SEARCHED = frozenset({"interop", "conformance"})

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True)
class Findings:
    """`carried`: duty id to the tests that carry it. `faults`: uses that carry nothing."""

    carried: Mapping[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    faults: list[str] = field(default_factory=list)


def find_in_folder(root: Path) -> Findings:
    """Read every test file under `root`, in path order; a name is `file::Class::test`."""
    carried: defaultdict[str, list[str]] = defaultdict(list)
    faults: list[str] = []
    for path in sorted(root.rglob("test_*.py")):
        name = path.relative_to(root).as_posix()
        if NOT_SEARCHED.isdisjoint(path.relative_to(root).parts):
            found = find_in_source(path.read_text("utf-8"), name)
            faults.extend(found.faults)
            for duty_id, tests in found.carried.items():
                carried[duty_id].extend(tests)
    return Findings(carried=carried, faults=faults)


def find_in_source(source: str, name: str) -> Findings:
    """Read one test file, given as text.

    Raises:
        SyntaxError: the text is not Python.
    """
    tree = ast.parse(source, filename=name)
    seen: set[ast.Call] = set()
    carried: defaultdict[str, list[str]] = defaultdict(list)
    faults: list[str] = []

    def carry(test: str, marks: Iterable[ast.expr]) -> None:
        marks = list(marks)
        calls = [call for mark in marks for call in _duty_calls(mark)]
        seen.update(calls)
        if any(_counts_not(mark) for mark in marks):
            return
        for call in calls:
            for argument in call.args:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    carried[argument.value].append(f"{name}::{test}")
                else:
                    faults.append(f"{name}:{call.lineno}: a duty's id is a plain string")

    module_marks = list(_marks_of(tree.body))
    for function, path, inherited in _tests(tree.body):
        carry("::".join((*path, function.name)), [*module_marks, *inherited, *_own(function)])
    for assigned, value in _assigned_tests(tree.body):
        carry(assigned, [*module_marks, value])
    faults.extend(
        f"{name}:{call.lineno}: this duty(...) stands on no test"
        for call in _duty_calls(tree)
        if call not in seen
    )
    return Findings(carried=carried, faults=faults)


def _tests(
    body: list[ast.stmt], path: tuple[str, ...] = (), inherited: tuple[ast.expr, ...] = ()
) -> Iterator[tuple[_Function, tuple[str, ...], tuple[ast.expr, ...]]]:
    """The test functions below `body`, with their classes and the marks of these."""
    for node in body:
        if isinstance(node, _Function) and node.name.startswith("test_"):
            yield node, path, inherited
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            marks = (*inherited, *node.decorator_list, *_marks_of(node.body))
            yield from _tests(node.body, (*path, node.name), marks)


def _own(function: _Function) -> list[ast.expr]:
    return function.decorator_list


def _assignments(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    for node in body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, node.value


def _marks_of(body: list[ast.stmt]) -> Iterator[ast.expr]:
    """The marks a module or class gives to all its tests."""
    return (value for target, value in _assignments(body) if target == "pytestmark")


def _assigned_tests(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    """Test classes made by assignment, as state machines are."""
    return (pair for pair in _assignments(body) if pair[0].startswith("Test"))


def _duty_calls(node: ast.AST) -> Iterator[ast.Call]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call) and _last_name(inner.func) == "duty":
            yield inner


def _counts_not(mark: ast.expr) -> bool:
    """Whether a mark takes the whole test out; a mark of one parameter takes out only that."""
    if isinstance(mark, ast.List | ast.Tuple):
        return any(_counts_not(element) for element in mark.elts)
    return _last_name(mark.func if isinstance(mark, ast.Call) else mark) in NOT_COUNTED


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
