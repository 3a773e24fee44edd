"""What is declared in pyproject.toml is what the package needs."""

from __future__ import annotations

import ast
import importlib
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from typing import Any

from datamesh.store.script import SCRIPTS
from tests.house.source import ROOT, nodes, parsed, python_files

PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
BEHIND_EXTRAS = {"lupa": "fakeredis"}
"""Modules that come with the extra of another package."""


def packages(requirements: Iterable[str]) -> set[str]:
    """Name what is required, as it is imported."""
    return {re.split(r"[\[<>=;! ]", requirement)[0].replace("-", "_") for requirement in requirements}


def foreign(names: Iterable[str]) -> set[str]:
    roots = {name.partition(".")[0] for name in names}
    return {BEHIND_EXTRAS.get(root, root) for root in roots - set(sys.stdlib_module_names) - {"datamesh"}}


def imported_by(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=str(module)):
            yield module
        case ast.Call(func=ast.Attribute(attr="import_module" | "find_spec"), args=[ast.Constant(value=str(module))]):
            yield module


def test_what_is_imported_with_the_package_is_a_dependency() -> None:
    statements = (statement for path in python_files() for statement in parsed(path).body)
    needed = foreign(name for statement in statements for name in imported_by(statement))
    assert needed <= packages(PROJECT["dependencies"])


def test_what_is_imported_at_all_is_a_dependency_or_an_extra() -> None:
    needed = foreign(name for _, node in nodes() for name in imported_by(node))
    assert needed <= packages(PROJECT["dependencies"]).union(*map(packages, EXTRAS.values()))


def test_all_is_every_extra_of_users() -> None:
    (everything,) = EXTRAS["all"]
    assert everything == f"datamesh[{','.join(sorted(set(EXTRAS) - {'all', 'dev'}))}]"


def test_the_extra_for_developers_is_the_group() -> None:
    assert EXTRAS["dev"] == PYPROJECT["dependency-groups"]["dev"]


def test_every_command_is_there() -> None:
    for target in PROJECT["scripts"].values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_files_that_are_no_modules_lie_in_the_package() -> None:
    assert (ROOT / "datamesh" / "py.typed").is_file()
    assert all(script.source for script in SCRIPTS.values())
