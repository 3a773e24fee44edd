"""The source of the package, as the tests of the house read it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "datamesh"
SCRIPTS = PACKAGE / "store" / "scripts"

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    """Name a file as test reports do: from the root, with slashes."""
    return path.relative_to(ROOT).as_posix()


def python_files() -> list[Path]:
    """List the modules of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def lua_files() -> list[Path]:
    """List the scripts."""
    return sorted(SCRIPTS.glob("*.lua"))


@cache
def parsed(path: Path) -> ast.Module:
    """Parse a module, once per session."""
    return ast.parse(path.read_text("utf-8"), path)


def nodes() -> Iterator[tuple[Path, ast.AST]]:
    """Walk all modules of the package."""
    for path in python_files():
        for node in ast.walk(parsed(path)):
            yield path, node


def words_of(identifier: str) -> list[str]:
    """Split an identifier: `GPUExecutor_of` has the words gpu, executor and of."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)]
