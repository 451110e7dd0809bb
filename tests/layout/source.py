"""The package's source as the layout tests see it: modules, their trees, their imports."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

__all__ = ["ROOT", "SRC", "Import", "Module", "every_module", "modules"]

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src" / "dragoman"


@dataclass(frozen=True)
class Import:
    """One name that a module imports.

    `module` is where it comes from, `name` what is taken ("" for the module itself), `line` where
    it stands; `deferred` says that it stands inside of a function.
    """

    module: str
    name: str
    line: int
    deferred: bool


@dataclass(frozen=True)
class Module:
    """One file: its dotted name and its path, and its syntax tree, read from there unless given."""

    name: str
    path: Path
    given: ast.Module | None = None

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text) if self.given is None else self.given

    @property
    def layer(self) -> str:
        """The folder below the package, or the file's own name; "" for the front door."""
        return self.name.partition(".")[2].partition(".")[0]

    @property
    def text(self) -> str:
        """The source."""
        return self.path.read_text(encoding="utf-8")

    def imports(self) -> tuple[Import, ...]:
        """Every import, at whatever depth."""
        return _all_imports(self.name)

    def own_imports(self) -> tuple[tuple[str, Import], ...]:
        """Every import of one of our modules, with the module it really reaches."""
        return _own_imports(self.name)


def _imports(node: ast.AST, *, deferred: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, "", child.lineno, deferred)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"relative import on line {child.lineno}"
            for alias in child.names:
                yield Import(child.module or "", alias.name, child.lineno, deferred)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(child, deferred=deferred or inside)


@cache
def _all_imports(name: str) -> tuple[Import, ...]:
    return tuple(_imports(modules()[name].tree, deferred=False))


@cache
def _own_imports(name: str) -> tuple[tuple[str, Import], ...]:
    known = modules()
    return tuple(
        (whole if (whole := f"{one.module}.{one.name}") in known else one.module, one)
        for one in _all_imports(name)
        if one.module.partition(".")[0] == "dragoman"
    )


@cache
def modules() -> dict[str, Module]:
    """Every module of the package by its dotted name."""
    found: dict[str, Module] = {}
    for path in sorted(SRC.rglob("*.py")):
        parts = path.relative_to(SRC.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path)
    return found


def every_module(check: Callable[[Module], None]) -> Callable[[], None]:
    """A test that holds a check for every module, and names each one that fails it.

    One test and not one a module: three thousand tests that take no time take half a minute.
    """

    def test() -> None:
        failed = []
        for module in modules().values():
            try:
                check(module)
            except AssertionError as wrong:
                failed.append(f"{module.name}: {wrong}")
        assert not failed, "\n\n".join(failed)

    test.__name__ = check.__name__
    test.__qualname__ = check.__qualname__
    test.__doc__ = check.__doc__
    test.__module__ = check.__module__
    return test
