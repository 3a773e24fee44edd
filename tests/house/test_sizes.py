"""Sizes: a file is one concept, a function one thought. The limits are where the tail begins, not what is aimed at."""

from __future__ import annotations

import ast

from tests.house.source import Function, lua_files, name_of, nodes, python_files

FILE_LIMIT = 400
FUNCTION_LIMIT = 60


def test_files_are_one_concept() -> None:
    sizes = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in (*python_files(), *lua_files())}
    assert not {name: lines for name, lines in sizes.items() if lines > FILE_LIMIT}


def test_functions_are_one_thought() -> None:
    sizes = {f"{name_of(path)}:{f.lineno} {f.name}": length(f) for path, f in nodes() if isinstance(f, Function)}
    assert not {name: lines for name, lines in sizes.items() if lines > FUNCTION_LIMIT}


def length(function: Function) -> int:
    """Count its lines without its docstring: a long contract is no fault."""
    assert function.end_lineno is not None
    docstring = ast.get_docstring(function, clean=False)
    return function.end_lineno - function.lineno + 1 - (docstring.count("\n") + 1 if docstring else 0)
